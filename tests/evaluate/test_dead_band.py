"""Dead writes of a rounded state, against a recurrence rounded by hand."""

from __future__ import annotations

import pytest
import torch
from builders import CONFIGS, inputs, tiny
from language import MAMBA, MAMBA2
from selective import inputs as tokens
from selective import tiny as tiny_selective

from sensprobe.evaluate.dead_band import (
    DeadBand,
    _Counter,
    by_position,
    dead_bands,
    seconds_a_step,
)
from sensprobe.models.apply import Applier
from sensprobe.numerics.storage import Rounded
from sensprobe.plans.scheme import parse
from sensprobe.plans.sites import Axis, Kind, Part, Site

SITE = Site("layers.0.state", Part.STATE, Kind.STATE, (1, 1), (Axis.HEAD, Axis.N))


def counted(scheme: str, steps: list[float]) -> tuple[DeadBand, list[float]]:
    """A state of one number whose exact next values are given, at a step of 1."""
    found = DeadBand()
    storage = Rounded(parse(scheme), SITE, torch.ones(1, 1), None)
    counter = _Counter(storage, found)
    kept = [float(counter(torch.full((1, 1, 1), v), t)) for t, v in enumerate(steps)]
    return found, kept


def test_a_write_that_rounds_back_is_dead() -> None:
    found, kept = counted("int8/range127", [0.4, 0.6, 0.7, 1.0, 2.2, 0.3])
    assert kept == [0, 1, 1, 1, 2, 0]
    assert found.dead == {0: 1, 1: 0, 2: 1, 3: 0, 4: 0, 5: 0}  # 1 to 1.0 is no move at all
    assert found.share() == 2 / 6
    assert found.share(1, 2) == 1 / 2
    assert found.share(7) == 0


def test_feedback_moves_what_rounding_alone_would_hold() -> None:
    plain, _ = counted("int8/range127", [0.4] * 4)
    found, kept = counted("int8/range127/feedback", [0.4] * 4)
    assert plain.share() == 1
    assert sum(kept) > 0
    assert found.share() < 1


def test_steps_between_are_no_writes() -> None:
    found, _ = counted("int8/range127/every2", [0.4, 0.4, 0.4, 0.4])
    assert found.writes == {1: 1, 3: 1}


@pytest.mark.parametrize("config", [MAMBA, MAMBA2, CONFIGS["pre"]], ids=["mamba", "mamba2", "s4d"])
def test_fewer_bits_have_wider_bands(config) -> None:
    s4d = config is CONFIGS["pre"]
    model = tiny(config) if s4d else tiny_selective(config)
    x = inputs(config, 2, 40) if s4d else tokens(config, 2, 40)
    shares = []
    for bits in (16, 6, 3):
        plan = {
            name: parse(f"int{bits}/head/dynamic")
            for name, site in model.sites.items()
            if site.part is Part.STATE
        }
        found = dead_bands(model, Applier(model).tap(plan), x)
        assert set(found) == set(plan)
        sizes = {n: 2 * model.sites[n].reals for n in found}
        assert all(set(band.writes.values()) == {sizes[n]} for n, band in found.items())
        shares.append(max(band.share() for band in found.values()))
    assert shares == sorted(shares)
    assert shares[0] < 0.01 < shares[2] < 1


def test_nothing_is_counted_where_no_state_is_rounded() -> None:
    model = tiny_selective(MAMBA)
    plan = {"layers.0.conv_state": parse("int4/dynamic")}
    assert dead_bands(model, Applier(model).tap(plan), tokens(MAMBA)) == {}


def test_positions_go_up_to_powers_of_two() -> None:
    one = DeadBand({t: 2 for t in range(6)}, {t: t % 2 for t in range(6)})
    two = DeadBand({t: 2 for t in range(6)}, {t: 0 for t in range(6)})
    rows = by_position({"a": one, "b": two}, 6)
    assert [(r["first"], r["last"]) for r in rows] == [(1, 1), (2, 2), (3, 4), (5, 6)]
    assert [r["share"] for r in rows] == [0, 1 / 4, 1 / 8, 1 / 8]


def test_every_step_of_every_counted_state_is_told() -> None:
    model, told = tiny_selective(MAMBA), []
    states = [n for n, site in model.sites.items() if site.part is Part.STATE]
    tap = Applier(model).tap({name: parse("int8/head/dynamic") for name in states})
    x = tokens(MAMBA, 2, 10)
    dead_bands(model, tap, x, lambda: told.append(1))
    assert len(told) == 10 * len(states)
    assert 0 < seconds_a_step(model, tap, x) < 10
