"""The states of a chunk of steps once more, each of them kept, for the gradient.

Dynamic scales of the forward pass are saved, one a step, head and group, so that states need
nothing of each other and a few go through all steps in registers, as in `blocks`. What random bits
decided is saved too, two bits a state, which takes a fraction of the time of drawing them again.
"""

from __future__ import annotations

from typing import Any

from sensprobe_kernels.jit import inline, inline_optimised
from sensprobe_kernels.ops.diagonal_scan.blocks import BLOCK
from sensprobe_kernels.ops.diagonal_scan.job import Tile
from sensprobe_kernels.ops.diagonal_scan.steps import (
    PAIR,
    ROW,
    ComplexState,
    Row,
    Scales,
    advanced,
    drawn_at,
    known_scales,
    load_state,
    rounded,
    row,
    saved_numbers,
    saved_place,
    store_state,
)
from sensprobe_kernels.quantize.lanes import Scale, scale_from
from sensprobe_kernels.quantize.scales import reciprocal
from sensprobe_kernels.quantize.spec import GROUP, PEAK, Flags
from sensprobe_kernels.simd.vector import LANES, Floats, load, negative, spread, store

READY = 12
"""Numbers of the scales of a group at one step: two of Scale."""


@inline
def _saved(tile: Tile, at: int, flags: Flags) -> Scale:
    scale = load(tile.scales, at)
    inverse, rest = reciprocal(scale)
    high = spread(tile.numbers, PEAK)
    found = scale_from(scale, inverse, rest, negative(high), high, flags)
    if flags.asym:
        low, high = load(tile.scales, at + LANES), load(tile.scales, at + 2 * LANES)
        return Scale(scale, inverse, rest, low, high, found.shift)
    return found


@inline
def _put(ready: Any, at: int, scale: Scale) -> None:
    store(ready, at, scale.scale)
    store(ready, at + LANES, scale.inverse)
    store(ready, at + 2 * LANES, scale.rest)
    store(ready, at + 3 * LANES, scale.low)
    store(ready, at + 4 * LANES, scale.high)
    store(ready, at + 5 * LANES, scale.shift)


@inline
def _got(ready: Any, at: int) -> Scale:
    return Scale(
        load(ready, at),
        load(ready, at + LANES),
        load(ready, at + 2 * LANES),
        load(ready, at + 3 * LANES),
        load(ready, at + 4 * LANES),
        load(ready, at + 5 * LANES),
    )


@inline
def _step(
    tile: Tile, h: int, n: int, t: int, w: Row, held: ComplexState, u: Floats, s: Scales,
    flags: Flags,
) -> ComplexState:  # fmt: skip
    re, im = advanced(tile, w, held, u, flags)
    return rounded(tile, re, im, drawn_at(tile, n, h, t, flags), s.re, s.im, flags)


@inline
def _keep(states: Any, at: int, held: ComplexState) -> None:
    store(states, at, held.re)
    store(states, at + LANES, held.im)


@inline
def _states(
    tile: Tile, h: int, n: int, t0: int, t1: int, drive: Any, ready: Any, states: Any, four: bool,
    flags: Flags,
) -> None:  # fmt: skip
    """State n of the tile's one head, or n to n + 3, through all steps."""
    size, p, c = tile.state.size, n * PAIR, (h * tile.job.n + n) * ROW
    w0, h0 = row(tile, c), load_state(tile, p, flags)
    w1, w2, w3, h1, h2, h3 = w0, w0, w0, h0, h0, h0
    s0 = known_scales(tile, h, n, flags)
    s1, s2, s3 = s0, s0, s0
    if four:
        w1, w2, w3 = row(tile, c + ROW), row(tile, c + 2 * ROW), row(tile, c + 3 * ROW)
        h1, h2 = load_state(tile, p + PAIR, flags), load_state(tile, p + 2 * PAIR, flags)
        h3 = load_state(tile, p + 3 * PAIR, flags)
        s1, s2 = known_scales(tile, h, n + 1, flags), known_scales(tile, h, n + 2, flags)
        s3 = known_scales(tile, h, n + 3, flags)
    for t in range(t0, t1):
        i = t - t0
        u, to = load(drive, i * LANES), (i + 1) * size + p
        if flags.span == GROUP:
            at = i * READY * LANES
            s0 = Scales(_got(ready, at), _got(ready, at + READY // 2 * LANES))
            s1, s2, s3 = s0, s0, s0
        h0 = _step(tile, h, n, t, w0, h0, u, s0, flags)
        _keep(states, to, h0)
        if four:
            h1 = _step(tile, h, n + 1, t, w1, h1, u, s1, flags)
            h2 = _step(tile, h, n + 2, t, w2, h2, u, s2, flags)
            h3 = _step(tile, h, n + 3, t, w3, h3, u, s3, flags)
            _keep(states, to + PAIR, h1)
            _keep(states, to + 2 * PAIR, h2)
            _keep(states, to + 3 * PAIR, h3)
    store_state(tile, p, h0, flags)
    if four:
        store_state(tile, p + PAIR, h1, flags)
        store_state(tile, p + 2 * PAIR, h2, flags)
        store_state(tile, p + 3 * PAIR, h3, flags)


@inline_optimised
def replay(tile: Tile, t0: int, t1: int, drive: Any, ready: Any, states: Any, flags: Flags) -> None:
    """Steps t0 to t1 of the tile's one head; `states` gets the state after each from its second row
    on, (steps + 1, n, 2, 16). `ready` is scratch, (CHUNK, READY, 16)."""
    h, group = tile.h0, tile.job.n
    if flags.span == GROUP:
        group = tile.job.state.group
    for n0 in range(0, tile.job.n, group):
        n1 = min(n0 + group, tile.job.n)
        if flags.span == GROUP:
            for t in range(t0, t1):
                at, to = saved_place(tile, h, n0, t, flags), (t - t0) * READY * LANES
                _put(ready, to, _saved(tile, at, flags))
                at += saved_numbers(flags) * LANES
                _put(ready, to + READY // 2 * LANES, _saved(tile, at, flags))
        whole = n0 + (n1 - n0) // BLOCK * BLOCK
        for n in range(n0, whole, BLOCK):
            _states(tile, h, n, t0, t1, drive, ready, states, True, flags)
        for n in range(whole, n1):
            _states(tile, h, n, t0, t1, drive, ready, states, False, flags)
