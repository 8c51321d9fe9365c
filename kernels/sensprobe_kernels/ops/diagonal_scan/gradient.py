"""The gradient of the recurrence: the adjoint of the state runs backward through time.

    g_t = 2 dy_t conj(C) + conj(A) g_{t+1}     the gradient of y and later states in h_t
    du_t = Re(sum_n conj(B_n) g_t)     dB = sum_t u_t g_t     dC = sum_t 2 dy_t conj(h_t)
    dA = sum_t g_t conj(h_{t-1})

The gradient in a complex number is the one in its real part plus i times that in its imaginary
part, as autograd has it. Rounding passes gradients as if it were not there (straight through,
Bengio et al. 2013, arXiv 1308.3432): h is the state as the forward pass stored it. Trajectories are
not kept: there is a checkpoint of the state before every chunk of steps, and the states between are
computed again, a chunk at a time.

Sums over time and sequences go chunk by chunk, then across lanes, then across tiles: a fixed order,
another than autograd's.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any, NamedTuple

from sensprobe_kernels.jit import compiled, inline, inline_optimised
from sensprobe_kernels.ops.diagonal_scan.job import Tile
from sensprobe_kernels.ops.diagonal_scan.steps import PAIR, ROW, empty_sum, row
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
    load_inputs,
    store_outputs,
)
from sensprobe_kernels.quantize.spec import EXACT, GROUP, TENSOR, Flags, exactly, safe
from sensprobe_kernels.simd.vector import LANES, load, store, summed

SUMS = 6
"""Numbers that are summed over time for each state: dA, dB and dC / 2, real and imaginary."""


class Work(NamedTuple):
    """Scratch of one tile, zero at first.

    states      (CHUNK + 1, heads of the tile, n, 2, 16), of a chunk
    adjoint     (heads of the tile, n, 2, 16), g of the step after
    sums        (heads of the tile, n, SUMS, 16)
    drive, slope, out   u, dy and du as `transfer` lays them out
    """

    states: Any
    adjoint: Any
    sums: Any
    drive: Any
    slope: Any
    out: Any


@inline
def _state(tile: Tile, work: Work, h: int, n: int, steps: int) -> None:
    """Steps backward of one complex state; adds its part of du to `out`."""
    c, p = (h * tile.job.n + n) * ROW, ((h - tile.h0) * tile.job.n + n) * PAIR
    w, to, size = row(tile, c), p // PAIR * SUMS * LANES, tile.state.size
    c_re, c_im = w.c_re + w.c_re, w.c_im + w.c_im
    g_re, g_im = load(work.adjoint, p), load(work.adjoint, p + LANES)
    dA_re, dA_im = load(work.sums, to), load(work.sums, to + LANES)
    dB_re, dB_im = load(work.sums, to + 2 * LANES), load(work.sums, to + 3 * LANES)
    dC_re, dC_im = load(work.sums, to + 4 * LANES), load(work.sums, to + 5 * LANES)
    for back in range(steps):
        i = steps - 1 - back
        at, before = place(tile, h, i), i * size + p
        now = before + size
        dy, u = load(work.slope, at), load(work.drive, at)
        dC_re = dC_re + dy * load(work.states, now)
        dC_im = dC_im - dy * load(work.states, now + LANES)
        g_re, g_im = g_re + c_re * dy, g_im - c_im * dy
        store(work.out, at, load(work.out, at) + (w.b_re * g_re + w.b_im * g_im))
        re, im = load(work.states, before), load(work.states, before + LANES)
        dA_re, dA_im = dA_re + (g_re * re + g_im * im), dA_im + (g_im * re - g_re * im)
        dB_re, dB_im = dB_re + u * g_re, dB_im + u * g_im
        g_re, g_im = w.a_re * g_re + w.a_im * g_im, w.a_re * g_im - w.a_im * g_re
    store(work.adjoint, p, g_re)
    store(work.adjoint, p + LANES, g_im)
    store(work.sums, to, dA_re)
    store(work.sums, to + LANES, dA_im)
    store(work.sums, to + 2 * LANES, dB_re)
    store(work.sums, to + 3 * LANES, dB_im)
    store(work.sums, to + 4 * LANES, dC_re)
    store(work.sums, to + 5 * LANES, dC_im)


@inline_optimised
def _backward(tile: Tile, work: Work, steps: int) -> None:
    """All states of a chunk of steps, backward."""
    for h in range(tile.h0, tile.h1):
        for i in range(steps):
            store(work.out, place(tile, h, i), empty_sum())
        for n in range(tile.job.n):
            _state(tile, work, h, n, steps)


@cache
def build_gradient(flags: Flags) -> Callable[..., None]:
    """The compiled gradient of a tile, for the flags of the scan that it belongs to.

    It takes u, dy and du flat, the scan's Tile with its checkpoints, Work, and an array for the
    sums (heads of the tile, n, SUMS), added up over the tile's sequences.
    """
    span, feedback = flags.span, flags.feedback

    def scan_back(u: Any, dy: Any, du: Any, tile: Tile, work: Work, sums: Any) -> None:
        size = tile.state.size
        chunks = -(-tile.job.length // CHUNK)
        for back in range(chunks):
            chunk = chunks - 1 - back
            t0, t1 = chunk * CHUNK, min((chunk + 1) * CHUNK, tile.job.length)
            copy(tile.checkpoints, chunk * size, tile.state, 0, size)
            if feedback:
                copy(tile.residual_checkpoints, chunk * size, tile.residual, 0, size)
            load_inputs(tile, u, work.drive, t0, t1)
            load_inputs(tile, dy, work.slope, t0, t1)
            copy(tile.state, 0, work.states, 0, size)
            for t in range(t0, t1):
                drive, out = work.drive[(t - t0) * LANES :], work.out[(t - t0) * LANES :]
                if span == EXACT:
                    exact_chunk(tile, drive, out, t, t + 1, exactly(flags))
                elif span == GROUP:
                    group_chunk(tile, drive, out, t, t + 1, flags)
                elif span == TENSOR:
                    tensor_chunk(tile, drive, out, t, t + 1, flags)
                else:
                    static_chunk(tile, drive, out, t, t + 1, safe(flags))
                copy(tile.state, 0, work.states, (t - t0 + 1) * size, size)
            _backward(tile, work, t1 - t0)
            store_outputs(tile, du, work.out, t0, t1)
        for i in range(sums.size):
            sums[i] = summed(load(work.sums, i * LANES))

    return compiled(scan_back)
