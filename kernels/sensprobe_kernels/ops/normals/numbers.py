"""One pair of normal numbers of a counter, in float64 to the bits of `sensprobe.numerics.noise`:
Philox 4x32-10 (Salmon et al. 2011), msun's logarithm, sine and cosine, and the transform of Box and
Muller (1958)."""

from __future__ import annotations

from math import pi, sqrt
from typing import Any

import numpy as np

from sensprobe_kernels.jit import compiled, inline
from sensprobe_kernels.packing.msun import (
    C0,
    C1,
    C2,
    C3,
    C4,
    C5,
    L0,
    L1,
    L2,
    L3,
    L4,
    L5,
    L6,
    LN2_HIGH,
    LN2_LOW,
    P0,
    P1,
    P2,
    ROUND,
    S0,
    S1,
    S2,
    S3,
    S4,
    S5,
    TWO_OVER_PI,
)  # fmt: skip

_MASK, _HALF = np.int64(0xFFFFFFFF), np.int64(32)
_M0, _M1 = np.int64(0xD2511F53), np.int64(0xCD9E8D57)
_W0, _W1 = np.int64(0x9E3779B9), np.int64(0xBB67AE85)
_ROUNDS = 10
_UNIT, _TURN = 2.0**-32, 2 * pi * 2.0**-32
_FRACTION = np.int64((1 << 52) - 1)
_ONE = np.int64(1023)
_BITS = np.int64(52)


@inline
def _words(c0: Any, c1: Any, c2: Any, c3: Any, k0: Any, k1: Any) -> Any:
    """The first two words. Products wrap modulo 2^64, which leaves both halves right."""
    for _ in range(_ROUNDS):
        p0, p1 = c0 * _M0, c2 * _M1
        c0, c1, c2, c3 = (
            ((p1 >> _HALF) & _MASK) ^ c1 ^ k0,
            p1 & _MASK,
            ((p0 >> _HALF) & _MASK) ^ c3 ^ k1,
            p0 & _MASK,
        )
        k0, k1 = (k0 + _W0) & _MASK, (k1 + _W1) & _MASK
    return c0, c1


@inline
def _log(x: Any) -> Any:
    """The logarithm of a normal number above 0."""
    bits = np.float64(x).view(np.int64)
    k = (bits >> _BITS) - _ONE
    m = np.int64((bits & _FRACTION) | (_ONE << _BITS)).view(np.float64)  # x = m 2^k, m in [1, 2)
    if m >= 1.41421356237309504880:
        m, k = m * 0.5, k + np.int64(1)
    power = np.float64(k)
    f = m - 1.0
    s = f / (2.0 + f)
    z = s * s
    half = f * f * 0.5
    r = ((((((L6 * z + L5) * z + L4) * z + L3) * z + L2) * z + L1) * z + L0) * z
    return power * LN2_HIGH - ((half - (s * (half + r) + power * LN2_LOW)) - f)


@inline
def _cos_sin(x: Any) -> Any:
    turns = (x * TWO_OVER_PI + ROUND) - ROUND
    first = x - turns * P0
    w = turns * P1
    r = first - w
    w = turns * P2 - ((first - r) - w)
    y = r - w
    tail = (r - y) - w
    z = y * y
    v = z * y
    p = (((S5 * z + S4) * z + S3) * z + S2) * z + S1
    s = y - ((z * (0.5 * tail - v * p) - tail) - v * S0)
    q = z * (((((C5 * z + C4) * z + C3) * z + C2) * z + C1) * z + C0)
    half = 0.5 * z
    u = 1.0 - half
    c = u + (((1.0 - u) - half) + (z * q - y * tail))
    quarter = np.int64(turns) & np.int64(3)
    if quarter & np.int64(1):
        s, c = c, s
    if quarter >= 2:
        s = -s
    if quarter == 1 or quarter == 2:
        c = -c
    return c, s


@compiled
def fill(out: Any, start: Any, stop: Any, starts: Any, sizes: Any, key: Any, pairs: Any) -> None:
    """Rows start … stop of the grid, counted over its three leading axes. out: (rows, n, 2 or 1)
    float32; starts, sizes: four int64; key: two."""
    n, k0, k1 = sizes[3], key[0], key[1]
    for row in range(start, stop):
        c1 = starts[2] + row % sizes[2]
        c2 = starts[1] + row // sizes[2] % sizes[1]
        c3 = starts[0] + row // sizes[2] // sizes[1]
        for i in range(n):
            w0, w1 = _words(starts[3] + i, c1, c2, c3, k0, k1)
            r = sqrt(-2.0 * _log((np.float64(w0) + 1.0) * _UNIT))
            c, s = _cos_sin(np.float64(w1) * _TURN)
            out[row, i, 0] = np.float32(r * c)
            if pairs:
                out[row, i, 1] = np.float32(r * s)
