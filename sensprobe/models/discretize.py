"""Discretisation of diagonal time-invariant recurrences, as S4D and S5 have it."""

from __future__ import annotations

from torch import Tensor

from sensprobe.numerics.arithmetic import complex_exp, joined, over, pair, times


def discretize(A: Tensor, B: Tensor, dt: Tensor, method: str) -> tuple[Tensor, Tensor]:
    """A_bar, B_bar of one layer. A, B: complex, of a first axis as dt's, which is positive.

    zoh: A_bar = exp(dt A), B_bar = (A_bar - 1) / A · B. bilinear: A_bar = (1 + dt A / 2) /
    (1 - dt A / 2), B_bar = dt B / (1 - dt A / 2). Computed in the arithmetic of `arithmetic`, so
    that every machine stores the same bits.
    """
    a, b, step = pair(A), pair(B), dt[:, None]
    scaled = (a[0] * step, a[1] * step)
    if method == "zoh":
        A_bar = complex_exp(scaled)
        return joined(A_bar), joined(times(over((A_bar[0] - 1, A_bar[1]), a), b))
    half = (scaled[0] / 2, scaled[1] / 2)
    below = (1 - half[0], -half[1])
    A_bar = over((1 + half[0], half[1]), below)
    return joined(A_bar), joined(over((step * b[0], step * b[1]), below))
