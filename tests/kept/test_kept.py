"""What version 0.1.0 wrote is read as it was meant: the same names, the same bits, nothing again.

`make.py` says how the artefacts were written, `kept_artefacts.py` what is asked of them. Bits are
those of weights as they decode and of steps from packed memory, which do not depend on a
processor's vector units; outputs whose sums a library orders agree to what float32 explains. That
checks can fail was seen by changing what is kept: the last tests do so on every run.
"""

from __future__ import annotations

import json
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from kept_artefacts import (
    FAMILIES,
    FOLDERS,
    exported,
    floats_of,
    go_on,
    hex_of,
    inputs,
    model,
    plan,
)

import sensprobe
from sensprobe.runs import open_run
from sensprobe.session.source import open_model

KEPT = Path(__file__).parent
EXPECTED = json.loads((KEPT / "expected.json").read_text())
NEAR = 1e-5
"""Of the largest output. Three other settings of the math libraries moved them by 3e-6."""


def same(found: Any, expected: Any, where: str = "") -> None:
    """Assert equality, of outputs and of numbers computed from them within `NEAR`."""
    if isinstance(expected, dict):
        assert found.keys() == expected.keys(), where
        for key, value in expected.items():
            same(found[key], value, f"{where}/{key}")
    elif isinstance(expected, list):
        assert len(found) == len(expected), where
        for one, other in zip(found, expected, strict=True):
            same(one, other, where)
    elif where.endswith("/outputs"):
        one, other = floats_of(found), floats_of(expected)
        assert np.abs(one - other).max() <= NEAR * np.abs(other).max(), where
    elif isinstance(expected, float):
        assert found == pytest.approx(expected, rel=NEAR), where
    else:
        assert found == expected, where


@pytest.mark.parametrize("family", FAMILIES)
def test_a_checkpoint_is_the_model_it_was(family: str) -> None:
    same(model(KEPT, family), EXPECTED["models"][family])


@pytest.mark.parametrize("name", FOLDERS)
def test_an_exported_folder_gives_the_same_bits(name: str) -> None:
    found, expected = exported(KEPT, name), dict(EXPECTED["exported"][name])
    if not found["packed"]:  # the library sums
        expected["outputs"] += " " + expected.pop("steps")
        found["outputs"] += " " + found.pop("steps")
    same(found, expected)


def test_a_plan_of_many_kinds_resolves_costs_and_scores_the_same() -> None:
    same(plan(KEPT), EXPECTED["plan"])


def test_models_that_ship_keep_their_names() -> None:
    assert {name: open_model(name).fingerprint for name in EXPECTED["zoo"]} == EXPECTED["zoo"]


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """The kept run, with its model and data where they lie on this machine."""
    folder = tmp_path / "run"
    with zipfile.ZipFile(KEPT / "run.zip") as packed:
        packed.extractall(folder)
    manifest = folder / "run.json"
    document = json.loads(manifest.read_text())
    document["data"] = f"npz:{KEPT / 'data.npz'}"
    document["settings"] |= {"model": f"{KEPT / document['settings']['model']}"}
    document["settings"] |= {"data": document["data"]}
    manifest.write_text(json.dumps(document))
    return folder


def test_a_run_goes_on_and_measures_nothing_twice(run: Path) -> None:
    before = open_run(run)
    keys = {entry.key for entry in before.entries()}
    same(go_on(run, KEPT), EXPECTED["run"])
    after = open_run(run)
    assert {entry.key for entry in after.entries()} == keys
    assert after.count == before.count == len(keys) > 40
    assert after.notices == []


def _scheme(root: Path) -> str:
    path = root / "plan.json"
    path.write_text(path.read_text().replace("int5/head/range2", "int5/head/range2.5"))
    return "plan_fingerprint"


def _bit(root: Path) -> str:
    path = root / "models" / "s4d.safetensors"
    content = bytearray(path.read_bytes())
    content[-4] ^= 1  # the last bit of the last number's significand
    path.write_bytes(content)
    return "model_fingerprint"


@pytest.mark.parametrize("change", [_scheme, _bit])
def test_a_change_is_seen(change: Callable[[Path], str], tmp_path: Path) -> None:
    for name in ("plan.json", "data.npz", "models/s4d.safetensors"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes((KEPT / name).read_bytes())
    what, of_plan = change(tmp_path), change is _scheme
    found = plan(tmp_path) if of_plan else model(tmp_path, "s4d")
    with pytest.raises(AssertionError, match=what):
        same(found, EXPECTED["plan"] if of_plan else EXPECTED["models"]["s4d"])


def test_a_lost_evaluation_and_a_moved_output_are_seen(run: Path) -> None:
    lost = sorted((run / "evaluations").iterdir())[:2]
    for path in lost:
        path.unlink()
    before = open_run(run).count
    go_on(run, KEPT)
    assert open_run(run).count > before
    outputs = sensprobe.load(KEPT / "exported" / "s4d")(inputs(KEPT))
    expected = EXPECTED["exported"]["s4d"]["outputs"]
    same({"outputs": hex_of(outputs)}, {"outputs": expected})
    with pytest.raises(AssertionError, match="outputs"):
        same({"outputs": hex_of(outputs * 1.0001)}, {"outputs": expected})
