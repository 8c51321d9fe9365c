"""Normal numbers on the CPU, bit for bit the reference."""

from __future__ import annotations

from math import prod

import numpy as np

from sensprobe_kernels.ops.normals.numbers import fill
from sensprobe_kernels.quantize.spec import Array
from sensprobe_kernels.threads import spread_out

_WORK = 1 << 12
"""Least numbers that one thread takes at a time."""


def numbers(
    starts: tuple[int, ...], sizes: tuple[int, ...], key: tuple[int, int], pairs: bool, threads: int
) -> Array:
    """Normal numbers (*sizes, 2 with `pairs`) at the counters of four axes, from `starts` on."""
    out = np.empty((prod(sizes[:3]), sizes[3], 2 if pairs else 1), np.float32)
    few = max(1, _WORK // max(sizes[3], 1))
    pieces = [(i, min(i + few, len(out))) for i in range(0, len(out), few)]
    ints = [np.array(values, np.int64) for values in (starts, sizes, key)]

    def work(start: int, stop: int) -> None:
        fill(out, start, stop, *ints, pairs)

    spread_out(work, pieces if out.size else [], threads)
    return out.reshape(*sizes, 2) if pairs else out.reshape(sizes)
