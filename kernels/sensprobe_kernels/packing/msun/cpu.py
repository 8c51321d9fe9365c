"""exp, log, sine and cosine of one float64 number, compiled, to the bits of
`sensprobe.numerics.arithmetic`."""

from __future__ import annotations

from typing import Any

import numpy as np

from sensprobe_kernels.jit import inline
from sensprobe_kernels.packing.msun import (
    C0,
    C1,
    C2,
    C3,
    C4,
    C5,
    E0,
    E1,
    E2,
    E3,
    E4,
    EXP_HIGHEST,
    EXP_LOWEST,
    L0,
    L1,
    L2,
    L3,
    L4,
    L5,
    L6,
    LN2_HIGH,
    LN2_LOW,
    LOG2_E,
    P0,
    P1,
    P2,
    ROUND,
    S0,
    S1,
    S2,
    S3,
    S4,
    S5,
    TWO_OVER_PI,
)  # fmt: skip

_FRACTION = np.int64((1 << 52) - 1)
_ONE, _BITS = np.int64(1023), np.int64(52)


@inline
def exp(x: Any) -> Any:
    """exp of a number; 0 and infinite where float64 has no normal number."""
    if x < EXP_LOWEST:
        return 0.0
    if x > EXP_HIGHEST:
        return np.inf
    k = (x * LOG2_E + ROUND) - ROUND
    high, low = x - k * LN2_HIGH, k * LN2_LOW
    r = high - low
    t = r * r
    c = r - t * ((((E4 * t + E3) * t + E2) * t + E1) * t + E0)
    y = 1.0 - ((low - (r * c) / (2.0 - c)) - high)
    return y * np.int64((np.int64(k) + 1023) << 52).view(np.float64)


@inline
def log(x: Any) -> Any:
    """The logarithm of a normal number above 0."""
    bits = np.float64(x).view(np.int64)
    k = (bits >> _BITS) - _ONE
    m = np.int64((bits & _FRACTION) | (_ONE << _BITS)).view(np.float64)  # x = m 2^k, m in [1, 2)
    if m >= 1.41421356237309504880:
        m, k = m * 0.5, k + np.int64(1)
    power = np.float64(k)
    f = m - 1.0
    s = f / (2.0 + f)
    z = s * s
    half = f * f * 0.5
    r = ((((((L6 * z + L5) * z + L4) * z + L3) * z + L2) * z + L1) * z + L0) * z
    return power * LN2_HIGH - ((half - (s * (half + r) + power * LN2_LOW)) - f)


@inline
def _sin_near_zero(x: Any, tail: Any) -> Any:
    z = x * x
    v = z * x
    r = (((S5 * z + S4) * z + S3) * z + S2) * z + S1
    return x - ((z * (0.5 * tail - v * r) - tail) - v * S0)


@inline
def _cos_near_zero(x: Any, tail: Any) -> Any:
    z = x * x
    r = z * (((((C5 * z + C4) * z + C3) * z + C2) * z + C1) * z + C0)
    half = 0.5 * z
    w = 1.0 - half
    return w + (((1.0 - w) - half) + (z * r - x * tail))


@inline
def cos_sin(x: Any) -> Any:
    """Cosine and sine of an angle."""
    turns = (x * TWO_OVER_PI + ROUND) - ROUND
    first = x - turns * P0
    w = turns * P1
    r = first - w
    w = turns * P2 - ((first - r) - w)
    y = r - w
    tail = (r - y) - w
    s, c = _sin_near_zero(y, tail), _cos_near_zero(y, tail)
    quarter = np.int64(turns) & 3
    odd, below, left = (quarter & 1) == 1, quarter >= 2, ((quarter + 1) & 2) == 2
    sine, cosine = (c if odd else s), (s if odd else c)
    return (-cosine if left else cosine), (-sine if below else sine)
