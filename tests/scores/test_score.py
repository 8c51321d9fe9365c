"""Scores against the formulas they name."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.stats import wilcoxon

from sensprobe.scores.score import Score, mean, paired, ratio, signed_rank

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


def test_signed_ranks_are_wilcoxons():
    draw = np.random.default_rng(0)
    for n in (6, 9, 60):
        values = draw.normal(0.4, 1, n)
        method = "exact" if n < 10 else "approx"
        wanted = wilcoxon(values, method=method, correction=False).pvalue
        assert signed_rank(values) == pytest.approx(wanted, rel=1e-6)
    assert signed_rank(np.zeros(5)) == 1
    assert signed_rank(np.ones(40), np.zeros(40)) == 1  # one group may have come out either way


def test_a_loss_of_long_tails_that_grows_everywhere_is_a_difference():
    draw = np.random.default_rng(1)
    before = draw.normal(size=200) ** 2 / 4
    after = before + np.exp(draw.normal(0, 3.2, 200)) / 50
    found = paired(after, before, robust=True)
    assert not paired(after, before).differs()
    assert found.differs()
    groups = np.arange(200) // 10
    assert paired(after, before, groups, robust=True).differs()


@pytest.mark.parametrize("grouped", [False, True])
def test_what_is_no_difference_is_called_one_at_most_as_often_as_said(grouped):
    called = 0
    for seed in range(400):
        draw = np.random.default_rng(seed)
        groups = np.arange(90) // 3 if grouped else None
        scale = np.exp(draw.normal(0, 1.5, 90))
        moved = draw.normal(size=30).repeat(3) if grouped else draw.normal(size=90)
        values = moved * scale
        called += paired(values, np.zeros(90), groups, robust=True).differs()
    assert called <= 0.05 * 400 + 3 * (0.05 * 0.95 * 400) ** 0.5


def test_a_ratio_of_means_and_its_error():
    draw = np.random.default_rng(2)
    pairs = [draw.exponential(1, (2, 100)) * [[2.0], [1.0]] for _ in range(300)]
    found = [ratio(a, b) for a, b in pairs]
    assert found[0].value == pytest.approx(pairs[0][0].mean() / pairs[0][1].mean())
    spread = np.std([score.value for score in found])
    assert np.mean([score.stderr for score in found]) == pytest.approx(spread, rel=0.15)
