"""The gradient of the recurrence: the adjoint of the state runs backward through time.

    g_t = 2 dy_t conj(C) + conj(A) g_{t+1}     the gradient of y and later states in h_t
    du_t = Re(sum_n conj(B_n) g_t)     dB = sum_t u_t g_t     dC = sum_t 2 dy_t conj(h_t)
    dA = sum_t g_t conj(h_{t-1})

The gradient in a complex number is the one in its real part plus i times that in its imaginary
part, as autograd has it. Rounding passes gradients as if it were not there (straight through,
Bengio et al. 2013, arXiv 1308.3432): h is the state as the forward pass stored it. Trajectories are
not kept: there is a checkpoint of the state before every chunk of steps, and the states between are
computed again, a chunk at a time, by what was saved of scales and random bits (see `replay`).

Sums over time and sequences go chunk by chunk, then across lanes, then across tiles: a fixed order,
another than autograd's.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any, NamedTuple

from sensprobe_kernels.jit import compiled, inline, inline_optimised
from sensprobe_kernels.ops.diagonal_scan.job import Tile
from sensprobe_kernels.ops.diagonal_scan.replay import replay
from sensprobe_kernels.ops.diagonal_scan.steps import PAIR, ROW, Row, empty_sum, row
from sensprobe_kernels.ops.diagonal_scan.tiles import (
    copy,
    exact_chunk,
    group_chunk,
    place,
    static_chunk,
    tensor_chunk,
)
from sensprobe_kernels.ops.diagonal_scan.transfer import (
    CHUNK,
    LINE,
    load_inputs,
    store_outputs,
)
from sensprobe_kernels.quantize.spec import EXACT, GROUP, TENSOR, Flags, exactly, safe
from sensprobe_kernels.simd.vector import LANES, Floats, fused, load, negative, store, summed

SUMS = 6
"""Numbers that are summed over time for each state: dA, dB and dC / 2, real and imaginary."""


class Work(NamedTuple):
    """Scratch of one tile, zero at first.

    states      (CHUNK + 1, heads that go together, n, 2, 16), of a chunk
    adjoint     (heads of the tile, n, 2, 16), g of the step after
    sums        (heads of the tile, n, SUMS, 16)
    drive, slope, out   u, dy and du as `transfer` lays them out
    ready       (CHUNK, READY, 16), see `replay`
    """

    states: Any
    adjoint: Any
    sums: Any
    drive: Any
    slope: Any
    out: Any
    ready: Any


class Pair(NamedTuple):
    """A complex state."""

    re: Floats
    im: Floats


class Adjoint(NamedTuple):
    """What one complex state carries backward: g, and the sums dA, dB and dC / 2."""

    g_re: Floats
    g_im: Floats
    dA_re: Floats
    dA_im: Floats
    dB_re: Floats
    dB_im: Floats
    dC_re: Floats
    dC_im: Floats


@inline
def _load(work: Work, p: int) -> Adjoint:
    """The adjoint of the state at place p of the head's."""
    at = p // PAIR * SUMS * LANES
    return Adjoint(
        load(work.adjoint, p),
        load(work.adjoint, p + LANES),
        load(work.sums, at),
        load(work.sums, at + LANES),
        load(work.sums, at + 2 * LANES),
        load(work.sums, at + 3 * LANES),
        load(work.sums, at + 4 * LANES),
        load(work.sums, at + 5 * LANES),
    )


@inline
def _store(work: Work, p: int, of: Adjoint) -> None:
    at = p // PAIR * SUMS * LANES
    store(work.adjoint, p, of.g_re)
    store(work.adjoint, p + LANES, of.g_im)
    store(work.sums, at, of.dA_re)
    store(work.sums, at + LANES, of.dA_im)
    store(work.sums, at + 2 * LANES, of.dB_re)
    store(work.sums, at + 3 * LANES, of.dB_im)
    store(work.sums, at + 4 * LANES, of.dC_re)
    store(work.sums, at + 5 * LANES, of.dC_im)


@inline
def _pair(states: Any, at: int) -> Pair:
    return Pair(load(states, at), load(states, at + LANES))


@inline
def _back(
    w: Row, of: Adjoint, now: Pair, before: Pair, dy: Floats, u: Floats, du: Floats
) -> tuple[Adjoint, Floats]:
    """One step backward of a state that was `before` and became `now`; and du with its part."""
    dC_re, dC_im = fused(dy, now.re, of.dC_re), fused(negative(dy), now.im, of.dC_im)
    g_re, g_im = fused(w.c_re, dy, of.g_re), fused(negative(w.c_im), dy, of.g_im)
    du = fused(w.b_im, g_im, fused(w.b_re, g_re, du))
    re, im = before.re, before.im
    dA_re = fused(g_im, im, fused(g_re, re, of.dA_re))
    dA_im = fused(negative(g_re), im, fused(g_im, re, of.dA_im))
    dB_re, dB_im = fused(u, g_re, of.dB_re), fused(u, g_im, of.dB_im)
    left_re = fused(w.a_im, g_im, w.a_re * g_re)
    left_im = fused(negative(w.a_im), g_re, w.a_re * g_im)
    return Adjoint(left_re, left_im, dA_re, dA_im, dB_re, dB_im, dC_re, dC_im), du


@inline
def _twice_c(w: Row) -> Row:
    return Row(w.a_re, w.a_im, w.b_re, w.b_im, w.c_re + w.c_re, w.c_im + w.c_im)


