"""Static scales, read from packed bytes as they are needed."""

from __future__ import annotations

from typing import Any

import numpy as np

from sensprobe_kernels.jit import inline
from sensprobe_kernels.packing.tensor import read_scale, read_zero
from sensprobe_kernels.program.ir import Stored
from sensprobe_kernels.quantize.lanes import Scale, scale_from
from sensprobe_kernels.quantize.spec import LEVELS, PEAK, Flags
from sensprobe_kernels.simd.vector import LANES, Floats, every, fused, load, negative, spread

_ZERO, _ONE = np.float32(0.0), np.float32(1.0)


@inline
def scale_in(data: Any, s: Stored, i: int) -> Any:
    return _ONE if s.scale_at < 0 else read_scale(data, s.scale_at, s.scales, i)


@inline
def zero_in(data: Any, s: Stored, i: int) -> Any:
    return _ZERO if s.zero_at < 0 else np.float32(read_zero(data, s.zero_at, s.scales, i))


@inline
def scale_with(scale: Floats, zero: Floats, numbers: Any, flags: Flags) -> Scale:
    """A Scale from a stored scale and zero point."""
    inverse = every(_ONE) / scale
    rest = fused(negative(scale), inverse, every(_ONE)) * inverse
    if flags.asym:
        return scale_from(
            scale, inverse, rest, negative(zero), spread(numbers, LEVELS) - zero, flags
        )
    high = spread(numbers, PEAK)
    return scale_from(scale, inverse, rest, negative(high), high, flags)


@inline
def known_one(data: Any, s: Stored, i: int, numbers: Any, flags: Flags) -> Scale:
    """Static scale i, in every lane."""
    return scale_with(every(scale_in(data, s, i)), every(zero_in(data, s, i)), numbers, flags)


@inline
def known_each(
    data: Any, s: Stored, first: int, count: int, numbers: Any, flags: Flags, lanes: Any
) -> Scale:
    """The static scales of sixteen numbers from `first` on, `stride` of which share one. Lanes past
    `count` get the first one's. `lanes` is scratch for 32 numbers."""
    for i in range(LANES):
        at = (first + (i if i < count else 0)) // s.stride
        lanes[i], lanes[LANES + i] = scale_in(data, s, at), zero_in(data, s, at)
    return scale_with(load(lanes, 0), load(lanes, LANES), numbers, flags)
