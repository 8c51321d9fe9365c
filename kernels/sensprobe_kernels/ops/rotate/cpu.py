"""Hadamard transforms on the CPU, bit for bit the reference."""

from __future__ import annotations

import numpy as np

from sensprobe_kernels.ops.rotate.rows import Rotation, build
from sensprobe_kernels.quantize.spec import Array
from sensprobe_kernels.simd.vector import LANES
from sensprobe_kernels.threads import spread_out

_WORK = 1 << 15
"""Least numbers that one thread takes at a time."""


def rotated(x: Array, signs: Array | None, power: int, threads: int) -> Array:
    """x (…, base · power), C-contiguous, with its last axis transformed.

    signs: the ±1 of the base's matrix (base, base), float32, as it is applied; None for base 1.
    power: a power of two.
    """
    out = np.empty_like(x)
    if not x.size:
        return out
    base = 1 if signs is None else len(signs)
    flat = np.ones(1, np.float32) if signs is None else signs.reshape(-1)
    rotation, count = Rotation(base, power, 0), base * power
    run = build()
    blocks, few = x.size // count, max(1, _WORK // count)
    pieces = [(i, min(i + few, blocks)) for i in range(0, blocks, few)]

    def work(start: int, stop: int) -> None:
        line = np.zeros(count + LANES, np.float32)
        run(rotation, flat, x.reshape(-1), out.reshape(-1), line, start, stop)

    spread_out(work, pieces, threads)
    return out
