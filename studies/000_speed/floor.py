"""How far is the scan from what the arithmetic units could do?

    python studies/000_speed/floor.py

Prints the clock, and for each kind of state the cycles one core spends on a step of one complex
state of sixteen sequences: the slope of the time over n, so that reading, transposing and writing
do not count; and those of sixteen exponentials, as the selective scan takes them. The bounds are
derived in README.md.
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
from sensprobe_kernels.jit import inline
from sensprobe_kernels.ops.selective_scan.exponential import Eight, Four, exponentials
from sensprobe_kernels.simd.vector import LANES, load, store
from sensprobe_kernels.threads import aligned, lines

from sensprobe.ops import diagonal_scan

RUNS = 25
NARROW, WIDE = 32, 64  # states a head


@numba.njit
def chain(count: int, x: np.uint64) -> np.uint64:
    """Twice `count` operations that wait for each other, one cycle each."""
    for _ in range(count):
        x = (x ^ np.uint64(5)) + np.uint64(1)
    return x


@numba.njit(nogil=True)
def exponentials_of(x: np.ndarray, y: np.ndarray, times: int) -> None:
    """y = exp(x) again and again, a multiple of 128 numbers."""
    for _ in range(times):
        for i in range(0, x.size, 8 * LANES):
            found = exponentials(Eight(_four(x, i), _four(x, i + 4 * LANES)))
            _put(y, i, found.low)
            _put(y, i + 4 * LANES, found.high)


@inline
def _four(x: np.ndarray, i: int) -> Four:
    return Four(load(x, i), load(x, i + LANES), load(x, i + 2 * LANES), load(x, i + 3 * LANES))


@inline
def _put(y: np.ndarray, i: int, four: Four) -> None:
    store(y, i, four.a)
    store(y, i + LANES, four.b)
    store(y, i + 2 * LANES, four.c)
    store(y, i + 3 * LANES, four.d)


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
    count, near = 2000, aligned(-5 * np.random.default_rng(0).random(1024, np.float32))
    out = lines(near.shape)
    cycles = least(lambda: exponentials_of(near, out, count)) * hertz * LANES / (count * near.size)
    print(f"{'exponentials':34}{cycles:6.1f} cycles for {LANES}")


if __name__ == "__main__":
    main()
