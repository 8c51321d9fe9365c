"""Scores: a mean over samples with its standard error, alone or paired with a baseline.

Samples that come in groups (windows of one recording, tokens of one document) are not independent:
with groups, errors are those of cluster sums (Liang & Zeger 1986),
se² = G/(G-1) · Σ_g (Σ_{i in g} (v_i - mean))² / n².

Losses that are not bounded (squared errors) have differences with tails that a mean and its error
do not describe: 5.0 ± 2.5 may be worse on every sample. There a difference is also tested by the
signs and ranks of the samples' differences (Wilcoxon 1945; of groups their sums of signed ranks,
Datta & Satten 2008), and is called one where either test, at half the level each, says so.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from itertools import product
from math import erfc, sqrt
from typing import Any

import numpy as np

Z95 = 1.96
LEVEL = 0.05
"""The largest probability under chance alone at which a difference is called one."""
ENUMERATED = 10
"""Up to so many groups every assignment of signs is counted; beyond, the sum is taken as normal."""


@dataclass(frozen=True, slots=True)
class Score:
    """A metric's value, its standard error, and how many samples (and clusters) it rests on.

    `p` is the two-sided probability of such a difference by chance, where another test than the
    error's decides (`paired`, robust).
    """

    value: float
    stderr: float
    n: int
    clusters: int
    p: float | None = None

    def differs(self, z: float = Z95) -> bool:
        """True if the value is a difference: further from zero than z standard errors, or by p."""
        return abs(self.value) > z * self.stderr if self.p is None else self.p < LEVEL


def score_document(score: Score) -> dict[str, Any]:
    """The score in a result document; `p` only where there is one."""
    return {key: value for key, value in asdict(score).items() if key != "p" or value is not None}


def mean(values: np.ndarray, groups: np.ndarray | None = None) -> Score:
    """Mean of per-sample values (n,); groups (n,) name the cluster of each sample."""
    n = len(values)
    if n == 0:
        raise ValueError("a score needs at least one sample")
    values = values.astype(np.float64)
    centre = values.mean()
    residuals = _sums(values - centre, groups)
    clusters = len(residuals)
    if clusters == 1:
        return Score(float(centre), float("inf"), n, 1)
    variance = clusters / (clusters - 1) * float((residuals**2).sum()) / n**2
    return Score(float(centre), sqrt(variance), n, clusters)


def paired(
    values: np.ndarray,
    baseline: np.ndarray,
    groups: np.ndarray | None = None,
    *,
    robust: bool = False,
) -> Score:
    """Mean of values - baseline on the same samples: what both share cancels from the error.

    `robust` for losses that are not bounded: `p` then decides whether it is a difference.
    """
    differences = values.astype(np.float64) - baseline.astype(np.float64)
    found = mean(differences, groups)
    return with_p(found, differences, groups) if robust else found


def with_p(found: Score, differences: np.ndarray, groups: np.ndarray | None = None) -> Score:
    """The mean of differences with the p of both tests, the mean's and the signed ranks'."""
    p = either(found.value, found.stderr, signed_rank(differences, groups))
    return Score(found.value, found.stderr, found.n, found.clusters, p)


def either(value: float, stderr: float, rank: float) -> float:
    """The p of two tests of one difference: twice the smaller, at most 1 (Bonferroni)."""
    by_mean = 1.0 if value == 0 else 0.0 if stderr == 0 else erfc(abs(value) / stderr / sqrt(2))
    return min(1.0, 2 * min(by_mean, rank))


def ratio(values: np.ndarray, baseline: np.ndarray, groups: np.ndarray | None = None) -> Score:
    """Mean of values over mean of baseline, its error by the delta method; baseline's is not 0."""
    values, baseline = values.astype(np.float64), baseline.astype(np.float64)
    below = float(baseline.mean())
    found = float(values.mean()) / below
    return mean(found + (values - found * baseline) / below, groups)


def signed_rank(differences: np.ndarray, groups: np.ndarray | None = None) -> float:
    """Two-sided p of "differences (n,) lie evenly about zero": Wilcoxon's signed-rank test.

    Zeros are ranked but not summed (Pratt 1959); equal sizes share their mean rank. Under the
    hypothesis the sign of a sample, or of a whole group, is + or - with equal probability.
    """
    sizes = np.abs(differences)
    values, inverse, counts = np.unique(sizes, return_inverse=True, return_counts=True)
    if len(values) == 0 or values[-1] == 0:
        return 1.0
    ranks = (np.cumsum(counts) - (counts - 1) / 2)[inverse]
    sums = _sums(np.sign(differences) * ranks, groups)
    sums = sums[sums != 0]
    total = abs(float(sums.sum()))
    if len(sums) > ENUMERATED:
        return erfc(total / sqrt(float((sums**2).sum())) / sqrt(2))
    if len(sums) == 0:
        return 1.0
    every = np.array(list(product((-1.0, 1.0), repeat=len(sums)))) @ sums
    return float((np.abs(every) >= total - 1e-9).mean())


def _sums(values: np.ndarray, groups: np.ndarray | None) -> np.ndarray:
    """Values (n,) summed by group; as they are without groups."""
    if groups is None:
        return values
    _, inverse = np.unique(groups, return_inverse=True)
    return np.bincount(inverse, weights=values)
