"""The recurrence over one tile: sixteen sequences, a few heads, all steps.

`build` makes the compiled function for one set of compile-time flags. Within a head the order is
time, then n upward, as in the reference. A range that spans all heads puts the heads inside time.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

from sensprobe_kernels.jit import compiled, inline, inline_optimised
from sensprobe_kernels.ops.diagonal_scan.blocks import blocks
from sensprobe_kernels.ops.diagonal_scan.job import Job, Tile
from sensprobe_kernels.ops.diagonal_scan.steps import (
    empty_sum,
    exact_step,
    group_step,
    observe,
    static_step,
    store_states,
)
from sensprobe_kernels.ops.diagonal_scan.transfer import (
    CHUNK,
    LINE,
    load_inputs,
    load_tile,
    store_outputs,
    store_tile,
)
from sensprobe_kernels.quantize.scales import Range, finite, union, unseen
from sensprobe_kernels.quantize.spec import (
    EXACT,
    GROUP,
    SHIFTED,
    TENSOR,
    Flags,
    exactly,
    safe,
)
from sensprobe_kernels.simd.vector import LANES, bits, every_int, larger, largest, load, store

_BOUND_BITS = (127 + 60) << 23  # of 2^60: times a coefficient up to 2^30, far from overflow

# -- a chunk of steps -----------------------------------------------------------------------------
#
# All steps of a head, then the next head: its state stays in the first-level cache.


@inline
def due(job: Job, t: int) -> bool:
    """True if the state is rounded after step t of this call."""
    every = job.state.every
    return every == 1 or (job.step + t + 1) % every == 0


@inline
def place(tile: Tile, h: int, i: int) -> int:
    """The position of the i-th step of head h in drive and out."""
    return (h - tile.h0) * LINE + i * LANES


@inline
def double(out: Any, at: int, steps: int) -> None:
    for i in range(at, at + steps * LANES, LANES):
        total = load(out, i)
        store(out, i, total + total)


@inline_optimised
def exact_chunk(tile: Tile, drive: Any, out: Any, t0: int, t1: int, flags: Flags) -> None:
    for h in range(tile.h0, tile.h1):
        n = blocks(tile, h, drive, out, place(tile, h, 0), t1 - t0, flags)
        if n == tile.job.n:
            double(out, place(tile, h, 0), t1 - t0)
            continue
        for at in range(place(tile, h, 0), place(tile, h, t1 - t0), LANES):
            total = load(out, at) if n else empty_sum()
            total = exact_step(tile, h, n, load(drive, at), total, flags)
            store(out, at, total + total)


@inline_optimised
def static_chunk(tile: Tile, drive: Any, out: Any, t0: int, t1: int, flags: Flags) -> None:
    for h in range(tile.h0, tile.h1):
        n = blocks(tile, h, drive, out, place(tile, h, 0), t1 - t0, flags)
        if n == tile.job.n:
            double(out, place(tile, h, 0), t1 - t0)
            continue
        for t in range(t0, t1):
            at = place(tile, h, t - t0)
            total = load(out, at) if n else empty_sum()
            if due(tile.job, t):
                total = static_step(tile, h, n, t, load(drive, at), total, flags)
            else:
                total = exact_step(tile, h, n, load(drive, at), total, flags)
            store(out, at, total + total)


@inline_optimised
def group_chunk(tile: Tile, drive: Any, out: Any, t0: int, t1: int, flags: Flags) -> None:
    for h in range(tile.h0, tile.h1):
        for t in range(t0, t1):
            at = place(tile, h, t - t0)
            if due(tile.job, t):
                total = group_step(tile, h, t, load(drive, at), flags)
            else:
                total = exact_step(tile, h, 0, load(drive, at), empty_sum(), flags)
            store(out, at, total + total)


@inline_optimised
def tensor_chunk(tile: Tile, drive: Any, out: Any, t0: int, t1: int, flags: Flags) -> None:
    """All heads of a step, then the next step: one range spans them."""
    for t in range(t0, t1):
        i = t - t0
        if not due(tile.job, t):
            for h in range(tile.h0, tile.h1):
                at = place(tile, h, i)
                total = exact_step(tile, h, 0, load(drive, at), empty_sum(), flags)
                store(out, at, total + total)
            continue
        re_seen, im_seen = unseen(flags), unseen(flags)
        for h in range(tile.h0, tile.h1):
            u = load(drive, place(tile, h, i))
            re_seen, im_seen = observe(tile, h, 0, tile.job.n, u, re_seen, im_seen, flags)
        if flags.quotient != SHIFTED or finite(union(re_seen, im_seen), flags):
            store_heads(tile, out, i, t, re_seen, im_seen, flags)
        else:
            store_heads(tile, out, i, t, re_seen, im_seen, safe(flags))


@inline
def store_heads(
    tile: Tile, out: Any, i: int, t: int, re_seen: Range, im_seen: Range, flags: Flags
) -> None:
    for h in range(tile.h0, tile.h1):
        total = store_states(tile, h, 0, tile.job.n, t, re_seen, im_seen, empty_sum(), flags)
        store(out, place(tile, h, i), total + total)


@inline
def bounded(numbers: Any, size: int) -> bool:
    """True if every number is so small that a step from it stays finite."""
    top = every_int(0)
    for i in range(0, size, LANES):
        top = larger(top, bits(load(numbers, i)) & every_int(0x7FFFFFFF))
    return largest(top) <= _BOUND_BITS


@inline
def copy(source: Any, at: int, target: Any, to: int, size: int) -> None:
    for i in range(0, size, LANES):
        store(target, to + i, load(source, at + i))


# -- the compiled function ------------------------------------------------------------------------


@cache
def build(flags: Flags, checkpoints: bool = False) -> Callable[..., None]:
    """The compiled scan of a tile for one set of flags.

    It takes u, y, state and residual flat, a Tile, and scratch for drive and out. It releases the
    interpreter's lock. With `checkpoints` it writes those of the Tile.
    """

    span, quotient, feedback = flags.span, flags.quotient, flags.feedback

    def scan_tile(
        u: Any, y: Any, state: Any, residual: Any, tile: Tile, drive: Any, out: Any
    ) -> None:
        load_tile(tile, state, tile.state)
        if feedback:
            load_tile(tile, residual, tile.residual)
        # Rounding bounds a state: finite once and fed finite numbers, it stays finite.
        stays_finite = bounded(tile.state, tile.state.size) and bounded(
            tile.residual, tile.residual.size
        )
        for t0 in range(0, tile.job.length, CHUNK):
            t1 = min(t0 + CHUNK, tile.job.length)
            load_inputs(tile, u, drive, t0, t1)
            if checkpoints:
                size = tile.state.size
                copy(tile.state, 0, tile.checkpoints, t0 // CHUNK * size, size)
                if feedback:
                    copy(tile.residual, 0, tile.residual_checkpoints, t0 // CHUNK * size, size)
            if span == EXACT:
                exact_chunk(tile, drive, out, t0, t1, exactly(flags))
            elif span == GROUP:
                group_chunk(tile, drive, out, t0, t1, flags)
            elif span == TENSOR:
                tensor_chunk(tile, drive, out, t0, t1, flags)
            else:
                stays_finite = stays_finite and bounded(drive, drive.size)
                if quotient != SHIFTED or stays_finite:
                    static_chunk(tile, drive, out, t0, t1, flags)
                else:
                    static_chunk(tile, drive, out, t0, t1, safe(flags))
            store_outputs(tile, y, out, t0, t1)
        store_tile(tile, state, tile.state)
        if feedback:
            store_tile(tile, residual, tile.residual)

    return compiled(scan_tile)
