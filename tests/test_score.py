"""Scores against the formulas they name."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from sensprobe.evaluate import Score, mean, paired

VALUES = arrays(np.float32, st.integers(2, 40), elements=st.floats(-8, 8, width=32))


def clustered(values, groups):
    """se² = G/(G-1) · Σ_g (Σ_{i in g} (v_i - mean))² / n², written out."""
    n, centre = len(values), sum(map(float, values)) / len(values)
    sums = {}
    for value, group in zip(values, groups, strict=True):
        sums[group] = sums.get(group, 0.0) + float(value) - centre
    count = len(sums)
    return (count / (count - 1) * sum(s * s for s in sums.values()) / n**2) ** 0.5


@given(VALUES)
def test_the_error_of_a_mean_is_the_deviation_over_root_n(values):
    score = mean(values)
    v = values.astype(float)
    assert score.value == pytest.approx(v.mean())
    assert score.stderr == pytest.approx(v.std(ddof=1) / len(v) ** 0.5, abs=1e-12)
    assert (score.n, score.clusters) == (len(v), len(v))


@given(VALUES, st.integers(2, 6), st.randoms(use_true_random=False))
def test_the_error_of_clusters_is_that_of_their_sums(values, count, random):
    groups = np.array([random.randrange(count) * 7 - 3 for _ in values])
    score = mean(values, groups)
    clusters = len(set(groups.tolist()))
    assert score.clusters == clusters
    if clusters > 1:
        assert score.stderr == pytest.approx(clustered(values, groups), abs=1e-12)
    else:
        assert score.stderr == np.inf


def test_a_group_a_sample_is_no_group():
    values = np.random.default_rng(0).normal(size=30)
    alone, grouped = mean(values), mean(values, np.arange(30)[::-1])
    assert grouped.stderr == pytest.approx(alone.stderr, rel=1e-12)


def test_samples_that_repeat_count_once():
    """What clustering is for: five copies of every sample are not five times the evidence."""
    values = np.random.default_rng(0).normal(size=20)
    score = mean(np.repeat(values, 5), np.repeat(np.arange(20), 5))
    assert score.stderr == pytest.approx(mean(values).stderr, rel=1e-12)
    assert mean(np.repeat(values, 5)).stderr < 0.5 * score.stderr


def test_one_sample_has_a_value_and_an_infinite_error():
    assert mean(np.array([3.0])) == Score(3.0, float("inf"), 1, 1)
    assert not mean(np.array([3.0])).differs()


def test_no_samples_have_no_score():
    with pytest.raises(ValueError, match="at least one sample"):
        mean(np.array([]))


def test_a_paired_difference_loses_what_both_share():
    rng = np.random.default_rng(0)
    shared, own = 5 * rng.normal(size=500), 0.01 * rng.normal(size=500)
    score = paired(shared + own + 0.5, shared)
    assert score.value == pytest.approx(0.5 + own.mean())
    assert score.stderr == pytest.approx(own.std(ddof=1) / 500**0.5)
    assert score.differs()
    assert mean(shared + own + 0.5).stderr > 100 * score.stderr


def test_booleans_and_float32_are_summed_in_float64():
    assert mean(np.array([True, False, True, True])).value == 0.75
    big = np.full(10_000, 16_777_217.0, np.float32)  # rounds to 2^24, whose float32 sum drifts
    assert mean(big).value == 16_777_216.0


def test_differs_asks_for_so_many_errors():
    score = Score(1.0, 0.6, 10, 10)
    assert not score.differs()
    assert score.differs(1.5)
