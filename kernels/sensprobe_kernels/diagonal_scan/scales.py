"""Scales read live: the range of what is about to be rounded, and the scale memory keeps of it."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from sensprobe_kernels.diagonal_scan.flags import (
    FUSED,
    LARGEST,
    LEVELS,
    PEAK,
    S16,
    S32,
    SMALLEST,
    ZERO_PEAK,
    Flags,
    inline,
)
from sensprobe_kernels.diagonal_scan.lanes import EXPONENT, Scale, clamp
from sensprobe_kernels.vector import (
    Floats,
    Mask,
    absolute,
    bits,
    choose,
    either,
    every,
    every_int,
    from_bits,
    is_nan,
    larger,
    less,
    negative,
    nowhere,
    rint,
    shift_right,
    spread,
)

_ZERO = np.float32(0.0)
_HALF = np.float32(0.5)
_ONE = np.float32(1.0)
_NAN = np.float32(np.nan)
_INFINITY = np.float32(np.inf)
_SMALLEST_NORMAL_16 = np.float32(2.0**-14)


class Range(NamedTuple):
    """Lowest and highest number seen, and where one was NaN. Symmetric: `high` alone, of |x|."""

    low: Floats
    high: Floats
    nan: Mask


@inline
def unseen(flags: Flags) -> Range:
    if flags.asym:
        return Range(every(_INFINITY), negative(every(_INFINITY)), nowhere())
    return Range(every(_ZERO), every(_ZERO), nowhere())


@inline
def widen(seen: Range, x: Floats, flags: Flags) -> Range:
    """The range of what was seen and x."""
    if flags.asym:
        low = choose(less(x, seen.low), x, seen.low)
        high = choose(less(seen.high, x), x, seen.high)
        return Range(low, high, either(seen.nan, is_nan(x)))
    # As integers, magnitudes keep their order and NaN lies above them all.
    magnitude = bits(x) & every_int(0x7FFFFFFF)
    return Range(seen.low, from_bits(larger(bits(seen.high), magnitude)), seen.nan)


@inline
def union(a: Range, b: Range, flags: Flags) -> Range:
    if flags.asym:
        low = choose(less(a.low, b.low), a.low, b.low)
        high = choose(less(b.high, a.high), a.high, b.high)
        return Range(low, high, either(a.nan, b.nan))
    return Range(a.low, from_bits(larger(bits(a.high), bits(b.high))), a.nan)


@inline
def live_scale(seen: Range, numbers: Any, kind: int, flags: Flags) -> Scale:
    """The scale of a range, as memory keeps it, and what `kept` needs with it."""
    if flags.asym:
        low, high = (
            choose(seen.nan, every(_NAN), seen.low),
            choose(seen.nan, every(_NAN), seen.high),
        )
        scale, zero = _affine(low, high, numbers, kind)
        scale = choose(is_nan(zero), zero, scale)
        low, high = negative(zero), spread(numbers, LEVELS) - zero
    else:
        scale = _stored(seen.high / spread(numbers, PEAK), numbers, kind)
        high = spread(numbers, PEAK)
        low = negative(high)
    if flags.quotient == FUSED:
        low, high = low * scale, high * scale
    return Scale(scale, every(_ONE) / scale, low, high)


@inline
def _affine(low: Floats, high: Floats, numbers: Any, kind: int) -> tuple[Floats, Floats]:
    """Scale and zero point that put [low, high] on the codes."""
    limit = spread(numbers, ZERO_PEAK)
    peak = _larger_or_nan(absolute(low), absolute(high))
    width = (high - low) / spread(numbers, LEVELS)
    scale = _stored(_larger_or_nan(width, peak / limit), numbers, kind)
    return scale, clamp(rint(negative(low) / scale), negative(limit), limit)


@inline
def _larger_or_nan(a: Floats, b: Floats) -> Floats:
    return choose(is_nan(a), a, choose(less(b, a), a, b))


@inline
def _stored(scale: Floats, numbers: Any, kind: int) -> Floats:
    scale = clamp(scale, spread(numbers, SMALLEST), spread(numbers, LARGEST))
    if kind == S16:
        return _half(scale)
    if kind == S32:
        return scale
    power = from_bits((bits(scale) + every_int(0x7FFFFF)) & every_int(EXPONENT))
    return choose(is_nan(scale), every(_ONE), power)


@inline
def _half(x: Floats) -> Floats:
    """Numbers in [2^-24, 65504] rounded to float16; NaN stays."""
    b = bits(x)
    odd = shift_right(b, every_int(13)) & every_int(1)
    normal = from_bits((b + every_int(0xFFF) + odd) & every_int(0xFFFFE000))
    subnormal = (x + every(_HALF)) - every(_HALF)
    short = choose(less(x, every(_SMALLEST_NORMAL_16)), subnormal, normal)
    return choose(is_nan(x), x, short)
