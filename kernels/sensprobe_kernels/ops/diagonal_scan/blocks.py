"""Many steps of a few states: exact ones, and ones whose scales are known beforehand.

Such states need nothing of each other, so a few go through a run of steps in registers, then the
next few. Each step's sum over n waits in memory meanwhile and goes on where it was: n upward from
0, as in the reference.
"""

from __future__ import annotations

from typing import Any

from sensprobe_kernels.jit import inline
from sensprobe_kernels.ops.diagonal_scan.job import Tile
from sensprobe_kernels.ops.diagonal_scan.steps import (
    PAIR,
    ROW,
    ComplexState,
    Row,
    Scales,
    advanced,
    empty_sum,
    known_scales,
    load_state,
    rounded,
    row,
    store_state,
    term,
)
from sensprobe_kernels.quantize.rounding import STOCHASTIC
from sensprobe_kernels.quantize.spec import Flags
from sensprobe_kernels.simd.vector import LANES, Floats, load, store

BLOCK = 4
"""States that go through steps side by side: as many as the registers take."""


@inline
def _step(
    row: Row, held: ComplexState, drive: Floats, tile: Tile, scales: Scales, flags: Flags
) -> ComplexState:
    re, im = advanced(tile, row, held, drive, flags)
    return rounded(tile, re, im, (empty_sum(), empty_sum()), scales.re, scales.im, flags)


@inline
def _four(
    tile: Tile, h: int, n: int, drive: Any, out: Any, at: int, steps: int, flags: Flags
) -> None:
    """Steps of states n to n + 3 of head h; place `at` of drive and out is that of the first."""
    p, c = ((h - tile.h0) * tile.job.n + n) * PAIR, (h * tile.job.n + n) * ROW
    c0, c1 = row(tile, c), row(tile, c + ROW)
    c2, c3 = row(tile, c + 2 * ROW), row(tile, c + 3 * ROW)
    s0, s1 = known_scales(tile, h, n, flags), known_scales(tile, h, n + 1, flags)
    s2, s3 = known_scales(tile, h, n + 2, flags), known_scales(tile, h, n + 3, flags)
    h0, h1 = load_state(tile, p, flags), load_state(tile, p + PAIR, flags)
    h2, h3 = load_state(tile, p + 2 * PAIR, flags), load_state(tile, p + 3 * PAIR, flags)
    for _ in range(steps):
        u = load(drive, at)
        h0, h1 = _step(c0, h0, u, tile, s0, flags), _step(c1, h1, u, tile, s1, flags)
        h2, h3 = _step(c2, h2, u, tile, s2, flags), _step(c3, h3, u, tile, s3, flags)
        total = (load(out, at) + term(c0, h0)) + term(c1, h1)
        total = (total + term(c2, h2)) + term(c3, h3)
        store(out, at, total)
        at += LANES
    store_state(tile, p, h0, flags)
    store_state(tile, p + PAIR, h1, flags)
    store_state(tile, p + 2 * PAIR, h2, flags)
    store_state(tile, p + 3 * PAIR, h3, flags)


@inline
def blocks(tile: Tile, h: int, drive: Any, out: Any, at: int, steps: int, flags: Flags) -> int:
    """All steps of as many states of head h as make whole blocks; returns how many those are.

    out has their part of the sums. No state is left out of a step's rounding, and none needs noise,
    which would take the registers: otherwise no block is made.
    """
    if tile.job.state.every != 1 or flags.rounding == STOCHASTIC:
        return 0
    for i in range(at, at + steps * LANES, LANES):
        store(out, i, empty_sum())
    whole = tile.job.n - tile.job.n % BLOCK
    for n in range(0, whole, BLOCK):
        _four(tile, h, n, drive, out, at, steps, flags)
    return whole
