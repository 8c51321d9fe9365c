"""exp, log, sin, cos, atan2 and complex arithmetic in float64, to the same bits on every machine.

A library's exp differs in its last bit between processors of different makers, and between settings
of the library. What is computed when a model is loaded (discretised A and B, codes and values of
polar formats) must not: exported codes and stored scores would depend on the machine. Here every
function is a fixed sequence of float64 operations that IEEE 754 rounds in one way only (sum,
difference, product, quotient, square root, rounding to a whole number, comparison), each applied to
whole tensors and none contracted with another.

The approximations are those of FreeBSD's msun, which come from fdlibm (Sun Microsystems, 1993:
`e_exp`, `e_log`, `k_sin`, `k_cos`, `s_atan`); their errors are below one unit in the last place,
those of `atan2`, `softplus` and `magnitude` below two. Complex numbers are pairs of reals:

    exp(a + ib)            = exp(a) · (cos b, sin b)
    (a + ib) · (c + id)    = (ac - bd, ad + bc)
    (a + ib) / (c + id)    = (ac + bd, bc - ad) / (c² + d²)
    |a + ib|               = sqrt(a² + b²), of numbers scaled by a power of two

`exp`, `log` and `sin_cos` are differentiable once, which training needs; the rest is made of plain
operations. Angles of up to 2^20 are reduced by pi to 118 bits; larger ones lose precision in
proportion, in the same way everywhere.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import pi
from typing import Any

import torch
from torch import Tensor

Pair = tuple[Tensor, Tensor]
"""Real and imaginary part."""

LN2_HIGH, LN2_LOW = 6.93147180369123816490e-01, 1.90821492927058770002e-10
LOG2_E = 1.44269504088896338700
EXP_HIGHEST, EXP_LOWEST = 709.0, -708.0
"""exp is infinite above and 0 below: between them its values are normal numbers."""
EXP = (
    1.66666666666666019037e-01,
    -2.77777777770155933842e-03,
    6.61375632143793436117e-05,
    -1.65339022054652515390e-06,
    4.13813679705723846039e-08,
)
LOG = (
    6.666666666666735130e-01,
    3.999999999940941908e-01,
    2.857142874366239149e-01,
    2.222219843214978396e-01,
    1.818357216161805012e-01,
    1.531383769920937332e-01,
    1.479819860511658591e-01,
)
SIN = (
    -1.66666666666666324348e-01,
    8.33333333332248946124e-03,
    -1.98412698298579493134e-04,
    2.75573137070700676789e-06,
    -2.50507602534068634195e-08,
    1.58969099521155010221e-10,
)
COS = (
    4.16666666666666019037e-02,
    -1.38888888888741095749e-03,
    2.48015872894767294178e-05,
    -2.75573143513906633035e-07,
    2.08757232129817482790e-09,
    -1.13596475577881948265e-11,
)
ATAN = (
    3.33333333333329318027e-01,
    -1.99999999998764832476e-01,
    1.42857142725034663711e-01,
    -1.11111104054623557880e-01,
    9.09088713343650656196e-02,
    -7.69187620504482999495e-02,
    6.66107313738753120669e-02,
    -5.83357013379057348645e-02,
    4.97687799461593236017e-02,
    -3.65315727442169155270e-02,
    1.62858201153657823623e-02,
)
ATAN_HIGH = (
    4.63647609000806093515e-01,
    7.85398163397448278999e-01,
    9.82793723247329054082e-01,
    1.57079632679489655800e00,
)
ATAN_LOW = (
    2.26987774529616870924e-17,
    3.06161699786838301793e-17,
    1.39033110312309984516e-17,
    6.12323399573676603587e-17,
)
"""atan of 1/2, 1, 3/2 and infinity, and what is left of it."""
TWO_OVER_PI = 6.36619772367581382433e-01
HALF_PI = (1.57079632673412561417e00, 6.07710050630396597660e-11, 2.02226624879595063154e-21)
"""The first 33 bits of pi/2, the next 33, and the rest."""
PI_LOW = 1.2246467991473531772e-16
"""pi less its float64."""


def power_of_two(exponent: Tensor, dtype: torch.dtype = torch.float64) -> Tensor:
    """2^exponent of whole numbers, exactly: float32 of -149 … 127, float64 of -1074 … 1023.

    Made of the bits of a normal number and, below the least of them, of another that it is
    multiplied with. (torch.ldexp goes through a library's pow, which need not be exact.)
    """
    lowest = -126 if dtype == torch.float32 else -1022
    normal = exponent.clamp(min=lowest)
    return _normal_power(normal, dtype) * _normal_power(exponent - normal, dtype)


def _normal_power(exponent: Tensor, dtype: torch.dtype) -> Tensor:
    if dtype == torch.float32:
        return ((exponent.to(torch.int32) + 127) << 23).view(torch.float32)
    return ((exponent.to(torch.int64) + 1023) << 52).view(torch.float64)


def total(x: Tensor, axes: Sequence[int]) -> Tensor:
    """The sum over some axes, which stay with size 1, in one order on every machine.

    The axes are laid end to end, filled with zeros to a power of two, and folded in halves.
    """
    axes = [a % x.ndim for a in axes]
    if not axes:
        return x
    kept = [a for a in range(x.ndim) if a not in axes]
    shape = [1 if a in axes else size for a, size in enumerate(x.shape)]
    flat = x.permute(*kept, *axes).reshape(*(x.shape[a] for a in kept), -1)
    size = 1 << max(0, flat.shape[-1] - 1).bit_length()
    if fill := size - flat.shape[-1]:
        flat = torch.cat([flat, flat.new_zeros(*flat.shape[:-1], fill)], dim=-1)
    while flat.shape[-1] > 1:
        half = flat.shape[-1] // 2
        flat = flat[..., :half] + flat[..., half:]
    return flat.reshape(shape)


# -- real functions -------------------------------------------------------------------------------


def exp(x: Tensor) -> Tensor:
    """exp of every element of x, NaN of NaN; float32 by way of float64."""
    return _Exp.apply(x.double()).to(x.dtype)


def log(x: Tensor) -> Tensor:
    """The natural logarithm of every element of x, all positive; float32 by way of float64."""
    return _Log.apply(x.double()).to(x.dtype)


def sin_cos(x: Tensor) -> Pair:
    """Sine and cosine of every element of x (radians); float32 by way of float64."""
    sine, cosine = _SinCos.apply(x.double())
    return sine.to(x.dtype), cosine.to(x.dtype)


def softplus(x: Tensor) -> Tensor:
    """log(1 + exp(x)) of every element of x (float64)."""
    u = exp(-x.abs())
    w = 1 + u
    return x.clamp(min=0) + (log(w) + (u - (w - 1)) / w)


def atan2(y: Tensor, x: Tensor) -> Tensor:
    """The angle of the points (x, y) in [-pi, pi], float64; 0 at the origin."""
    larger, smaller = torch.maximum(x.abs(), y.abs()), torch.minimum(x.abs(), y.abs())
    small = _atan(smaller / torch.where(larger == 0, torch.ones_like(larger), larger))
    angle = torch.where(y.abs() > x.abs(), (pi / 2 - small) + PI_LOW / 2, small)
    angle = torch.where(x < 0, pi - (angle - PI_LOW), angle)
    return torch.where(y < 0, -angle, angle)


class _Exp(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        inside = x.clamp(EXP_LOWEST, EXP_HIGHEST)
        k = (inside * LOG2_E).round()
        high, low = inside - k * LN2_HIGH, k * LN2_LOW
        r = high - low
        t = r * r
        c = r - t * _horner(EXP, t)
        y = 1 - ((low - (r * c) / (2 - c)) - high)
        y = y * _normal_power(k.nan_to_num(), torch.float64)
        y = torch.where(x < EXP_LOWEST, torch.zeros_like(y), y)
        y = torch.where(x > EXP_HIGHEST, torch.full_like(y, torch.inf), y)
        ctx.save_for_backward(y)
        return y

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        return gradients[0] * ctx.saved_tensors[0]


class _Log(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        mantissa, exponent = torch.frexp(x)  # x = m · 2^e, m in [1/2, 1)
        below = mantissa < 0.70710678118654752440
        mantissa = torch.where(below, mantissa * 2, mantissa)
        k = (exponent - below.to(exponent.dtype)).to(x.dtype)
        f = mantissa - 1
        s = f / (2 + f)
        z = s * s
        half = f * f * 0.5
        R = z * _horner(LOG, z)
        ctx.save_for_backward(x)
        return k * LN2_HIGH - ((half - (s * (half + R) + k * LN2_LOW)) - f)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        return gradients[0] / ctx.saved_tensors[0]


class _SinCos(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Pair:
        turns = (x * TWO_OVER_PI).round()
        first = x - turns * HALF_PI[0]
        w = turns * HALF_PI[1]
        r = first - w
        w = turns * HALF_PI[2] - ((first - r) - w)
        y = r - w
        tail = (r - y) - w
        s, c = _sin_near_zero(y, tail), _cos_near_zero(y, tail)
        quarter = turns.nan_to_num().to(torch.int64) & 3
        odd = (quarter & 1) == 1
        sine, cosine = torch.where(odd, c, s), torch.where(odd, s, c)
        sine = torch.where(quarter >= 2, -sine, sine)
        cosine = torch.where((quarter == 1) | (quarter == 2), -cosine, cosine)
        ctx.save_for_backward(sine, cosine)
        return sine, cosine

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        sine, cosine = ctx.saved_tensors
        return gradients[0] * cosine - gradients[1] * sine


def _sin_near_zero(x: Tensor, tail: Tensor) -> Tensor:
    z = x * x
    v = z * x
    r = _horner(SIN[1:], z)
    return x - ((z * (0.5 * tail - v * r) - tail) - v * SIN[0])


def _cos_near_zero(x: Tensor, tail: Tensor) -> Tensor:
    z = x * x
    r = z * _horner(COS, z)
    half = 0.5 * z
    w = 1 - half
    return w + (((1 - w) - half) + (z * r - x * tail))


def _atan(x: Tensor) -> Tensor:
    """atan of x in [0, 1]."""
    middle, upper = x >= 0.4375, x >= 0.6875
    t = torch.where(upper, (x - 1) / (x + 1), torch.where(middle, (2 * x - 1) / (2 + x), x))
    z = t * t
    w = z * z
    odd, even = z * _horner(ATAN[::2], w), w * _horner(ATAN[1::2], w)
    p = t * (odd + even)
    half = ATAN_HIGH[0] - ((p - ATAN_LOW[0]) - t)
    quarter = ATAN_HIGH[1] - ((p - ATAN_LOW[1]) - t)
    return torch.where(upper, quarter, torch.where(middle, half, t - p))


def _horner(coefficients: Sequence[float], x: Tensor) -> Tensor:
    """c0 + x (c1 + x (c2 + …))."""
    y = torch.full_like(x, coefficients[-1])
    for coefficient in reversed(coefficients[:-1]):
        y = y * x + coefficient
    return y


# -- complex functions ----------------------------------------------------------------------------


def pair(z: Tensor) -> Pair:
    """Real and imaginary part of a complex tensor."""
    return z.real, z.imag


def joined(z: Pair) -> Tensor:
    """The complex tensor of two parts."""
    return torch.complex(*z)


def complex_exp(z: Pair) -> Pair:
    """exp of a complex number."""
    size, (sine, cosine) = exp(z[0]), sin_cos(z[1])
    return size * cosine, size * sine


def times(a: Pair, b: Pair) -> Pair:
    """The product of two complex numbers."""
    return a[0] * b[0] - a[1] * b[1], a[0] * b[1] + a[1] * b[0]


def over(a: Pair, b: Pair) -> Pair:
    """The quotient of two complex numbers."""
    size = b[0] * b[0] + b[1] * b[1]
    return (a[0] * b[0] + a[1] * b[1]) / size, (a[1] * b[0] - a[0] * b[1]) / size


def magnitude(z: Tensor) -> Tensor:
    """|z| of a complex128 tensor."""
    a, b = z.real, z.imag
    peak = torch.maximum(a.abs(), b.abs())
    exponent = torch.frexp(peak)[1].clamp(-1000, 1000)
    down, up = (_normal_power(e, torch.float64) for e in (-exponent, exponent))
    a, b = a * down, b * down
    return (a * a + b * b).sqrt() * up


def from_polar(size: Tensor, angle: Tensor) -> Tensor:
    """The complex128 numbers of a magnitude and an angle (radians), both float64."""
    sine, cosine = sin_cos(angle)
    return torch.complex(size * cosine, size * sine)
