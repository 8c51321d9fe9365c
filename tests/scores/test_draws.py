"""Scores over draws, against a simulation of samples and devices."""

from __future__ import annotations

import math

import numpy as np
import pytest

from sensprobe.scores.draws import averaged, over_draws, spread
from sensprobe.scores.score import mean


def test_the_spread_is_the_standard_deviation():
    found = spread([1.0, 2.0, 4.0])
    assert found.values == (1.0, 2.0, 4.0)
    assert found.spread == pytest.approx(np.std([1, 2, 4], ddof=1))
    assert found.stderr == pytest.approx(found.spread / math.sqrt(3))
    assert spread([1.0]).stderr == math.inf


def test_arrays_are_averaged_but_not_names_of_classes():
    draws = [{"correct": np.array([1, 0]), "predicted": np.array([3, 5])},
             {"correct": np.array([1, 1]), "predicted": np.array([3, 4])}]  # fmt: skip
    assert averaged(draws).keys() == {"correct"}
    assert averaged(draws)["correct"].tolist() == [1.0, 0.5]


def test_the_error_is_that_of_other_samples_and_other_devices():
    """Crossed effects of known size: the error of many repeats is the one that is told."""
    generator, n, count = np.random.default_rng(0), 40, 5
    means, told = [], []
    for _ in range(800):
        devices, samples = generator.normal(0, 1, (count, 1)), generator.normal(0, 2, n)
        found = devices + samples + generator.normal(0, 0.5, (count, n))
        score = over_draws(mean(found.mean(0)), list(found))
        means.append(score.value)
        told.append(score.stderr**2)
    assert np.std(means) == pytest.approx(math.sqrt(np.mean(told)), rel=0.08)
    assert np.std(means) > 1.5 * math.sqrt(2**2 / n)  # what samples alone would tell


def test_one_draw_adds_nothing():
    values = np.arange(5.0)
    assert over_draws(mean(values), [values]) == mean(values)
    assert over_draws(mean(values), []) == mean(values)
