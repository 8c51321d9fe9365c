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
from sensprobe_kernels.packing.msun.cpu import cos_sin, exp
from sensprobe_kernels.packing.tensor import LOG_POLAR, Packed, code_from, read_scale
from sensprobe_kernels.quantize.spec import S32
from sensprobe_kernels.simd.octets import float_at, half_at


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
                size = max(1.0 - exp(size), 0.0)
            phase = np.float64(code_from(data, t.phase_at, t.phase_bits, i)) * turn + start
            cosine, sine = cos_sin(phase)
            out[to + c] = np.float32(size * cosine)
            out[to + c + 1] = np.float32(size * sine)
