"""The diagonal complex recurrence with a rounded state, on the CPU, bit for bit the reference.

    h_t = store(A h_{t-1} + B u_t),   y_t = 2 Re(sum_n C_n h_{t,n})

Plain numpy arrays and a `Spec` in, arrays out. Sixteen sequences share a vector register: no sum
is reordered and nothing contracted, so a sequence's result depends on no other and on no thread.
Functions are compiled on first use for the flags at hand (seconds, once a machine) and cached.
"""

from __future__ import annotations

import numpy as np

from sensprobe_kernels.ops.diagonal_scan.job import Job, Tile
from sensprobe_kernels.ops.diagonal_scan.steps import ROW, SCALE
from sensprobe_kernels.ops.diagonal_scan.tiles import build
from sensprobe_kernels.ops.diagonal_scan.transfer import LINE
from sensprobe_kernels.quantize.spec import (
    FUSED,
    INTEGER,
    SHIFTED,
    STATIC,
    TENSOR,
    Array,
    Flags,
    Spec,
)
from sensprobe_kernels.simd.vector import LANES
from sensprobe_kernels.threads import lines, scratch, spread_out

HEADS = 16
"""Most heads in a tile: one line of 64 bytes of u and y."""


def scan(
    u: Array,
    coefficients: tuple[Array, Array, Array],
    spec: Spec,
    state: Array,
    residual: Array | None,
    step: int,
    threads: int,
) -> Array:
    """Run the recurrence; returns y (batch, length, heads), changes state and residual in place.

    u: (batch, length, heads). coefficients: A, B, C as (heads, n, 2). state and residual:
    (batch, heads, n, 2); a residual, allowed with NEAREST only, turns error feedback on. `step`
    counts the steps taken before. All float32, C-contiguous.
    """
    batch, length, heads = u.shape
    n = coefficients[0].shape[1]
    y = lines(u.shape)
    if not (batch and length and heads and n):
        return y
    job = Job(batch, length, heads, n, step, spec.first, spec.settings(n))
    rest = np.zeros(0, np.float32) if residual is None else residual.reshape(-1)
    flags = spec._replace(feedback=residual is not None).apart_along(1).flags()
    run = build(flags._replace(quotient=_quotient(spec, flags, coefficients)))
    coef, constants = _rows(coefficients, spec), np.array(spec.constants(), np.float32)
    wide = heads if spec.span == TENSOR else _tile_heads(job, threads)

    def work(b0: int, h0: int) -> None:
        h1 = min(h0 + wide, heads)
        size = (h1 - h0) * n * 2 * LANES
        tile = Tile(
            job, b0, h0, h1, coef, constants, scratch(size), scratch(size if rest.size else 0)
        )
        chunk = (h1 - h0) * LINE
        run(
            u.reshape(-1),
            y.reshape(-1),
            state.reshape(-1),
            rest,
            tile,
            scratch(chunk),
            scratch(chunk),
        )

    tiles = [(b0, h0) for b0 in range(0, batch, LANES) for h0 in range(0, heads, wide)]
    spread_out(work, tiles, threads)
    return y


def _tile_heads(job: Job, threads: int) -> int:
    """Heads a tile: as many as fill a line, fewer where that leaves threads without work."""
    blocks = -(-job.batch // LANES)
    return max(1, min(HEADS, job.heads * blocks // max(threads, 1)))


def _quotient(spec: Spec, flags: Flags, coefficients: tuple[Array, Array, Array]) -> int:
    """The fastest way to divide by the scale and round that gives the bits of a division."""
    if flags.quotient != FUSED or spec.code != INTEGER:
        return flags.quotient
    bounded = spec.every == 1 and all((np.abs(x) <= 2**30).all() for x in coefficients)
    return SHIFTED if spec.span != STATIC or bounded else FUSED


def _rows(coefficients: tuple[Array, Array, Array], spec: Spec) -> Array:
    """The numbers that the inner loop reads for each complex state, side by side; see `steps`."""
    A, B, C = coefficients
    rows = np.zeros((*A.shape[:2], ROW), np.float32)
    rows[..., :SCALE] = np.concatenate([A, B, C], axis=-1)
    if spec.span == STATIC:
        rows[..., SCALE:] = np.concatenate(spec.known(A.shape), axis=-1)
    return rows.reshape(-1)
