"""How far is the scan from what the arithmetic units could do?

    python studies/000_speed/floor.py

Prints the clock, and for each kind of state the cycles one core spends on a step of one complex
state of sixteen sequences: the slope of the time over n, so that reading, transposing and writing
do not count. The bound is derived in README.md.
"""

from __future__ import annotations

import os

os.environ.setdefault("GOMP_SPINCOUNT", "20000")  # as the command line does, see sensprobe.cli

from collections.abc import Callable
from time import perf_counter

import numba
import numpy as np
import torch
from bench import DYNAMIC, HEADS, SEQUENCES, STATIC, STEPS, problem, storage

from sensprobe.runtime import diagonal_scan

LANES, RUNS = 16, 25
NARROW, WIDE = 32, 64  # states a head


@numba.njit
def chain(count: int, x: np.uint64) -> np.uint64:
    """Twice `count` operations that wait for each other, one cycle each."""
    for _ in range(count):
        x = (x ^ np.uint64(5)) + np.uint64(1)
    return x


def least(call: Callable[[], object]) -> float:
    """Seconds of the fastest of some calls, the first left out."""
    call()
    times = []
    for _ in range(RUNS):
        start = perf_counter()
        call()
        times.append(perf_counter() - start)
    return min(times)


def seconds(n: int, scheme: str | None) -> float:
    p = problem(SEQUENCES, STEPS, HEADS, n)
    kept = None if scheme is None else storage(scheme, p)
    return least(lambda: diagonal_scan(*p, kept))


@torch.no_grad()
def main() -> None:
    torch.set_num_threads(1)
    count = 50_000_000
    hertz = 2 * count / least(lambda: chain(count, np.uint64(3)))
    print(f"clock {hertz / 1e9:.2f} GHz")
    steps = SEQUENCES / LANES * STEPS * HEADS * (WIDE - NARROW)
    for name, scheme in (("exact", None), (STATIC, STATIC), (DYNAMIC, DYNAMIC)):
        cycles = (seconds(WIDE, scheme) - seconds(NARROW, scheme)) * hertz / steps
        print(f"{name:34}{cycles:6.1f} cycles a complex state of {LANES} sequences")


if __name__ == "__main__":
    main()