@inline
def _states(tile: Tile, work: Work, h: int, n: int, steps: int, two: bool) -> None:
    """State n of head h, or n and n + 1, through a chunk of steps, backward."""
    size, c = tile.state.size, (h * tile.job.n + n) * ROW
    p = ((h - tile.h0) * tile.job.n + n) * PAIR
    w0, one = _twice_c(row(tile, c)), _load(work, p)
    now = _pair(work.states, steps * size + p)
    w1, other, now1 = w0, one, now
    if two:
        w1, other = _twice_c(row(tile, c + ROW)), _load(work, p + PAIR)
        now1 = _pair(work.states, steps * size + p + PAIR)
    for back in range(steps):
        i = steps - 1 - back
        at = place(tile, h, i)
        dy, u, du = load(work.slope, at), load(work.drive, at), load(work.out, at)
        before = _pair(work.states, i * size + p)
        one, du = _back(w0, one, now, before, dy, u, du)
        now = before
        if two:
            before = _pair(work.states, i * size + p + PAIR)
            other, du = _back(w1, other, now1, before, dy, u, du)
            now1 = before
        store(work.out, at, du)
    _store(work, p, one)
    if two:
        _store(work, p + PAIR, other)


@inline_optimised
def _backward(tile: Tile, work: Work, steps: int) -> None:
    """All states through a chunk of steps, backward, two side by side."""
    even = tile.job.n - tile.job.n % 2
    for h in range(tile.h0, tile.h1):
        for i in range(steps):
            store(work.out, place(tile, h, i), empty_sum())
        for n in range(0, even, 2):
            _states(tile, work, h, n, steps, True)
        if even < tile.job.n:
            _states(tile, work, h, even, steps, False)


@inline
def _part(tile: Tile, work: Work, h0: int, h1: int) -> tuple[Tile, Work]:
    """The part of a tile and of its work that is some heads'."""
    each = tile.job.n * PAIR
    a, b = (h0 - tile.h0) * each, (h1 - tile.h0) * each
    s, line = SUMS * LANES, (h0 - tile.h0) * LINE
    heads = tile.h1 - tile.h0
    saved, drawn = tile.scales.size // heads, tile.draws.size // heads
    residual = tile.residual[a:b] if tile.residual.size else tile.residual
    part = Tile(
        tile.job, tile.b0, h0, h1, tile.coef, tile.numbers, tile.state[a:b], residual,
        tile.checkpoints, tile.residual_checkpoints,
        tile.scales[(h0 - tile.h0) * saved : (h1 - tile.h0) * saved],
        tile.draws[(h0 - tile.h0) * drawn : (h1 - tile.h0) * drawn],
    )  # fmt: skip
    return part, Work(
        work.states, work.adjoint[a:b], work.sums[a // PAIR * s : b // PAIR * s],
        work.drive[line:], work.slope[line:], work.out[line:], work.ready,
    )  # fmt: skip


@cache
def build_gradient(flags: Flags) -> Callable[..., None]:
    """The compiled gradient of a tile, for the flags of the scan that it belongs to.

    It takes u, dy and du flat, the scan's Tile with its checkpoints, Work, and an array for the
    sums (heads of the tile, n, SUMS), added up over the tile's sequences. Heads go through a chunk
    one after another, so that its states stay in the cache, unless one range spans them all.
    """
    span, feedback = flags.span, flags.feedback

    def scan_back(u: Any, dy: Any, du: Any, tile: Tile, work: Work, sums: Any) -> None:
        heads = tile.h1 - tile.h0
        wide = heads if span == TENSOR else 1
        size = wide * tile.job.n * PAIR
        chunks = -(-tile.job.length // CHUNK)
        for back in range(chunks):
            chunk = chunks - 1 - back
            t0, t1 = chunk * CHUNK, min((chunk + 1) * CHUNK, tile.job.length)
            load_inputs(tile, u, work.drive, t0, t1)
            load_inputs(tile, dy, work.slope, t0, t1)
            for k in range(0, heads, wide):
                part, own = _part(tile, work, tile.h0 + k, tile.h0 + k + wide)
                start = chunk * tile.state.size + k // wide * size
                copy(tile.checkpoints, start, part.state, 0, size)
                if feedback:
                    copy(tile.residual_checkpoints, start, part.residual, 0, size)
                copy(part.state, 0, work.states, 0, size)
                if span != TENSOR and tile.job.state.every == 1:
                    replay(part, t0, t1, own.drive, work.ready, work.states, flags)
                    _backward(part, own, t1 - t0)
                    continue
                for t in range(t0, t1):
                    drive, out = own.drive[(t - t0) * LANES :], own.out[(t - t0) * LANES :]
                    if span == EXACT:
                        exact_chunk(part, drive, out, t, t + 1, exactly(flags))
                    elif span == GROUP:
                        group_chunk(part, drive, out, t, t + 1, flags)
                    elif span == TENSOR:
                        tensor_chunk(part, drive, out, t, t + 1, flags)
                    else:
                        static_chunk(part, drive, out, t, t + 1, safe(flags))
                    copy(part.state, 0, work.states, (t - t0 + 1) * size, size)
                _backward(part, own, t1 - t0)
            store_outputs(tile, du, work.out, t0, t1)
        for i in range(sums.size):
            sums[i] = summed(load(work.sums, i * LANES))

    return compiled(scan_back)
