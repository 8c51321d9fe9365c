"""Racing: when is a candidate beaten beyond its error bar?

Candidates are evaluated on growing, nested chunks of the data. After each chunk but the last (a
*look*) a candidate is compared, sample by sample on the chunks both have seen, with rivals of no
more bytes. It stops where a rival is better by more than chance explains. A truly better (or equal)
candidate is dropped with probability at most `alpha` over the whole race: each look takes
alpha/looks, shared out over the rivals compared at that look (Bonferroni, whatever their
dependence). Rivals are fixed before the candidate's chunk is seen.

Right-or-wrong scores of independent samples take the exact sign test on the samples where the two
differ (McNemar): a t statistic of 3 differences in 50 samples promises what it cannot hold.
Anything else takes Student's t on the paired differences, summed by group where groups exist.
All of it is pure: arrays in, a decision out.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from sensprobe.search.problem import Array


@dataclass(frozen=True, eq=False)
class Standing:
    """The results of a plan so far: its bytes and its scores in the order of the data."""

    total_bytes: int
    score: Array
    group: NDArray[np.generic] | None = None


def mean_and_stderr(values: Array, group: NDArray[np.generic] | None = None) -> tuple[float, float]:
    """Mean over samples and its standard error, clustered by group where groups are given.

    The error of one sample, or of one group, is infinite: nothing is known of the spread.
    """
    n = len(values)
    mean = float(np.mean(values))
    sums = _group_sums(values - mean, group)
    if len(sums) < 2:
        return mean, float("inf")
    variance = float(np.sum(sums**2)) * len(sums) / (len(sums) - 1)
    return mean, float(np.sqrt(variance)) / n


def chance(differences: Array, group: NDArray[np.generic] | None = None) -> float:
    """One-sided p-value of "the mean difference is not above 0"."""
    from scipy.stats import binom, t  # a second to import: reports and the dashboard do without

    if group is None and np.isin(differences, (-1.0, 0.0, 1.0)).all():
        wins, losses = int((differences > 0).sum()), int((differences < 0).sum())
        return float(binom.sf(wins - 1, wins + losses, 0.5)) if wins + losses else 1.0
    mean, error = mean_and_stderr(differences, group)
    if mean <= 0:
        return 1.0
    if not np.isfinite(error):
        return 1.0
    clusters = len(differences) if group is None else len(np.unique(group))
    return float(t.sf(mean / error, clusters - 1)) if error > 0 else 0.0


def beaten_by(
    candidate: Standing, rivals: Sequence[Standing], *, alpha: float, looks: int
) -> int | None:
    """Index of a rival that beats the candidate at this look, or None.

    Rivals with more bytes, or that have seen less than the candidate, are not compared.
    """
    n = len(candidate.score)
    fair = [
        k
        for k, rival in enumerate(rivals)
        if rival.total_bytes <= candidate.total_bytes and len(rival.score) >= n
    ]
    if not fair or n == 0:
        return None
    share = alpha / (max(looks, 1) * len(fair))
    values = [chance(rivals[k].score[:n] - candidate.score, candidate.group) for k in fair]
    least = int(np.argmin(values))
    return fair[least] if values[least] <= share else None


def _group_sums(values: Array, group: NDArray[np.generic] | None) -> Array:
    if group is None:
        return values
    _, index = np.unique(group, return_inverse=True)
    return np.bincount(index, weights=values).astype(np.float64)
