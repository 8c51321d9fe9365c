"""One pair of normal numbers of a counter, in float64 to the bits of `sensprobe.numerics.noise`:
Philox 4x32-10 (Salmon et al. 2011) and the transform of Box and Muller (1958)."""

from __future__ import annotations

from math import pi, sqrt
from typing import Any

import numpy as np

from sensprobe_kernels.jit import compiled, inline
from sensprobe_kernels.packing.msun.cpu import cos_sin, log

_MASK, _HALF = np.int64(0xFFFFFFFF), np.int64(32)
_M0, _M1 = np.int64(0xD2511F53), np.int64(0xCD9E8D57)
_W0, _W1 = np.int64(0x9E3779B9), np.int64(0xBB67AE85)
_ROUNDS = 10
_UNIT, _TURN = 2.0**-32, 2 * pi * 2.0**-32


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
            r = sqrt(-2.0 * log((np.float64(w0) + 1.0) * _UNIT))
            c, s = cos_sin(np.float64(w1) * _TURN)
            out[row, i, 0] = np.float32(r * c)
            if pairs:
                out[row, i, 1] = np.float32(r * s)
