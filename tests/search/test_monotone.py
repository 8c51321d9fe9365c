from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.isotonic import IsotonicRegression

from sensprobe.search.monotone import monotone, non_increasing
from sensprobe.search.problem import OVERFLOW_NATS, Decision, Option, Problem

floats = st.floats(-5, 5)
rows = st.lists(st.tuples(floats, st.floats(0.1, 9)), min_size=1, max_size=8)


@given(rows)
def test_the_fit_is_the_weighted_isotonic_one(row: list[tuple[float, float]]) -> None:
    values, weights = (np.array(column) for column in zip(*row, strict=True))
    wanted = IsotonicRegression(increasing=False).fit_transform(
        np.arange(len(values)), values, sample_weight=weights
    )
    assert non_increasing(values, weights) == pytest.approx(wanted, abs=1e-9)


@given(rows)
def test_more_bits_never_lose_more_and_nothing_is_negative(row: list[tuple[float, float]]) -> None:
    options = tuple(
        Option(f"int{k}", k, 0, loss, stderr, float(k)) for k, (loss, stderr) in enumerate(row)
    )
    fitted = monotone(Problem((Decision("d", "A", 0.0, options),))).decisions[0].options
    losses = [option.loss for option in fitted]
    assert losses == sorted(losses, reverse=True)
    assert min(losses) >= 0
    assert [o.scheme for o in fitted] == [o.scheme for o in options]


def decision(*options: tuple[str, float, float, float]) -> Problem:
    return Problem(
        (
            Decision(
                "d",
                "A",
                0.0,
                tuple(Option(f, 1, 0, loss, stderr, b, f) for f, b, loss, stderr in options),
            ),
        )
    )


def losses(problem: Problem) -> list[float]:
    return [option.loss for option in problem.decisions[0].options]


def test_families_are_not_ordered_against_each_other() -> None:
    untouched = decision(("tensor", 8, 3.0, 0.1), ("head", 6, 1.0, 0.1))
    assert losses(monotone(untouched)) == [3.0, 1.0]
    same = decision(("head", 8, 3.0, 0.1), ("head", 6, 1.0, 0.1))
    assert losses(monotone(same)) == [2.0, 2.0]


def test_the_better_known_value_weighs_more() -> None:
    got = losses(monotone(decision(("head", 4, 1.0, 0.1), ("head", 8, 2.0, 0.3))))
    assert got == pytest.approx([1.1, 1.1])


def test_equal_bits_claim_no_order_and_an_overflow_stays_finite() -> None:
    got = losses(monotone(decision(("head", 4, 1.0, 0.1), ("head", 4, np.inf, 0.1))))
    assert got == [1.0, OVERFLOW_NATS]
