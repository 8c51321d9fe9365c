"""exp(x), operation for operation as `sensprobe.ops.exponential` defines it.

Each operation waits for the one before: eight numbers go side by side, so that a processor which
looks only a few dozen operations ahead always has two that need not wait.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np

from sensprobe_kernels.jit import inline
from sensprobe_kernels.quantize.lanes import clamp
from sensprobe_kernels.simd.vector import (
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


@inline
def _powers(shifted: Four) -> Four:
    return Four(_power(shifted.a), _power(shifted.b), _power(shifted.c), _power(shifted.d))


@inline
def _cut(x: Four, y: Four) -> Four:
    return Four(_kept(x.a, y.a), _kept(x.b, y.b), _kept(x.c, y.c), _kept(x.d, y.d))


class Eight(NamedTuple):
    low: Four
    high: Four


def _each(operation: Any) -> Any:
    """The operation on four vectors, for eight."""

    @inline
    def of_eight(x: Eight) -> Eight:
        return Eight(operation(x.low), operation(x.high))

    return of_eight


def _all(operation: Any) -> Any:
    """The operation on four vectors and a number, for eight and the number."""

    @inline
    def of_eight(x: Eight, number: float) -> Eight:
        return Eight(operation(x.low, number), operation(x.high, number))

    return of_eight


def _both(operation: Any) -> Any:
    """The operation on two times four vectors, for two times eight."""

    @inline
    def of_eight(x: Eight, y: Eight) -> Eight:
        return Eight(operation(x.low, y.low), operation(x.high, y.high))

    return of_eight


_inside8, _powers8 = _each(_inside), _each(_powers)
_scaled8, _raised8 = _all(_scaled), _all(_raised)
_times8, _plus8, _minus8, _cut8 = _both(_times), _both(_plus), _both(_minus), _both(_cut)


@inline
def exponentials(x: Eight) -> Eight:
    """2^n (p(r) r² + r + 1). Adding 1.5 · 2^23 rounds to a whole number."""
    inside = _inside8(x)
    shifted = _raised8(_scaled8(inside, _LOG2_E), _SHIFT)
    n = _raised8(shifted, -_SHIFT)
    r = _minus8(_minus8(inside, _scaled8(n, _LN2_HIGH)), _scaled8(n, _LN2_LOW))
    p = _raised8(_scaled8(r, _P0), _P1)
    p = _raised8(_times8(p, r), _P2)
    p = _raised8(_times8(p, r), _P3)
    p = _raised8(_times8(p, r), _P4)
    p = _raised8(_times8(p, r), _P5)
    y = _raised8(_plus8(_times8(p, _times8(r, r)), r), _ONE)
    return _cut8(x, _times8(y, _powers8(shifted)))


@inline
def exponential(x: Floats) -> Floats:
    four = Four(x, x, x, x)
    return exponentials(Eight(four, four)).low.a
