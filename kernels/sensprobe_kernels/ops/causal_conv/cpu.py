"""The short causal convolution with a rounded window, on the CPU, bit for bit the reference."""

from __future__ import annotations

import numpy as np

from sensprobe_kernels.ops.causal_conv.gradient import Adjoint, build_gradient
from sensprobe_kernels.ops.causal_conv.units import Filters, build
from sensprobe_kernels.ops.selective_scan.cpu import (
    Run,
    narrowed,
    pieces_of,
    prepare,
    result_of,
    tiled,
    widened,
)
from sensprobe_kernels.quantize.spec import Array, Spec
from sensprobe_kernels.simd.vector import LANES
from sensprobe_kernels.threads import scratch, spread_out


def convolve(
    x: Array,
    weight: Array,
    bias: Array | None,
    spec: Spec,
    state: Array,
    step: int,
    threads: int,
) -> tuple[Array, Array]:
    """y (batch, length, channels) and the window (batch, channels, K - 1) after the end.

    x: (batch, length, channels), none of it 0. weight: (channels, K). bias: (channels,). A scale of
    `spec` is dense, (channels, K - 1). For the rest see `selective_scan.cpu.prepare`.
    """
    run, filters = _prepared(x, weight, bias, spec, state, step)
    compiled = build(run.state)

    def work(start: int, stop: int) -> None:
        compiled(run.job, run.given, filters, start, stop)

    spread_out(work, pieces_of(run, threads), threads)
    y, after, _ = result_of(run)
    return y[:, :, 0], after[:, 0]


def gradient(
    x: Array, weight: Array, spec: Spec, state: Array, step: int, dy: Array, threads: int
) -> tuple[Array, Array, Array]:
    """The gradient of sum(y · dy) in x, weight and bias, of what `convolve` was given. dy: as y."""
    run, filters = _prepared(x, weight, None, spec, state, step)
    job, (channels, taps) = run.job, weight.shape
    rows = job.batch * job.tiles * LANES
    adjoint = Adjoint(
        widened(dy[:, :, None], repeat=False).reshape(-1),
        scratch(run.given.x.size),
        scratch(rows * taps),
        scratch(rows),
    )
    compiled = build_gradient(run.state)

    def work(start: int, stop: int) -> None:
        compiled(job, run.given, filters, adjoint, start, stop)

    spread_out(work, pieces_of(run, threads), threads)

    def summed(sums: Array) -> Array:
        """Of all sequences: (channels, numbers of a tile and lane)."""
        tiles = sums.reshape(job.batch, job.tiles, -1, LANES).sum(axis=0)
        return np.ascontiguousarray(tiles.swapaxes(1, 2).reshape(job.tiles * LANES, -1)[:channels])

    dx = narrowed(adjoint.dx, run.shape)
    return dx[:, :, 0], summed(adjoint.dweight), summed(adjoint.dbias)[:, 0]


def _prepared(
    x: Array, weight: Array, bias: Array | None, spec: Spec, state: Array, step: int
) -> tuple[Run, Filters]:
    """A call of the kernel, and its filters in tiles."""
    batch, length, channels = x.shape
    none, unread = np.zeros((batch, length, 1, 0), np.float32), np.zeros((0, 0, 0), np.float32)
    run = prepare(x[:, :, None], unread, unread, none, none, spec, state[:, None], None, step)
    silent = np.full(channels, -0.0, np.float32)
    return run, Filters(
        tiled(weight[None, None]).reshape(-1),
        tiled((silent if bias is None else bias)[None, None, :, None]).reshape(-1),
    )
