"""exp(x), operation for operation as `sensprobe.ops.exponential` defines it.

Each operation waits for the one before: eight numbers go side by side, so that a processor which
looks only a few dozen operations ahead always has two that need not wait.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from sensprobe_kernels.stored.flags import inline
from sensprobe_kernels.stored.lanes import clamp
from sensprobe_kernels.vector import (
    Floats,
    bits,
    choose,
    every,
    every_int,
    from_bits,
    less,
    shift_left,
)

_LOWEST, _HIGHEST = np.float32(-87.33), np.float32(88.0)
_LOG2_E = np.float32(1 / math.log(2))
_LN2_HIGH = np.float32(0.693359375)
_LN2_LOW = np.float32(math.log(2) - 0.693359375)
_P0 = np.float32(1.9875691500e-4)
_P1 = np.float32(1.3981999507e-3)
_P2 = np.float32(8.3334519073e-3)
_P3 = np.float32(4.1665795894e-2)
_P4 = np.float32(1.6666665459e-1)
_P5 = np.float32(5.0000001201e-1)
_SHIFT = np.float32(1.5 * 2**23)
_ZERO, _ONE = np.float32(0.0), np.float32(1.0)


class Four(NamedTuple):
    a: Floats
    b: Floats
    c: Floats
    d: Floats


@inline
def _times(x: Four, y: Four) -> Four:
    return Four(x.a * y.a, x.b * y.b, x.c * y.c, x.d * y.d)


@inline
def _scaled(x: Four, factor: float) -> Four:
    f = every(factor)
    return Four(x.a * f, x.b * f, x.c * f, x.d * f)


@inline
def _raised(x: Four, term: float) -> Four:
    f = every(term)
    return Four(x.a + f, x.b + f, x.c + f, x.d + f)


@inline
def _plus(x: Four, y: Four) -> Four:
    return Four(x.a + y.a, x.b + y.b, x.c + y.c, x.d + y.d)


@inline
def _minus(x: Four, y: Four) -> Four:
    return Four(x.a - y.a, x.b - y.b, x.c - y.c, x.d - y.d)


@inline
def _inside(x: Four) -> Four:
    low, high = every(_LOWEST), every(_HIGHEST)
    return Four(
        clamp(x.a, low, high), clamp(x.b, low, high), clamp(x.c, low, high), clamp(x.d, low, high)
    )


@inline
def _power(shifted: Floats) -> Floats:
    """2^n; n is in the low bits."""
    return from_bits(shift_left(bits(shifted), every_int(23)) + every_int(127 << 23))


@inline
def _kept(x: Floats, y: Floats) -> Floats:
    return choose(less(x, every(_LOWEST)), every(_ZERO), y)


class Eight(NamedTuple):
    low: Four
    high: Four


@inline
def _reduced(x: Eight) -> tuple[Eight, Eight]:
    """n + 1.5 · 2^23 and r, where x = n log 2 + r. Adding 1.5 · 2^23 rounds to a whole number."""
    inside = Eight(_inside(x.low), _inside(x.high))
    product = Eight(_scaled(inside.low, _LOG2_E), _scaled(inside.high, _LOG2_E))
    shifted = Eight(_raised(product.low, _SHIFT), _raised(product.high, _SHIFT))
    n = Eight(_raised(shifted.low, -_SHIFT), _raised(shifted.high, -_SHIFT))
    most = Eight(_scaled(n.low, _LN2_HIGH), _scaled(n.high, _LN2_HIGH))
    r = Eight(_minus(inside.low, most.low), _minus(inside.high, most.high))
    least = Eight(_scaled(n.low, _LN2_LOW), _scaled(n.high, _LN2_LOW))
    return shifted, Eight(_minus(r.low, least.low), _minus(r.high, least.high))


@inline
def _next(p: Eight, r: Eight, term: float) -> Eight:
    """p r + term."""
    product = Eight(_times(p.low, r.low), _times(p.high, r.high))
    return Eight(_raised(product.low, term), _raised(product.high, term))


@inline
def _power_of(shifted: Four) -> Four:
    return Four(_power(shifted.a), _power(shifted.b), _power(shifted.c), _power(shifted.d))


@inline
def _ended(x: Four, y: Four) -> Four:
    return Four(_kept(x.a, y.a), _kept(x.b, y.b), _kept(x.c, y.c), _kept(x.d, y.d))


@inline
def exponentials(x: Eight) -> Eight:
    """2^n (p(r) r² + r + 1)."""
    shifted, r = _reduced(x)
    p = Eight(_scaled(r.low, _P0), _scaled(r.high, _P0))
    p = Eight(_raised(p.low, _P1), _raised(p.high, _P1))
    p = _next(_next(_next(_next(p, r, _P2), r, _P3), r, _P4), r, _P5)
    square = Eight(_times(r.low, r.low), _times(r.high, r.high))
    y = Eight(_times(p.low, square.low), _times(p.high, square.high))
    y = Eight(_plus(y.low, r.low), _plus(y.high, r.high))
    y = Eight(_raised(y.low, _ONE), _raised(y.high, _ONE))
    power = Eight(_power_of(shifted.low), _power_of(shifted.high))
    y = Eight(_times(y.low, power.low), _times(y.high, power.high))
    return Eight(_ended(x.low, y.low), _ended(x.high, y.high))


@inline
def exponential(x: Floats) -> Floats:
    four = Four(x, x, x, x)
    return exponentials(Eight(four, four)).low.a
