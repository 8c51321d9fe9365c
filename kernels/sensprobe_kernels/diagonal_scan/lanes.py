"""One stored number of the state, sixteen sequences at a time: round, keep what is left over.

Repeats the float32 arithmetic of the reference operation for operation.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from sensprobe_kernels.diagonal_scan.flags import (
    ANY,
    DIVIDED,
    INTEGER,
    STEP_FLOOR,
    STEP_SHIFT,
    STOCHASTIC,
    TRUNCATE,
    UNSCALED,
    WIDE,
    Flags,
    inline,
)
from sensprobe_kernels.vector import (
    Floats,
    Ints,
    bits,
    choose,
    every,
    every_int,
    floor,
    from_bits,
    fused,
    high_product,
    is_nan,
    less,
    low_product,
    negative,
    number,
    rint,
    shift_right,
    spread,
    trunc,
)

_UNIT = np.float32(2.0**-24)
EXPONENT = 0x7F800000


class Scale(NamedTuple):
    """A scale and what goes with it. `low` and `high` bound x if FUSED, else x / scale."""

    scale: Floats
    inverse: Floats
    low: Floats
    high: Floats


@inline
def clamp(x: Floats, low: Floats, high: Floats) -> Floats:
    """x inside [low, high]; NaN stays."""
    x = choose(less(x, low), low, x)
    return choose(less(high, x), high, x)


@inline
def whole(v: Floats, noise: Floats, flags: Flags) -> Floats:
    if flags.rounding == TRUNCATE:
        return trunc(v)
    if flags.rounding == STOCHASTIC:
        return floor(v + noise)
    return rint(v)


@inline
def coded(v: Floats, noise: Floats, numbers: Any, flags: Flags) -> Floats:
    """The format's value for v, which lies between its peaks."""
    if flags.code == INTEGER:
        return whole(v, noise, flags)
    power = from_bits(bits(v) & every_int(EXPONENT))  # 2^e of 1.m · 2^e
    least = spread(numbers, STEP_FLOOR)
    step = choose(less(power, least), least, power) * spread(numbers, STEP_SHIFT)
    if flags.code == WIDE:
        return whole(v / step, noise, flags) * step
    inverse = from_bits(every_int(254 << 23) - bits(step))
    return whole(v * inverse, noise, flags) * step


@inline
def kept(x: Floats, scale: Scale, noise: Floats, numbers: Any, flags: Flags) -> Floats:
    """What memory gives back for x.

    FUSED corrects the product with the reciprocal by two fused multiply-adds. That is the IEEE
    quotient, because the scale has eleven significant bits (float16): the remainder of the first
    product is exact, so the second is within 2^-45 of x / scale, and no quotient of a 24-bit by an
    11-bit number comes that close to the middle between two float32 numbers.
    """
    if flags.code == ANY:
        return x
    if flags.quotient == UNSCALED:
        v = clamp(x, scale.low, scale.high)
        return clamp(coded(v, noise, numbers, flags), scale.low, scale.high)
    if flags.quotient == DIVIDED:
        v = clamp(x / scale.scale, scale.low, scale.high)
        return clamp(coded(v, noise, numbers, flags), scale.low, scale.high) * scale.scale
    x = clamp(x, scale.low, scale.high)
    v = x * scale.inverse
    v = fused(fused(negative(v), scale.scale, x), scale.inverse, v)
    return coded(v, noise, numbers, flags) * scale.scale


@inline
def left_over(x: Floats, back: Floats, scale: Scale, flags: Flags) -> Floats:
    """The residual of error feedback: x within the codes' reach, less what is kept; as bf16."""
    if flags.quotient == DIVIDED:
        rest = clamp(x, scale.low * scale.scale, scale.high * scale.scale) - back
    else:
        rest = clamp(x, scale.low, scale.high) - back
    b = bits(rest)
    odd = shift_right(b, every_int(16)) & every_int(1)
    short = from_bits((b + every_int(0x7FFF) + odd) & every_int(0xFFFF0000))
    return choose(is_nan(rest), rest, short)


@inline
def noise_pair(c0: Ints, c1: Ints, c2: Ints, c3: Ints, k0: int, k1: int) -> tuple[Floats, Floats]:
    """Two uniform numbers in [0, 1) for each counter: Philox 4x32-10 (Salmon et al. 2011)."""
    m0, m1 = every_int(0xD2511F53), every_int(0xCD9E8D57)
    for _ in range(10):
        high0, low0 = high_product(c0, m0), low_product(c0, m0)
        high1, low1 = high_product(c2, m1), low_product(c2, m1)
        c0, c1, c2, c3 = high1 ^ c1 ^ every_int(k0), low1, high0 ^ c3 ^ every_int(k1), low0
        k0, k1 = k0 + 0x9E3779B9, k1 + 0xBB67AE85
    unit, eight = every(_UNIT), every_int(8)
    return number(shift_right(c0, eight)) * unit, number(shift_right(c1, eight)) * unit
