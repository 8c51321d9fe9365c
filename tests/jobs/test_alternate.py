"""Search and training by turns: the steps of a budget, and what stands after them."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import sensprobe_app

from sensprobe import api
from sensprobe.jobs import alternate

EXAMPLE = Path(sensprobe_app.__file__).parent / "example" / "s4d-digits"


def searched(folder: Path, budget: str, epochs: int) -> tuple[Path, Any]:
    """A run in which a budget was searched and tuned by turns, and its document."""
    run = folder / "run"
    if not run.exists():
        shutil.copytree(EXAMPLE, run)
    found = api.search(run, [budget], evaluations=8, confirm=False, tune=epochs)
    return run, found["turns"]


def test_what_gains_is_searched_again_as_it_was_tuned(tmp_path) -> None:
    run, turns = searched(tmp_path, "1338", 1)
    (row,) = turns["budgets"]
    steps = {step["step"]: step for step in row["steps"]}
    assert list(steps)[:3] == ["search", "tune", "search again"]
    tuned = {r["name"]: r for r in tuned_rows(run)}
    gained = tuned["1338"]["splits"]["search"]["gained"]
    assert steps["tune"]["gained"]["value"] == pytest.approx(gained["value"])
    assert steps["tune"]["score"] == tuned["1338"]["splits"]["search"]["after"]
    again = json.loads((run / "tuned" / "1338-again" / "search" / "run.json").read_text())
    assert again["model_fingerprint"] == tuned["1338"]["weights_fingerprint"]
    assert row["stands"].removeprefix("tuned/") in tuned
    assert json.loads((run / "results" / "turns.json").read_text())["budgets"][0] == row


def test_a_second_time_trains_nothing_anew(tmp_path, monkeypatch) -> None:
    _, before = searched(tmp_path, "1338", 1)
    monkeypatch.setattr("sensprobe.train.loop._leg", no_training)
    _, after = searched(tmp_path, "1338", 1)
    for a, b in zip(before["budgets"][0]["steps"], after["budgets"][0]["steps"], strict=True):
        assert (a["step"], a["plan_fingerprint"], a["score"]) == (
            b["step"],
            b["plan_fingerprint"],
            b["score"],
        )


def test_the_best_of_a_few_is_tuned_on(tmp_path) -> None:
    run, turns = searched(tmp_path, "1.5KiB", 2)
    steps = turns["budgets"][0]["steps"]
    brief = [step for step in steps if step["step"] == "tune briefly"]
    assert 2 <= len(brief) <= alternate.FEW
    best = max(brief, key=lambda step: step["score"]["value"])
    tuned = next(step for step in steps if step["step"] == "tune")
    assert tuned["plan_fingerprint"] == best["plan_fingerprint"]
    start = json.loads((run / "tuned" / "1.5KiB" / "tuned.json").read_text())["start"]
    assert Path(start).parent.name == f"brief-{best['plan']}"


def tuned_rows(run: Path) -> list[dict[str, Any]]:
    return json.loads((run / "results" / "tuned.json").read_text())["plans"]


def no_training(*arguments: Any) -> Any:
    raise AssertionError("something was trained anew")
