"""Scores: a mean over samples with its standard error, alone or paired with a baseline.

Samples that come in groups (windows of one recording, tokens of one document) are not independent:
with groups, errors are those of cluster sums (Liang & Zeger 1986),
se² = G/(G-1) · Σ_g (Σ_{i in g} (v_i - mean))² / n².
"""

from __future__ import annotations

from dataclasses import dataclass
from math import sqrt

import numpy as np


@dataclass(frozen=True, slots=True)
class Score:
    """A metric's value, its standard error, and how many samples (and clusters) it rests on."""

    value: float
    stderr: float
    n: int
    clusters: int

    def differs(self, z: float = 1.96) -> bool:
        """Whether the value is further from zero than z standard errors."""
        return abs(self.value) > z * self.stderr


def mean(values: np.ndarray, groups: np.ndarray | None = None) -> Score:
    """Mean of per-sample values (n,); groups (n,) name the cluster of each sample."""
    n = len(values)
    if n == 0:
        raise ValueError("a score needs at least one sample")
    values = values.astype(np.float64)
    centre = values.mean()
    residuals = values - centre
    if groups is not None:
        _, inverse = np.unique(groups, return_inverse=True)
        residuals = np.bincount(inverse, weights=residuals)
    clusters = len(residuals)
    if clusters == 1:
        return Score(float(centre), float("inf"), n, 1)
    variance = clusters / (clusters - 1) * float((residuals**2).sum()) / n**2
    return Score(float(centre), sqrt(variance), n, clusters)


def paired(values: np.ndarray, baseline: np.ndarray, groups: np.ndarray | None = None) -> Score:
    """Mean of values - baseline on the same samples: what both share cancels from the error."""
    return mean(values.astype(np.float64) - baseline.astype(np.float64), groups)
