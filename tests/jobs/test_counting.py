"""A search counts states as they are held where steps run, and offers what saves bytes there."""

from __future__ import annotations

from typing import Any

import pytest

from sensprobe.errors import UsageError
from sensprobe.jobs.count_states import counting
from sensprobe.jobs.problem import build_space
from sensprobe.jobs.search import SearchSettings
from sensprobe.packed import Holding
from sensprobe.plans.scheme import parse
from sensprobe.session.source import open_model

MODEL = open_model("s4d-digits").model
EVERY, STEP = "int8/head/dynamic/every16", "int8/head/dynamic"
PACKED = 16 * 8 * 2 + 16 * 2  # codes, and a dynamic scale a head
FULL = 16 * 8 * 2 * 4


def profile(*schemes: str) -> dict[str, Any]:
    rows = [
        {"target": f"layers.*.{part}", "sites": [f"layers.0.{part}"], "scheme": scheme}
        | {"kl": {"value": 0.1, "stderr": 0.01}}
        for part in ("C", "state")
        for scheme in schemes
    ]
    return {"sign": 1, "additive": "kl", "schemes": list(schemes), "rows": rows}


def offered(way: str | None, freeze: str = "", target: str | None = None) -> dict[str, int]:
    """Scheme -> bytes of the state's options, or of the state where it is frozen."""
    counts = counting(way, Holding(MODEL), target)
    frozen = [("layers.*.state", parse(freeze))] if freeze else []
    space = build_space(MODEL.sites, profile(EVERY, STEP), freeze=frozen, counts=counts)
    if freeze:
        return {freeze: space.problem.fixed_state_bytes}
    state = next(d for d in space.problem.decisions if d.part == "state")
    dropped = {row["scheme"] for row in counts.to_json()}
    assert dropped.isdisjoint(o.scheme for o in state.options)
    assert bool(dropped) == bool(counts.notes())
    return {o.scheme: o.state_bytes for o in state.options}


def test_what_streams_in_full_is_not_offered_for_streaming() -> None:
    assert offered(None) == offered("held") == {STEP: PACKED, "fp32": FULL}


def test_whole_sequences_and_other_runtimes_hold_it_packed() -> None:
    both = {EVERY: PACKED, STEP: PACKED, "fp32": FULL}
    assert offered("packed") == offered(None, target="vllm") == both


def test_a_frozen_state_that_streams_in_full_is_counted_so() -> None:
    assert offered("held", EVERY) == {EVERY: FULL}
    assert offered("packed", EVERY) == {EVERY: PACKED}
    assert offered("held", STEP) == {STEP: PACKED}


def test_where_the_state_is_frozen_in_full_every_plan_of_the_search_is_counted_in_full() -> None:
    counts = counting("held", Holding(MODEL), None)
    space = build_space(
        MODEL.sites, profile(STEP), freeze=[("layers.*.y", parse("int8/dynamic/stochastic"))],
        counts=counts,
    )  # fmt: skip
    state = next(d for d in space.problem.decisions if d.part == "state")
    assert {o.scheme: o.state_bytes for o in state.options} == {"fp32": FULL}
    assert STEP in space.uniform()
    assert "stochastic" in counts.notes()[0]


def test_the_way_is_checked() -> None:
    with pytest.raises(UsageError, match="choose held or packed"):
        counting("chunks", Holding(MODEL), None)
    with pytest.raises(UsageError, match="another runtime"):
        counting("held", Holding(MODEL), "vllm")
    assert SearchSettings().count_states is None


def test_schemes_that_all_stream_in_full_are_an_error_that_says_what_to_do() -> None:
    counts = counting("held", Holding(MODEL), None)
    with pytest.raises(UsageError, match="--count-states packed"):
        build_space(MODEL.sites, profile(EVERY, STEP), schemes=[parse(EVERY)], counts=counts)
