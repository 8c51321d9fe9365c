"""The race drops what is beaten, and rarely what is not."""

from __future__ import annotations

from math import comb

import numpy as np
import pytest

from sensprobe.search.race import Standing, beaten_by, chance, mean_and_stderr


def test_chance_of_right_or_wrong_is_the_sign_test() -> None:
    differences = np.array([1.0] * 7 + [-1.0] * 2 + [0.0] * 40)
    by_hand = sum(comb(9, wins) for wins in range(7, 10)) / 2**9
    assert chance(differences) == pytest.approx(by_hand)
    assert chance(np.zeros(5)) == 1


def test_stderr_by_group_is_that_of_the_cluster_sums() -> None:
    values, group = np.array([1.0, 1.0, 0.0, 4.0]), np.array([0, 0, 1, 1])
    mean, error = mean_and_stderr(values, group)
    sums = np.array([(1 - 1.5) * 2, (0 - 1.5) + (4 - 1.5)])
    assert mean == 1.5
    assert error == pytest.approx(np.sqrt(2 / 1 * (sums**2).sum()) / 4)
    assert mean_and_stderr(values, np.zeros(4))[1] == float("inf")


def test_only_rivals_of_no_more_bytes_that_saw_as_much_are_compared() -> None:
    bad = Standing(100, np.zeros(50))
    good = np.ones(50)
    rivals = [Standing(101, good), Standing(90, good[:40]), Standing(100, good)]
    assert beaten_by(bad, rivals, alpha=0.05, looks=2) == 2
    assert beaten_by(bad, rivals[:2], alpha=0.05, looks=2) is None


def test_an_equal_candidate_is_dropped_less_often_than_alpha() -> None:
    rng, dropped, races, looks = np.random.default_rng(0), 0, 400, 2
    for _ in range(races):
        easy = rng.random(400)
        scores = [(easy + rng.normal(0, 0.1, 400) > 0.3).astype(float) for _ in range(5)]
        dropped += any(
            beaten_by(
                Standing(10, scores[0][:n]),
                [Standing(10, s) for s in scores[1:]],
                alpha=0.05,
                looks=looks,
            )
            is not None
            for n in (128, 256)
        )
    assert dropped / races <= 0.05
