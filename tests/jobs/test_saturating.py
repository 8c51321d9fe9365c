"""Ranges that are left are said wherever a plan is measured or chosen."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from language import MAMBA2, write_model, write_stories

import sensprobe.api as sensprobe
from sensprobe.jobs.saturation import chosen_ranges, saturated, saturation_warnings
from sensprobe.plans.plan import Plan
from sensprobe.plans.scheme import parse
from sensprobe.session.open import open_session

STATE = "layers.0.state"
PLAN = Plan(((STATE, parse("e4m3/range0.001")),), "p1")


@pytest.fixture
def inputs(tmp_path: Path) -> tuple[Path, str]:
    model = write_model(tmp_path / "m.safetensors", MAMBA2)
    return model, f"text:{write_stories(tmp_path / 's', 12, 20)},length=16,context=4"


def test_a_measurement_and_a_search_say_what_leaves_its_range(inputs: tuple[Path, str]) -> None:
    told = sensprobe.evaluate(*inputs, PLAN, limit=8)
    [warning] = told["warnings"]
    assert warning.startswith(f"{STATE} in e4m3/range0.001: ")
    assert "seen on 8 sequence(s)" in warning
    assert told["saturated"]["rows"][0]["share"] > 0
    assert sensprobe.evaluate(*inputs, {STATE: "fp16"}, limit=8)["warnings"] == []
    session = open_session(*inputs)
    candidate = {"name": "p1", "plan": PLAN.to_json()}
    found: dict[str, Any] = {
        "chosen": [{"candidate": "p1"}, {"candidate": None}, {"candidate": "p1"}],
        "candidates": [candidate],
        "n": 8,
        "target": "vllm",
    }
    [warning] = chosen_ranges(session, found)
    assert warning.startswith(f"p1: {STATE}")
    assert "vLLM keeps inf there" in warning
    rows = saturated(session, PLAN.resolve(session.source.model.sites.values()), "search", 8)
    assert "vLLM" not in saturation_warnings(rows, "torchao")[0]
    assert "vLLM keeps inf" in saturation_warnings(rows, "modelopt")[0]
