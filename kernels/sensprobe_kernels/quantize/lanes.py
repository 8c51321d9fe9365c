"""Rounding sixteen numbers as they are stored, and the residual of error feedback.

Repeats the float32 arithmetic of the reference operation for operation.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from sensprobe_kernels.jit import inline
from sensprobe_kernels.quantize.rounding import whole
from sensprobe_kernels.quantize.spec import (
    ANY,
    DIVIDED,
    FUSED,
    INTEGER,
    SHIFTED,
    STEP_FLOOR,
    STEP_SHIFT,
    UNSCALED,
    WIDE,
    Flags,
)
from sensprobe_kernels.simd.vector import (
    Floats,
    Ints,
    bits,
    choose,
    every,
    every_int,
    from_bits,
    fused,
    high_product,
    is_nan,
    larger,
    less,
    low_product,
    number,
    shift_right,
    smaller,
    spread,
)

_UNIT = np.float32(2.0**-24)
_SHIFT = np.float32(1.5 * 2**23)
EXPONENT = 0x7F800000


class Scale(NamedTuple):
    """A scale with its reciprocal and the bounds of the codes.

    The reciprocal is inverse + rest, in 48 bits. low and high bound the codes: as multiples of the
    scale for DIVIDED, times the scale for FUSED, plus SHIFT for SHIFTED. shift is -SHIFT times the
    scale, exactly, where the scale has eleven significant bits.
    """

    scale: Floats
    inverse: Floats
    rest: Floats
    low: Floats
    high: Floats
    shift: Floats


@inline
def scale_from(
    scale: Floats, inverse: Floats, rest: Floats, low: Floats, high: Floats, flags: Flags
) -> Scale:
    """A Scale from bounds as multiples of the scale."""
    if flags.quotient == FUSED:
        low, high = low * scale, high * scale
    if flags.quotient == SHIFTED:
        low, high = low + every(_SHIFT), high + every(_SHIFT)
    return Scale(scale, inverse, rest, low, high, scale * every(-_SHIFT))


@inline
def clamp(x: Floats, low: Floats, high: Floats) -> Floats:
    """x inside [low, high]; NaN stays."""
    x = choose(less(x, low), low, x)
    return choose(less(high, x), high, x)


@inline
def coded(v: Floats, noise: Floats, numbers: Any, flags: Flags) -> Floats:
    """The format's value for v, which lies between its peaks."""
    if flags.code == INTEGER:
        return whole(v, noise, flags.rounding)
    power = from_bits(bits(v) & every_int(EXPONENT))  # 2^e of 1.m · 2^e
    least = spread(numbers, STEP_FLOOR)
    step = choose(less(power, least), least, power) * spread(numbers, STEP_SHIFT)
    if flags.code == WIDE:
        return whole(v / step, noise, flags.rounding) * step
    inverse = from_bits(every_int(254 << 23) - bits(step))
    return whole(v * inverse, noise, flags.rounding) * step


@inline
def kept(x: Floats, scale: Scale, noise: Floats, numbers: Any, flags: Flags) -> Floats:
    """The numbers that are read back after x was stored.

    FUSED and SHIFTED multiply by a reciprocal of 48 bits. That is the IEEE quotient, because the
    scale has eleven significant bits (float16): the product is within 2^-45 of x / scale before it
    is rounded, and no quotient of a 24-bit by an 11-bit number lies that close to the middle
    between two float32 numbers. SHIFTED adds SHIFT = 1.5 · 2^23, beyond which float32 has whole
    numbers only, bounds the bits, which are ordered as the numbers are, and takes SHIFT off in the
    product with the scale, which rounds once as the product alone would: SHIFT has two bits.
    """
    if flags.code == ANY:
        return x
    if flags.quotient == UNSCALED:
        v = clamp(x, scale.low, scale.high)
        return clamp(coded(v, noise, numbers, flags), scale.low, scale.high)
    if flags.quotient == DIVIDED:
        v = clamp(x / scale.scale, scale.low, scale.high)
        return clamp(coded(v, noise, numbers, flags), scale.low, scale.high) * scale.scale
    if flags.quotient == FUSED:
        x = clamp(x, scale.low, scale.high)
        v = fused(x, scale.inverse, x * scale.rest)
        return coded(v, noise, numbers, flags) * scale.scale
    v = fused(x, scale.inverse, x * scale.rest) + every(_SHIFT)
    code = smaller(larger(bits(v), bits(scale.low)), bits(scale.high))
    return fused(from_bits(code), scale.scale, scale.shift)


@inline
def residual_of(x: Floats, back: Floats, scale: Scale, flags: Flags) -> Floats:
    """The residual of error feedback, as bf16: x clamped to the range of the codes, minus the
    stored number `back`."""
    low, high = scale.low, scale.high
    if flags.quotient == SHIFTED:
        low, high = low - every(_SHIFT), high - every(_SHIFT)
    if flags.quotient == DIVIDED or flags.quotient == SHIFTED:
        low, high = low * scale.scale, high * scale.scale
    rest = clamp(x, low, high) - back
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
