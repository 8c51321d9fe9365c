"""Rounding in Triton, operation for operation as `lanes` and `scales` define it.

Codes are int32 tensors, numbers float32. `Rounds` has the constants that a function is compiled
for; scales, zero points and keys of random bits are data.
"""

from __future__ import annotations

from typing import NamedTuple

import triton
import triton.language as tl

from sensprobe_kernels.quantize import rounding, spec
from sensprobe_kernels.quantize.spec import Constants, Flags

EXACT, STATIC, STATIC_EACH = (tl.constexpr(v) for v in (spec.EXACT, spec.STATIC, spec.STATIC_EACH))
GROUP, TENSOR = tl.constexpr(spec.GROUP), tl.constexpr(spec.TENSOR)
INTEGER, WIDE, ANY = tl.constexpr(spec.INTEGER), tl.constexpr(spec.WIDE), tl.constexpr(spec.ANY)
TRUNCATE, STOCHASTIC = tl.constexpr(rounding.TRUNCATE), tl.constexpr(rounding.STOCHASTIC)
S16, S32, POW2 = tl.constexpr(spec.S16), tl.constexpr(spec.S32), tl.constexpr(spec.POW2)

NAN_CODE = tl.constexpr(-128.0)  # no code of symmetric integers of up to 8 bits
_SHIFT = tl.constexpr(1.5 * 2**23)
_EXPONENT = tl.constexpr(0x7F800000)
_MAGNITUDE = tl.constexpr(0x7FFFFFFF)


class Rounds(NamedTuple):
    """The constants that a kernel is compiled for: `Flags` and `Constants` of a `Spec`.

    `scaled` says that numbers are divided by a scale; `scales` how a dynamic one is stored; `group`
    how many neighbours in a row of a state share one, 0: all.
    """

    span: int
    code: int
    rounding: int
    scaled: int
    asym: int
    feedback: int
    clipped: int
    scales: int
    peak: float
    zero_peak: float
    floor: float
    step: float
    clip: float
    smallest: float
    largest: float
    group: int = 0

    @property
    def dynamic(self) -> bool:
        return self.span in (spec.GROUP, spec.TENSOR)


def rounds_of(flags: Flags, scales: int, constants: Constants) -> Rounds:
    """The constants of flags and float32 numbers; scales: how a scale is stored."""
    c, scaled = constants, int(flags.quotient != spec.UNSCALED)
    return Rounds(
        flags.span, flags.code, flags.rounding, scaled, flags.asym, flags.feedback, flags.clip,
        scales, c.peak, c.zero_peak, c.step_floor, c.step_shift, c.clip, c.smallest, c.largest,
    )  # fmt: skip


EXACTLY = Rounds(spec.EXACT, spec.ANY, 0, 0, 0, 0, 0, 0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0)


@triton.jit
def to_bits(x):
    return x.to(tl.int32, bitcast=True)


@triton.jit
def from_bits(x):
    return x.to(tl.float32, bitcast=True)


@triton.jit
def clamp(x, low, high):
    """x inside [low, high]; NaN stays."""
    x = tl.where(x < low, low, x)
    return tl.where(high < x, high, x)


@triton.jit
def rint(x):
    """The nearest whole number, ties to even; |x| is at most 2^22."""
    return (x + _SHIFT) - _SHIFT


# -- functions ------------------------------------------------------------------------------------


@triton.jit
def exponential(x):
    """exp(x), see `sensprobe.ops.exponential`."""
    inside = clamp(x, -87.33, 88.0)
    shifted = inside * 1.4426950408889634 + _SHIFT
    n = shifted - _SHIFT
    r = (inside - n * 0.693359375) - n * -0.00021219444005471377
    p = r * 1.9875691500e-4 + 1.3981999507e-3
    p = p * r + 8.3334519073e-3
    p = p * r + 4.1665795894e-2
    p = p * r + 1.6666665459e-1
    p = p * r + 5.0000001201e-1
    y = (p * (r * r) + r) + 1.0
    power = from_bits((to_bits(shifted) << 23) + (127 << 23))
    return tl.where(x < -87.33, 0.0, y * power)


@triton.jit
def sigmoid(x):
    return tl.div_rn(1.0, 1.0 + exponential(-x))


@triton.jit
def silu(x):
    return tl.div_rn(x, 1.0 + exponential(-x))


@triton.jit
def softplus(x):
    """log(1 + exp(x)); x beyond 20."""
    t = exponential(-tl.abs(x))
    s = tl.div_rn(t, 2.0 + t)
    q = s * s
    p = q * 0.06666666666666667 + 0.07692307692307693
    p = p * q + 0.09090909090909091
    p = p * q + 0.1111111111111111
    p = p * q + 0.14285714285714285
    p = p * q + 0.2
    p = p * q + 0.3333333333333333
    y = tl.where(x < 0.0, 0.0, x) + (s + s * (p * q)) * 2.0
    return tl.where(x > 20.0, x, y)


