"""Kendall's τ, with its standard error, between cheap sensitivities and measured ones.

τ counts pairs: the share that both methods order the same way minus the share they order
oppositely, from -1 to 1, with ties as in τ-b. Its error is the asymptotic one of Hollander and
Wolfe (Nonparametric Statistical Methods, §8.3): with C_i the number of pairs of i in agreement
minus those opposed,

    se² = 2 / (n (n-1)) · [ 2 (n-2) / (n (n-1)²) · Σ (C_i - mean C)² + 1 - τ² ]

It says how τ would vary over other groups like these; few groups leave it wide (and the estimate
itself is then on the wide side: by 10 % at 40).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import inf, isfinite, nan, sqrt

import numpy as np
from numpy.typing import ArrayLike

from sensprobe.report.dataframes import pd
from sensprobe.report.results import Row, Sensitivity
from sensprobe.report.values import Measured, plus_minus

ALL = "all schemes"


@dataclass(frozen=True, slots=True)
class Pairing:
    """One group in one scheme, priced both ways."""

    measured: Row
    taylor: Row


@dataclass(frozen=True, slots=True)
class Agreement:
    """τ between the two prices, over every scheme and within each."""

    pairings: tuple[Pairing, ...]
    overall: Measured  # n counts the observations ranked
    by_scheme: dict[str, Measured]


def kendall(one: ArrayLike, other: ArrayLike) -> Measured:
    """τ-b of two lists and its standard error (from three on); NaN where it is not defined."""
    from scipy.stats import kendalltau  # takes a second to import: the dashboard starts without

    x, y = np.asarray(one, float), np.asarray(other, float)
    n = len(x)
    if n < 2:
        return Measured(nan, nan, n)
    tau = float(kendalltau(x, y).statistic)
    return Measured(tau, _stderr(x, y) if n > 2 and isfinite(tau) else nan, n)


def _stderr(x: np.ndarray, y: np.ndarray) -> float:
    n = len(x)
    dx, dy = (np.sign(np.subtract.outer(v, v)) for v in (x, y))
    concord = (dx * dy).sum(1)  # C_i
    raw = concord.sum() / (n * (n - 1))  # τ-a
    spread = 2 * (n - 2) / (n * (n - 1) ** 2) * ((concord - concord.mean()) ** 2).sum()
    variance = 2 / (n * (n - 1)) * (spread + 1 - raw**2)
    untied = sqrt(float((dx**2).sum() * (dy**2).sum())) / (n * (n - 1))
    return sqrt(max(variance, 0.0)) / untied if untied else inf


def agreement(measured: Sensitivity, taylor: Sensitivity) -> Agreement:
    """Compare the additive sensitivities of groups and schemes that both have."""
    estimates = taylor.grid
    pairings = [
        Pairing(row, estimates[row.group, row.scheme])
        for row in measured.rows
        if row.additive.known
        and (row.group, row.scheme) in estimates
        and estimates[row.group, row.scheme].additive.known
    ]
    schemes = {
        scheme: _tau([p for p in pairings if p.measured.scheme == scheme])
        for scheme in measured.schemes
    }
    return Agreement(tuple(pairings), _tau(pairings), {s: t for s, t in schemes.items() if t.n})


def _tau(pairings: Sequence[Pairing]) -> Measured:
    return kendall(
        [p.measured.additive.value for p in pairings], [p.taylor.additive.value for p in pairings]
    )


def agreement_table(found: Agreement) -> pd.DataFrame:
    """τ of every scheme and over all, with how many observations it ranks."""
    rows = [
        {"scheme": scheme, "Kendall τ": plus_minus(tau), "observations": tau.n}
        for scheme, tau in [*found.by_scheme.items(), (ALL, found.overall)]
    ]
    return pd.DataFrame(rows)
