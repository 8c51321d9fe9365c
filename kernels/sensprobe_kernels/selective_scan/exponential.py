"""exp(x), operation for operation as `sensprobe.ops.exponential` defines it.

Each operation waits for the one before: four numbers go side by side, so that a processor which
looks only a few dozen operations ahead always has some that need not wait.
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


@inline
def exponentials(x: Four) -> Four:
    """2^n (p(r) r² + r + 1). Adding 1.5 · 2^23 rounds to a whole number."""
    inside = _inside(x)
    shifted = _raised(_scaled(inside, _LOG2_E), _SHIFT)
    n = _raised(shifted, -_SHIFT)
    r = _minus(_minus(inside, _scaled(n, _LN2_HIGH)), _scaled(n, _LN2_LOW))
    p = _raised(_scaled(r, _P0), _P1)
    p = _raised(_times(p, r), _P2)
    p = _raised(_times(p, r), _P3)
    p = _raised(_times(p, r), _P4)
    p = _raised(_times(p, r), _P5)
    y = _raised(_plus(_times(p, _times(r, r)), r), _ONE)
    power = Four(_power(shifted.a), _power(shifted.b), _power(shifted.c), _power(shifted.d))
    y = _times(y, power)
    return Four(_kept(x.a, y.a), _kept(x.b, y.b), _kept(x.c, y.c), _kept(x.d, y.d))


@inline
def exponential(x: Floats) -> Floats:
    return exponentials(Four(x, x, x, x)).a
