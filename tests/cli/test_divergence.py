"""How far outputs are from full precision, as a score and as a way to profile: no labels needed."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from checkpoint_files import write_own
from command_line import Shell, evaluations
from language import write_model, write_stories

from sensprobe.data import load_data
from sensprobe.models.s4d import S4DConfig

SCHEMES = ["--scheme", "int8/dynamic", "--scheme", "int4/dynamic"]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A model of three outputs, and the same 160 sequences with labels and without."""
    write_own(tmp_path / "m.safetensors", S4DConfig(d_input=2, d_output=3, d_model=4, d_state=3))
    draw = np.random.default_rng(0)
    x, y = draw.normal(size=(160, 9, 2)).astype(np.float32), np.arange(160) % 3
    np.savez(tmp_path / "both.npz", x=x, y=y)
    np.savez(tmp_path / "bare.npz", x=x)
    return tmp_path


def profiled(shell: Shell, folder: Path, data: str, run: str, *more: str) -> dict:
    model = folder / "m.safetensors"
    asked = ["profile", model, "--data", f"npz:{folder / data}", *SCHEMES, "--run", folder / run]
    return shell.ok(*asked, *more, "--json").json


def test_unlabelled_data_goes_the_whole_way(shell: Shell, folder: Path) -> None:
    data, run = f"npz:{folder / 'bare.npz'}", folder / "run"
    bare = profiled(shell, folder, "bare.npz", "run")
    assert (bare["task"], bare["metric"], bare["sign"]) == ("unlabelled", "divergence", -1)
    labelled = profiled(shell, folder, "both.npz", "other")
    told = {(r["target"], r["scheme"]): r["kl"]["value"] for r in labelled["rows"]}
    assert {(r["target"], r["scheme"]): r["kl"]["value"] for r in bare["rows"]} == told
    assert max(told.values()) > 0
    budget = bare["full_bytes"] // 3
    found = shell.ok("search", "--run", run, "--budget", budget, "--evaluations", 8, "--json").json
    assert found["search"]["full"]["metric"]["value"] == 0
    confirmed = found["confirmation"]["plans"][0]["metric"]["value"]
    assert confirmed > 0
    uniform = found["confirmation"]["plans"][0]["against_uniform"]["metric"]["value"]
    assert confirmed <= 1.5 * uniform
    shell.ok("export", "--run", run, "--plan", budget, "--out", folder / "out")
    assert shell.ok("report", "--run", run, "--json").json["images"]
    plan = ["--plan", folder / "out" / "plan.json"]
    scored = shell.ok("eval", folder / "m.safetensors", "--data", data, *plan, "--json").json
    assert scored["value"] == pytest.approx(confirmed, rel=1e-6)
    refused = shell("eval", folder / "out", "--data", data)
    assert refused.code == 2
    assert "is an exported model" in refused.err


def test_the_method_makes_the_evaluations_of_measured(shell: Shell, folder: Path) -> None:
    measured = profiled(shell, folder, "both.npz", "run")
    before = evaluations(folder / "run")
    found = profiled(shell, folder, "both.npz", "run", "--method", "divergence")
    assert evaluations(folder / "run") == before
    assert found["method"] == "divergence"
    for row, full in zip(found["rows"], measured["rows"], strict=True):
        assert row == {k: v for k, v in full.items() if k not in ("metric", "cross_entropy")}
    report = shell.ok("report", "--run", folder / "run")
    assert "Divergence sensitivity" in report.out
    assert "sensitivity-divergence-additive.png" in report.out


def test_a_search_builds_on_divergence_alone(shell: Shell, folder: Path) -> None:
    found = profiled(shell, folder, "both.npz", "run", "--method", "divergence")
    budget = found["full_bytes"] // 2
    asked = ["search", "--run", folder / "run", "--budget", budget, "--evaluations", 6]
    document = shell.ok(*asked, "--json").json
    assert document["search"]["metric"] == "accuracy"
    assert document["confirmation"]["plans"]


def test_divergence_is_a_metric_of_labelled_data_too(shell: Shell, folder: Path) -> None:
    model = folder / "m.safetensors"
    asked = ["eval", model, "--data", f"npz:{folder / 'both.npz'}", "--set", "head=int4/channel"]
    scored = shell.ok(*asked, "--metric", "divergence", "--json").json
    compared = shell.ok(*asked, "--compare", "--json").json
    assert scored["metric"] == "divergence"
    assert scored["value"] == compared["scores"]["kl"]["value"] > 0
    run = ["--run", folder / "run"]
    shell.ok(*asked, *run)
    other = shell(*asked, *run, "--metric", "divergence")
    assert other.code == 1
    assert "was made with the task's own metric, asked for metric divergence" in other.err


def test_text_is_profiled_by_divergence(shell: Shell, tmp_path: Path) -> None:
    model = write_model(tmp_path / "m.safetensors")
    data = ["--data", f"text:{write_stories(tmp_path / 's', 24, 12)},length=32,context=8"]
    asked = ["profile", model, *data, "--scheme", "int4/head/asym/dynamic", "--run", tmp_path / "r"]
    found = shell.ok(*asked, "--metric", "divergence", "--json").json
    assert found["baseline"]["metric"]["value"] == 0
    assert all(row["kl"]["value"] > 0 for row in found["rows"] if row["part"] == "embedding")


def test_one_output_without_labels_says_nothing(shell: Shell, folder: Path) -> None:
    write_own(folder / "one.safetensors", S4DConfig(d_input=2, d_output=1, d_model=4, d_state=3))
    done = shell("eval", folder / "one.safetensors", "--data", f"npz:{folder / 'bare.npz'}")
    assert done.code == 1
    assert "the model gives one number; give y" in " ".join(done.err.split())


def test_unlabelled_data_is_noted_and_trains_nothing(shell: Shell, folder: Path) -> None:
    data = load_data(f"npz:{folder / 'bare.npz'}")
    assert data.task == "unlabelled"
    assert "unlabelled" in data.describe()
    assert any("has no y" in note for note in data.notes)
    x = np.zeros((40, 64, 1), np.float32) + np.arange(40)[:, None, None]
    np.savez(folder / "t.npz", x=x, split=np.array(["train"] * 40))
    done = shell("train", "s4d-digits", "--data", f"npz:{folder / 't.npz'}", "--out", folder / "o")
    assert done.code == 1
    assert "there are no labels" in done.err
