"""The byte-level language models that ship: complete, small, and as good as their cards say."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest
import torch
from safetensors import safe_open

from sensprobe import api, load, zoo
from sensprobe.checkpoints import read_checkpoint
from sensprobe.train.recipe import language_recipe_from, read_document

NAMES = ("mamba-bytes", "mamba2-bytes")
each = pytest.mark.parametrize("name", NAMES)
LARGEST_BYTES = 8_000_000
WORST_BITS = 2.2
LEAST_BLIMP = 57.0  # chance is 50


def card(name: str) -> str:
    return zoo.shipped()[name].with_suffix(".md").read_text(encoding="utf-8")


def cell(name: str, label: str) -> str:
    """The second cell of a card's row."""
    (found,) = re.findall(rf"^\| {re.escape(label)} \| (.*) \|$", card(name), re.MULTILINE)
    return found


def measured(text: str) -> tuple[float, float]:
    """The value and the error a cell claims."""
    value, error = re.match(r"\*\*([\d.]+) ± ([\d.]+)", text).groups()
    return float(value), float(error)


@each
def test_the_file_is_what_the_recipe_makes(name: str) -> None:
    path = zoo.shipped()[name]
    assert path.stat().st_size <= LARGEST_BYTES
    model, _ = read_checkpoint(path)
    recipe = language_recipe_from(read_document(zoo.recipes()[name]), name)
    assert model.config == recipe.model
    with safe_open(path, "pt") as file:
        tensors = [file.get_tensor(key) for key in file.keys()]  # noqa: SIM118
    assert {t.dtype for t in tensors} == {torch.float32}
    assert all(t.isfinite().all() for t in tensors)
    assert cell(name, "parameters") == f"{sum(t.numel() for t in tensors):,}"
    assert card(name).startswith(f"# {name}\n")
    assert f"`sensprobe train {name} --data text:" in card(name)


@each
def test_the_card_claims_what_the_file_records(name: str) -> None:
    recorded = read_checkpoint(zoo.shipped()[name])[1]["recorded"]
    assert (recorded["metric"], recorded["split"]) == ("bits_per_byte", "confirmation")
    value, error = measured(cell(name, "bits a byte, held-out novels"))
    assert value == round(recorded["value"], 3)
    assert error == round(recorded["stderr"], 3)
    assert value <= WORST_BITS
    value, error = measured(cell(name, "BLiMP"))
    assert value >= LEAST_BLIMP
    assert error < 0.2


@each
def test_it_reads_what_every_machine_has(name: str) -> None:
    """Python's own documentation; another Python has another edition of it."""
    found = api.evaluate(name, "pydoc,length=256,stride=2048", limit=24)
    claimed, _ = measured(cell(name, "bits a byte, `pydoc`"))
    assert found["metric"] == "bits_per_byte"
    assert abs(found["value"] - claimed) < 4 * found["stderr"]
    assert found["value"] < 3  # 8 bits where nothing is known, about 5 where letters are counted


@each
def test_the_main_job_runs_on_it(name: str, tmp_path: Path) -> None:
    """profile, search, export, eval: a call a step, and the artefact scores what was confirmed."""
    data, run = "pydoc,length=64,context=16,stride=4096", tmp_path / "run"
    schemes = ["int8/channel", "int4/group64"]
    rows = api.profile(name, data, run, schemes, method="taylor", limit=4)["rows"]
    assert {r["scheme"] for r in rows} == set(schemes)
    full = api.cost(name)["total_bytes"]
    found = api.search(run, [full // 5], evaluations=4, limit=8)
    (chosen,) = found["confirmation"]["plans"]
    assert chosen["total_bytes"] <= full // 5
    api.export(run, chosen["budget"], tmp_path / "small")
    again = api.evaluate(tmp_path / "small", data)
    assert again["value"] == chosen["metric"]["value"]
    assert again["cost"]["total_bytes"] == chosen["total_bytes"]
    tokens = torch.arange(40)[None] + 60
    logits = load(tmp_path / "small")(tokens)
    assert logits.shape == (1, 40, 256)
    assert logits.isfinite().all()


@pytest.mark.slow
@pytest.mark.skipif("SENSPROBE_DATA" not in os.environ, reason="SENSPROBE_DATA names no folder")
@each
def test_held_out_novels_score_what_is_recorded(name: str) -> None:
    """Not the windows of the record: the same novels, spread over their whole length."""
    recorded = read_checkpoint(zoo.shipped()[name])[1]["recorded"]
    text = Path(os.environ["SENSPROBE_DATA"]) / "text" / "english_novels.tar.xz"
    found = api.evaluate(name, f"text:{text},part=held-out,length=256,stride=16384")
    assert abs(found["value"] - recorded["value"]) < 4 * found["stderr"]