# -- one number -----------------------------------------------------------------------------------


@triton.jit
def whole(v, noise, r: tl.constexpr):
    """|v| is at most 2^22."""
    if r.rounding == TRUNCATE:
        return tl.where(v < 0.0, -tl.floor(-v), tl.floor(v))
    elif r.rounding == STOCHASTIC:
        return tl.floor(v + noise)
    else:
        return rint(v)


@triton.jit
def coded(v, noise, r: tl.constexpr):
    """The format's value for v, which lies between its peaks."""
    if r.code == INTEGER:
        return whole(v, noise, r)
    power = from_bits(to_bits(v) & _EXPONENT)  # 2^e of 1.m · 2^e
    step = tl.where(power < r.floor, r.floor, power) * r.step
    return whole(tl.div_rn(v, step), noise, r) * step


@triton.jit
def kept(x, scale, zero, noise, r: tl.constexpr):
    """The number that is read back after x was stored: the format's number times the scale."""
    if r.code == ANY:
        return x
    low = -zero if r.asym else -r.peak
    high = r.peak - zero if r.asym else r.peak
    if r.scaled:
        v = clamp(tl.div_rn(x, scale), low, high)
        return clamp(coded(v, noise, r), low, high) * scale
    v = clamp(x, low, high)
    return clamp(coded(v, noise, r), low, high)


@triton.jit
def code_of(back, scale, zero, r: tl.constexpr):
    """The number before its scale that `kept` made `back` of, with the zero point added.

    `back` is a float32 product, and dividing it again may give a neighbour where zero points are
    large: the whole number is the one whose product is `back`. No code stands for NaN: 0 does.
    """
    q = tl.div_rn(back, scale)
    if r.code == INTEGER:
        q = rint(clamp(q, -4194304.0, 4194304.0))
        q = tl.where(q * scale < back, q + 1.0, tl.where(back < q * scale, q - 1.0, q))
        if r.asym:
            q = clamp(q + zero, 0.0, r.peak)
    return tl.where(q != q, 0.0, q)


@triton.jit
def residual_of(x, back, scale, zero, r: tl.constexpr):
    """The residual of error feedback, as bf16: x clamped to the range of the codes, minus the
    stored number `back`."""
    low = -zero if r.asym else -r.peak
    high = r.peak - zero if r.asym else r.peak
    if r.scaled:
        low, high = low * scale, high * scale
    residual = clamp(x, low, high) - back
    b = to_bits(residual)
    short = from_bits((b + 0x7FFF + ((b >> 16) & 1)) & -65536)
    return tl.where(residual != residual, residual, short)


# -- dynamic scales -------------------------------------------------------------------------------


@triton.jit
def key_of(x):
    """An integer that orders as the numbers do, NaN at the ends."""
    b = to_bits(x)
    return b ^ ((b >> 31) & _MAGNITUDE)


@triton.jit
def number_of(key):
    """The number of a key: undoes `key_of`."""
    return from_bits(key ^ ((key >> 31) & _MAGNITUDE))


@triton.jit
def half(x):
    """Numbers in [2^-24, 65504] rounded to float16; NaN stays."""
    b = to_bits(x)
    normal = from_bits((b + 0xFFF + ((b >> 13) & 1)) & -8192)
    subnormal = (x + 0.5) - 0.5
    return tl.where(x != x, x, tl.where(x < 6.103515625e-05, subnormal, normal))


@triton.jit
def as_kept(scale, r: tl.constexpr):
    """The scale in its stored precision."""
    scale = clamp(scale, r.smallest, r.largest)
    if r.scales == S16:
        return half(scale)
    elif r.scales == S32:
        return scale
    else:
        power = from_bits((to_bits(scale) + 0x7FFFFF) & _EXPONENT)
        return tl.where(scale != scale, 1.0, power)


@triton.jit
def largest_bits(x):
    """The bits of |x|, whose maximum is what `scale_of` takes (symmetric formats)."""
    return to_bits(x) & _MAGNITUDE


@triton.jit
def scale_of(high, r: tl.constexpr):
    """The scale of numbers whose largest magnitude has these bits."""
    return as_kept(tl.div_rn(from_bits(high), r.peak), r)


