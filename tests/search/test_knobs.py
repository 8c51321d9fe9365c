"""Rates and a teacher, proposed by Optuna."""

from __future__ import annotations

from math import log

from sensprobe.search.knobs import RATES, SHARES, Knobs, proposals

FIRST, TEACHERS = Knobs(2e-3, 5e-4, "none"), ("none", "self")


def near(knobs: Knobs) -> float:
    """Best at a rate of 1e-2 with a teacher."""
    return -abs(log(knobs.lr / 1e-2)) - (knobs.teacher == "none")


def test_the_first_proposal_is_what_training_would_do_without() -> None:
    asked: list[Knobs] = []
    proposals(FIRST, TEACHERS, 4, 0, lambda knobs: asked.append(knobs) or 0.0)
    assert asked[0] == FIRST
    assert len(asked) == 4
    assert all(RATES[0] <= k.lr <= RATES[1] for k in asked)
    assert all(SHARES[0] <= k.ssm_lr / k.lr <= SHARES[1] for k in asked)


def test_the_best_comes_first_and_beats_the_start() -> None:
    found = proposals(FIRST, TEACHERS, 30, 0, near)
    scores = [score for _, score in found]
    assert scores == sorted(scores, reverse=True)
    assert found[0][1] > near(FIRST) + 1


def test_asked_again_it_proposes_the_same() -> None:
    assert proposals(FIRST, TEACHERS, 12, 3, near) == proposals(FIRST, TEACHERS, 12, 3, near)
