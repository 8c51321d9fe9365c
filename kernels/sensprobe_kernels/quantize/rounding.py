"""Rounding modes: their list, and their arithmetic on sixteen numbers."""

from __future__ import annotations

from sensprobe_kernels.jit import inline
from sensprobe_kernels.simd.vector import Floats, floor, rint, trunc

ROUNDINGS = ("nearest", "truncate", "stochastic")
"""As `sensprobe.plans.scheme.Rounding` names them; compiled code knows the place of each.
NEAREST rounds halves to even, TRUNCATE toward zero, STOCHASTIC up with the probability of the
remainder. Error feedback rounds to nearest."""
NEAREST, TRUNCATE, STOCHASTIC = range(len(ROUNDINGS))


@inline
def whole(v: Floats, noise: Floats, rounding: int) -> Floats:
    """v as whole numbers; `noise`, uniform in [0, 1), is read under STOCHASTIC only."""
    if rounding == TRUNCATE:
        return trunc(v)
    if rounding == STOCHASTIC:
        return floor(v + noise)
    return rint(v)
