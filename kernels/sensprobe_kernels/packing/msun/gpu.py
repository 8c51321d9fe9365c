"""exp, sine and cosine of float64 numbers in Triton, to the bits of
`sensprobe.numerics.arithmetic`."""

from __future__ import annotations

import triton
import triton.language as tl

from sensprobe_kernels.packing import msun

LN2_HIGH, LN2_LOW = tl.constexpr(msun.LN2_HIGH), tl.constexpr(msun.LN2_LOW)
LOG2_E, ROUND = tl.constexpr(msun.LOG2_E), tl.constexpr(msun.ROUND)
EXP_LOWEST, EXP_HIGHEST = tl.constexpr(msun.EXP_LOWEST), tl.constexpr(msun.EXP_HIGHEST)
E0, E1, E2 = tl.constexpr(msun.E0), tl.constexpr(msun.E1), tl.constexpr(msun.E2)
E3, E4 = tl.constexpr(msun.E3), tl.constexpr(msun.E4)
S0, S1, S2 = tl.constexpr(msun.S0), tl.constexpr(msun.S1), tl.constexpr(msun.S2)
S3, S4, S5 = tl.constexpr(msun.S3), tl.constexpr(msun.S4), tl.constexpr(msun.S5)
C0, C1, C2 = tl.constexpr(msun.C0), tl.constexpr(msun.C1), tl.constexpr(msun.C2)
C3, C4, C5 = tl.constexpr(msun.C3), tl.constexpr(msun.C4), tl.constexpr(msun.C5)
TWO_OVER_PI = tl.constexpr(msun.TWO_OVER_PI)
P0, P1, P2 = tl.constexpr(msun.P0), tl.constexpr(msun.P1), tl.constexpr(msun.P2)


@triton.jit
def _number(x, value: tl.constexpr):
    """A constant in float64, as many as x: a literal might be rounded to float32."""
    return tl.full(x.shape, value, tl.float64)


@triton.jit
def exp(x):
    """exp of every number; 0 and infinite where float64 has no normal number."""
    inside = tl.minimum(tl.maximum(x, _number(x, EXP_LOWEST)), _number(x, EXP_HIGHEST))
    rounding = _number(x, ROUND)
    k = (inside * _number(x, LOG2_E) + rounding) - rounding
    high, low = inside - k * _number(x, LN2_HIGH), k * _number(x, LN2_LOW)
    r = high - low
    t = r * r
    p = (_number(x, E4) * t + _number(x, E3)) * t + _number(x, E2)
    c = r - t * ((p * t + _number(x, E1)) * t + _number(x, E0))
    two, one = _number(x, 2.0), _number(x, 1.0)
    y = one - ((low - (r * c) / (two - c)) - high)
    y = y * ((k.to(tl.int64) + 1023) << 52).to(tl.float64, bitcast=True)
    y = tl.where(x < _number(x, EXP_LOWEST), _number(x, 0.0), y)
    y = tl.where(x > _number(x, EXP_HIGHEST), _number(x, float("inf")), y)
    return tl.where(x != x, x, y)


@triton.jit
def _sin_near_zero(x, tail):
    z = x * x
    v = z * x
    r = ((_number(x, S5) * z + _number(x, S4)) * z + _number(x, S3)) * z + _number(x, S2)
    r = r * z + _number(x, S1)
    return x - ((z * (_number(x, 0.5) * tail - v * r) - tail) - v * _number(x, S0))


@triton.jit
def _cos_near_zero(x, tail):
    z = x * x
    r = ((_number(x, C5) * z + _number(x, C4)) * z + _number(x, C3)) * z + _number(x, C2)
    r = z * ((r * z + _number(x, C1)) * z + _number(x, C0))
    half, one = _number(x, 0.5) * z, _number(x, 1.0)
    w = one - half
    return w + (((one - w) - half) + (z * r - x * tail))


@triton.jit
def cos_sin(x):
    """Cosine and sine of every angle."""
    rounding = _number(x, ROUND)
    turns = (x * _number(x, TWO_OVER_PI) + rounding) - rounding
    first = x - turns * _number(x, P0)
    w = turns * _number(x, P1)
    r = first - w
    w = turns * _number(x, P2) - ((first - r) - w)
    y = r - w
    tail = (r - y) - w
    s, c = _sin_near_zero(y, tail), _cos_near_zero(y, tail)
    quarter = turns.to(tl.int64) & 3
    odd = (quarter & 1) == 1
    sine, cosine = tl.where(odd, c, s), tl.where(odd, s, c)
    sine = tl.where(quarter >= 2, -sine, sine)
    return tl.where((quarter == 1) | (quarter == 2), -cosine, cosine), sine
