"""Spreading compiled work over threads that live as long as one call."""

from __future__ import annotations

from collections.abc import Callable
from itertools import count
from math import prod
from threading import Thread
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from sensprobe_kernels.simd.vector import LANES

Array: TypeAlias = NDArray[np.float32]


def spread_out(
    work: Callable[[int, int], None], pieces: list[tuple[int, int]], threads: int
) -> None:
    """Call `work` on every piece, in `threads` threads of which each takes the next piece left.

    Threads start and end within the call, so that a later fork finds none. The first exception of
    a piece is raised here.
    """
    ticket = count()
    failures: list[BaseException] = []

    def loop() -> None:
        try:
            while not failures and (place := next(ticket)) < len(pieces):
                work(*pieces[place])
        except BaseException as error:
            failures.append(error)

    helpers = [Thread(target=loop) for _ in range(min(threads, len(pieces)) - 1)]
    for helper in helpers:
        helper.start()
    loop()
    for helper in helpers:
        helper.join()
    if failures:
        raise failures[0]


def scratch(size: int) -> Array:
    """`size` float32 zeros that start at a cache line."""
    return _from_line(np.zeros(size + LANES, np.float32), size)


def lines(shape: tuple[int, ...]) -> Array:
    """An uninitialised float32 array that starts at a cache line."""
    size = prod(shape)
    return _from_line(np.empty(size + LANES, np.float32), size).reshape(shape)


def aligned(x: Array) -> Array:
    """x itself if it is contiguous and starts at a cache line, else a copy that does.

    A vector that straddles two lines costs several times the time of one that does not.
    """
    if x.flags.c_contiguous and x.ctypes.data % (4 * LANES) == 0:
        return x
    out = lines(x.shape)
    out[...] = x
    return out


def _from_line(raw: Array, size: int) -> Array:
    start = -(raw.ctypes.data // 4) % LANES
    return raw[start : start + size]
