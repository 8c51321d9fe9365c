"""Spreading compiled work over threads that live as long as one call."""

from __future__ import annotations

from collections.abc import Callable
from itertools import count
from threading import Thread
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from sensprobe_kernels.vector import LANES

Array: TypeAlias = NDArray[np.float32]


def spread_out(
    work: Callable[[int, int], None], pieces: list[tuple[int, int]], threads: int
) -> None:
    """Call work on every piece; each thread takes the next one that is left.

    Threads start and end here: nothing is left that a fork would break.
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
    """Zeros that start at a cache line."""
    raw = np.zeros(size + LANES, np.float32)
    start = -(raw.ctypes.data // 4) % LANES
    return raw[start : start + size]
