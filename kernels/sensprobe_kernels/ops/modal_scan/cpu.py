"""The diagonal complex recurrence of S5 with a rounded state, on the CPU, to the bit the reference.

    h_t = store(A h_{t-1} + v_t)

Plain numpy arrays and a `Spec` in, arrays out. Nothing is summed over modes, so sixteen numbers of
one sequence share a vector register: no number moves in memory. A few sequences take turns at every
step, whose scales are then computed together. Compiled on first use and cached.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any, NamedTuple

import numpy as np

from sensprobe_kernels.jit import compiled
from sensprobe_kernels.ops.modal_scan.steps import Job, Tile, exact_step, line, put, rounded_step
from sensprobe_kernels.quantize.rounding import STOCHASTIC
from sensprobe_kernels.quantize.spec import (
    EXACT,
    FUSED,
    INTEGER,
    SHIFTED,
    STATIC,
    Array,
    Flags,
    Spec,
    exactly,
)
from sensprobe_kernels.simd.vector import (
    LANES,
    every,
    fused,
    load,
    negative,
    neighbours,
)
from sensprobe_kernels.threads import lines, scratch, spread_out

TOGETHER = 8
"""Most sequences that take turns: with more, rows a power of two apart would push each other out of
the first-level cache."""
_NONE = np.zeros(0, np.float32)
_ZERO = np.float32(0.0)


class Run(NamedTuple):
    """One call of the kernel.

    v: (batch, length, 2 heads n), real and imaginary numbers in turn. A: (heads, n, 2). start:
    (batch, heads, n, 2), the state before. All float32, C-contiguous. `step` counts the steps
    taken before.
    """

    v: Array
    A: Array
    start: Array
    spec: Spec
    step: int


def scan(run: Run, residual: Array | None, threads: int) -> None:
    """Write the states after every step over v. A residual of the start's shape, allowed with
    NEAREST only, turns error feedback on and is changed in place."""
    batch, length, count = run.v.shape
    heads, n, _ = run.A.shape
    spec = run.spec._replace(feedback=residual is not None)
    flags = _quotient(spec)
    job = Job(length, heads, n, run.step, spec.first, spec.settings(n))
    along, across = _coefficients(run.A)
    numbers, pitch = np.array(spec.constants(), np.float32), len(along)
    known = _known(spec, (heads, n), pitch) if spec.span == STATIC else _NONE
    step_by_step = build(flags) if run.v.size else None

    def work(b0: int, b1: int) -> None:
        rows = (b1 - b0) * pitch
        drawn = rows if flags.rounding == STOCHASTIC else 0
        tile = Tile(
            job, b0, b1, pitch, along, across, known, numbers, scratch(rows),
            scratch(rows if flags.feedback else 0), scratch(drawn), scratch(8 * LANES),
            scratch(12 * LANES),
        )  # fmt: skip
        mine = tile.state.reshape(-1, pitch)[:, :count]
        mine[...] = run.start[b0:b1].reshape(-1, count)
        if residual is not None:
            left = tile.residual.reshape(-1, pitch)[:, :count]
            left[...] = residual[b0:b1].reshape(-1, count)
        assert step_by_step is not None
        step_by_step(run.v.reshape(-1), tile)
        if residual is not None:
            residual[b0:b1].reshape(-1, count)[...] = left

    spread_out(work, _pieces(batch, threads) if step_by_step else [], threads)


def _quotient(spec: Spec) -> Flags:
    """The flags, with the fastest way to divide by a dynamic scale that gives a division's bits."""
    flags = spec.flags()
    shifts = flags.quotient == FUSED and spec.code == INTEGER and spec.span != STATIC
    return flags._replace(quotient=SHIFTED) if shifts else flags


def _pieces(batch: int, threads: int) -> list[tuple[int, int]]:
    """Sequences that go together, fewer where that leaves threads without work."""
    each = max(1, min(TOGETHER, -(-batch // max(threads, 1))))
    return [(b, min(b + each, batch)) for b in range(0, batch, each)]


def _coefficients(A: Array) -> tuple[Array, Array]:
    """`along` and `across` of a Tile, whole lines."""
    pitch = -(-A.size // LANES) * LANES + LANES
    along, across = scratch(pitch), scratch(pitch)
    along[: A.size] = np.repeat(A[..., 0].reshape(-1), 2)
    across[0 : A.size : 2] = -A[..., 1].reshape(-1)
    across[1 : A.size : 2] = A[..., 1].reshape(-1)
    return along, across


def _known(spec: Spec, shape: tuple[int, int], pitch: int) -> Array:
    """`known` of a Tile."""
    found = spec.known((*shape, 2)).reshape(5, -1)
    return np.pad(found, ((0, 0), (0, pitch - found.shape[1]))).reshape(-1)


@cache
def build(flags: Flags) -> Callable[..., None]:
    """The compiled scan of a tile for one set of flags. It takes v flat and a Tile, and releases
    the interpreter's lock."""
    exact = flags.span == EXACT

    def scan_tile(v: Any, tile: Tile) -> None:
        job = tile.job
        for t in range(job.length):
            if not exact and (job.step + t + 1) % job.state.every == 0:
                rounded_step(tile, t, v, flags)
            else:
                exact_step(tile, t, v, exactly(flags))

    return compiled(scan_tile)


# -- the gradient ---------------------------------------------------------------------------------


def gradient(
    states: Array, A: Array, start: Array, slope: Array, threads: int
) -> tuple[Array, Array]:
    """The gradients of sum(states · slope) in v and A, for what `scan` returned.

    g_t = slope_t + conj(A) g_{t+1}; dv_t = g_t; dA = sum_t g_t conj(h_{t-1}). The gradient in a
    complex number is the one in its real part plus i times that in its imaginary part. Rounding
    passes gradients straight through (Bengio et al. 2013, arXiv 1308.3432). Sums over time go
    backward within a sequence, then over sequences.
    """
    batch, length, count = states.shape
    dv, sums = lines(states.shape), np.zeros((batch, 2, count), np.float32)
    along, across = _coefficients(A)
    back = build_gradient() if states.size else None

    def work(b0: int, b1: int) -> None:
        assert back is not None
        given = (states.reshape(-1), start.reshape(-1), slope.reshape(-1))
        back(*given, dv.reshape(-1), sums.reshape(-1), along, across, b0, b1, length, count)

    spread_out(work, _pieces(batch, threads) if back else [], threads)
    same, turned = sums.sum(0).reshape(2, *A.shape)
    return dv, np.stack([same[..., 0] + same[..., 1], turned[..., 0] - turned[..., 1]], axis=-1)


@cache
def build_gradient() -> Callable[..., None]:
    """The compiled gradient of sequences b0 to b1."""

    def scan_back(
        states: Any, start: Any, slope: Any, dv: Any, sums: Any, along: Any, across: Any,
        b0: int, b1: int, length: int, count: int,
    ) -> None:  # fmt: skip
        for b in range(b0, b1):
            for i in range(0, count, LANES):
                left = count - i
                re, im = load(along, i), negative(load(across, i))
                carried, same, turned = every(_ZERO), every(_ZERO), every(_ZERO)
                for back in range(length):
                    t = length - 1 - back
                    at = (b * length + t) * count + i
                    g = line(slope, at, left) + carried
                    put(dv, at, left, g)
                    h = line(states, at - count, left) if t else line(start, b * count + i, left)
                    same, turned = fused(g, h, same), fused(neighbours(g), h, turned)
                    carried = fused(re, g, im * neighbours(g))
                at = b * 2 * count + i
                put(sums, at, left, same)
                put(sums, at + count, left, turned)

    return compiled(scan_back)
