"""Dynamic scales: the range of the numbers to be rounded, and the scale stored for it."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from sensprobe_kernels.jit import inline
from sensprobe_kernels.quantize.lanes import EXPONENT, Scale, clamp, scale_from
from sensprobe_kernels.quantize.spec import (
    LARGEST,
    LEVELS,
    PEAK,
    S16,
    S32,
    SMALLEST,
    ZERO_PEAK,
    Flags,
)
from sensprobe_kernels.simd.vector import (
    Floats,
    Ints,
    absolute,
    bits,
    choose,
    either,
    every,
    every_int,
    from_bits,
    fused,
    is_nan,
    larger,
    largest,
    less,
    negative,
    rint,
    shift_right,
    shift_sign,
    smaller,
    spread,
)

_HALF = np.float32(0.5)
_ONE = np.float32(1.0)
_NAN = np.float32(np.nan)
_SMALLEST_NORMAL_16 = np.float32(2.0**-14)


class Range(NamedTuple):
    """Keys of the lowest and the highest number seen; symmetric: `high` alone, the bits of |x|.

    A key is an integer that orders as the numbers do, NaN at the ends. Integers are compared where
    floats are not: by units of the processor that multiplications leave free.
    """

    low: Ints
    high: Ints


@inline
def _key(x: Ints) -> Ints:
    """The key of a number's bits; of a key, the bits."""
    return x ^ (shift_sign(x, every_int(31)) & every_int(0x7FFFFFFF))


@inline
def unseen(flags: Flags) -> Range:
    if flags.asym:
        return Range(every_int(0x7FFFFFFF), every_int(-0x80000000))
    return Range(every_int(0), every_int(0))


@inline
def widen(seen: Range, x: Floats, flags: Flags) -> Range:
    """A range with x added."""
    if flags.asym:
        key = _key(bits(x))
        return Range(smaller(seen.low, key), larger(seen.high, key))
    return Range(seen.low, larger(seen.high, bits(x) & every_int(0x7FFFFFFF)))


@inline
def union(a: Range, b: Range) -> Range:
    return Range(smaller(a.low, b.low), larger(a.high, b.high))


@inline
def across(seen: Range) -> Range:
    """The range of all sixteen lanes, in each of them."""
    low = -1 - largest(seen.low ^ every_int(-1))
    return Range(every_int(low), every_int(largest(seen.high)))


@inline
def finite(seen: Range, flags: Flags) -> bool:
    """True if every number seen was finite."""
    top = largest(seen.high)
    if flags.asym:
        top = max(top, largest(seen.low ^ every_int(-1)))  # negative keys are complements
    return top < EXPONENT


@inline
def dynamic_scale(seen: Range, numbers: Any, kind: int, flags: Flags) -> Scale:
    """The Scale of a range, in its stored precision."""
    if flags.asym:
        low, high = from_bits(_key(seen.low)), from_bits(_key(seen.high))
        nan = either(is_nan(low), is_nan(high))
        scale, zero = _affine(
            choose(nan, every(_NAN), low), choose(nan, every(_NAN), high), numbers, kind
        )
        scale = choose(is_nan(zero), zero, scale)
        low, high = negative(zero), spread(numbers, LEVELS) - zero
    else:
        scale = _stored(from_bits(seen.high) / spread(numbers, PEAK), numbers, kind)
        high = spread(numbers, PEAK)
        low = negative(high)
    inverse, rest = reciprocal(scale)
    return scale_from(scale, inverse, rest, low, high, flags)


@inline
def reciprocal(scale: Floats) -> tuple[Floats, Floats]:
    """1 / scale as the sum of two numbers, in 48 bits."""
    inverse = every(_ONE) / scale
    return inverse, fused(negative(scale), inverse, every(_ONE)) * inverse


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
