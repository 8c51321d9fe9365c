"""The short causal convolution with a rounded window, on the CPU, bit for bit the reference."""

from __future__ import annotations

import numpy as np

from sensprobe_kernels.ops.causal_conv.units import Filters, build
from sensprobe_kernels.ops.selective_scan.cpu import Run, pieces_of, prepare, result_of, tiled
from sensprobe_kernels.quantize.spec import Array, Spec
from sensprobe_kernels.threads import spread_out


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
    batch, length, channels = x.shape
    none, unread = np.zeros((batch, length, 1, 0), np.float32), np.zeros((0, 0, 0), np.float32)
    run: Run = prepare(x[:, :, None], unread, unread, none, none, spec, state[:, None], None, step)
    silent = np.full(channels, -0.0, np.float32)
    filters = Filters(
        tiled(weight[None, None]).reshape(-1),
        tiled((silent if bias is None else bias)[None, None, :, None]).reshape(-1),
    )
    compiled = build(run.state)

    def work(start: int, stop: int) -> None:
        compiled(run.job, run.given, filters, start, stop)

    spread_out(work, pieces_of(run, threads), threads)
    y, after, _ = result_of(run)
    return y[:, :, 0], after[:, 0]
