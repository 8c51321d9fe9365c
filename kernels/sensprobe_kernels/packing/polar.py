"""Complex numbers that are stored by magnitude and phase, decoded in float64 when they are read.

    magnitude    POLAR: code · scale; LOG_POLAR: 1 - exp(code · scale + low), no less than 0
    phase        code · scale + low, in radians
    number       magnitude · cos(phase), magnitude · sin(phase), each rounded to float32

`sensprobe.numerics.rounding` and `.arithmetic` are the reference, to the bit for all that `encode`
writes: scales are positive, and phases below 2^51.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from sensprobe_kernels.jit import inline, noinline
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
)
from sensprobe_kernels.packing.tensor import LOG_POLAR, Packed, code_from, read_scale
from sensprobe_kernels.quantize.spec import S32
from sensprobe_kernels.simd.octets import float_at, half_at


@inline
def _exp(x: float) -> float:
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
def _sin_near_zero(x: float, tail: float) -> float:
    z = x * x
    v = z * x
    r = (((S5 * z + S4) * z + S3) * z + S2) * z + S1
    return x - ((z * (0.5 * tail - v * r) - tail) - v * S0)


@inline
def _cos_near_zero(x: float, tail: float) -> float:
    z = x * x
    r = z * (((((C5 * z + C4) * z + C3) * z + C2) * z + C1) * z + C0)
    half = 0.5 * z
    w = 1.0 - half
    return w + (((1.0 - w) - half) + (z * r - x * tail))


@inline
def _cos_sin(x: float) -> tuple[float, float]:
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


@inline
def _low_at(data: Any, at: int, scales: int, i: int) -> float:
    """The low end of a range, stored as wide as a zero point."""
    if scales == S32:
        return np.float64(float_at(data, at + 4 * i))
    return np.float64(half_at(data, at + 2 * i))


@inline
def _range_at(data: Any, scale_at: int, low_at: int, scales: int, k: int) -> tuple[float, float]:
    """Scale k of a field, and the low end of its range, 0 where it has none."""
    scale = np.float64(read_scale(data, scale_at, scales, k))
    return scale, (0.0 if low_at < 0 else _low_at(data, low_at, scales, k))


@noinline
def decode_polar(data: Any, t: Packed, row: int, out: Any, to: int) -> None:
    """A row as float32, real and imaginary numbers in turn, to out[to : to + columns]."""
    for g in range(0, t.columns, t.group):
        k = row * t.stride + g // t.group
        scale, low = _range_at(data, t.scale_at, t.zero_at, t.scales, k)
        turn, start = _range_at(data, t.phase_scale_at, t.phase_zero_at, t.scales, k)
        for c in range(g, min(g + t.group, t.columns), 2):
            i = (row * t.columns + c) // 2
            size = np.float64(code_from(data, t.at, t.bits, i)) * scale + low
            if t.kind == LOG_POLAR:
                size = max(1.0 - _exp(size), 0.0)
            phase = np.float64(code_from(data, t.phase_at, t.phase_bits, i)) * turn + start
            cosine, sine = _cos_sin(phase)
            out[to + c] = np.float32(size * cosine)
            out[to + c + 1] = np.float32(size * sine)