@triton.jit
def affine_of(low, high, r: tl.constexpr):
    """Scale and zero point of numbers between two keys."""
    low, high = number_of(low), number_of(high)
    nan = (low != low) | (high != high)
    low, high = tl.where(nan, float("nan"), low), tl.where(nan, float("nan"), high)
    a, b = tl.abs(low), tl.abs(high)
    peak = tl.div_rn(tl.where(a != a, a, tl.where(b < a, a, b)), r.zero_peak)
    width = tl.div_rn(high - low, r.peak)
    width = tl.where(width != width, width, tl.where(peak < width, width, peak))
    scale = as_kept(width, r)
    zero = clamp(whole_quotient(-low, scale), -r.zero_peak, r.zero_peak)
    return tl.where(zero != zero, zero, scale), zero


@triton.jit
def whole_quotient(x, scale):
    q = tl.div_rn(x, scale)
    return tl.where(tl.abs(q) < 4194304.0, rint(q), q)


@triton.jit
def dynamic_scale(x, inside, AXIS: tl.constexpr, r: tl.constexpr):
    """Scale and zero point of the numbers along an axis of a tile, or of the whole tile (-1), where
    `inside`; both keep the axes."""
    return dynamic_scale_of_two(x, x, inside, AXIS, r)


@triton.jit
def dynamic_scale_of_two(x, y, inside, AXIS: tl.constexpr, r: tl.constexpr):
    """Scale and zero point of two tiles together, as `dynamic_scale` has them."""
    if r.asym:
        a, b = key_of(x), key_of(y)
        low = _least(tl.where(inside, tl.minimum(a, b), 0x7FFFFFFF), AXIS)
        high = _most(tl.where(inside, tl.maximum(a, b), -0x80000000), AXIS)
        none = high < low  # nothing is inside
        return affine_of(tl.where(none, 0, low), tl.where(none, 0, high), r)
    both = tl.maximum(largest_bits(x), largest_bits(y))
    scale = scale_of(_most(tl.where(inside, both, 0), AXIS), r)
    return scale, tl.zeros_like(scale)


@triton.jit
def _least(x, AXIS: tl.constexpr):
    if AXIS == -1:
        return tl.min(tl.min(x, 1, keep_dims=True), 0, keep_dims=True)
    else:
        return tl.min(x, AXIS, keep_dims=True)


@triton.jit
def _most(x, AXIS: tl.constexpr):
    if AXIS == -1:
        return tl.max(tl.max(x, 1, keep_dims=True), 0, keep_dims=True)
    else:
        return tl.max(x, AXIS, keep_dims=True)


@triton.jit
def load_scale(at, inside, scales: tl.constexpr):
    """Scales as float32; `at` points to float16, float32 or, of powers of two, to exponents."""
    if scales == POW2:
        return from_bits((tl.load(at, mask=inside, other=0).to(tl.int32) + 127) << 23)
    return tl.load(at, mask=inside, other=1.0).to(tl.float32)


@triton.jit
def store_scale(at, scale, inside, scales: tl.constexpr):
    """Write scales as `load_scale` reads them."""
    if scales == POW2:
        tl.store(at, ((to_bits(scale) >> 23) - 127).to(tl.int8), mask=inside)
    else:
        tl.store(at, scale.to(at.dtype.element_ty), mask=inside)


# -- random bits ----------------------------------------------------------------------------------


@triton.jit
def noise(i, row, sequence, step, key0, key1):
    """Uniform in [0, 1) for each place."""
    first, _ = noise_pair(i, row, sequence, step, key0, key1)
    return first


@triton.jit
def noise_pair(i, row, sequence, step, key0, key1):
    """Two uniform numbers in [0, 1) for each place: Philox 4x32-10 (Salmon et al. 2011)."""
    c0, c1 = i.to(tl.uint32), row.to(tl.uint32)
    c2, c3 = sequence.to(tl.uint32), step.to(tl.uint32)
    none = (c0 ^ c1 ^ c2 ^ c3) * 0
    c0, c1, c2, c3 = c0 + none, c1 + none, c2 + none, c3 + none
    same = none.to(tl.int32)  # a key that is 1 is no tensor
    k0, k1 = (same + key0).to(tl.uint32), (same + key1).to(tl.uint32)
    m0 = tl.full(c0.shape, 0xD2511F53, tl.uint32)
    m1 = tl.full(c0.shape, 0xCD9E8D57, tl.uint32)
    for _ in tl.static_range(10):
        high0, low0 = tl.umulhi(c0, m0), c0 * m0
        high1, low1 = tl.umulhi(c2, m1), c2 * m1
        c0, c1, c2, c3 = high1 ^ c1 ^ k0, low1, high0 ^ c3 ^ k1, low0
        k0, k1 = k0 + 0x9E3779B9, k1 + 0xBB67AE85
    unit: tl.constexpr = 5.9604644775390625e-08  # 2^-24
    return (c0 >> 8).to(tl.float32) * unit, (c1 >> 8).to(tl.float32) * unit
