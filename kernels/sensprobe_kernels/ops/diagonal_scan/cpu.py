"""The diagonal complex recurrence with a rounded state, on the CPU, bit for bit the reference.

    h_t = store(A h_{t-1} + B u_t),   y_t = 2 Re(sum_n C_n h_{t,n})

Plain numpy arrays and a `Spec` in, arrays out. Sixteen sequences share a vector register: no sum
is reordered and nothing contracted, so a sequence's result depends on no other and on no thread.
Functions are compiled on first use for the flags at hand (seconds, once a machine) and cached.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from sensprobe_kernels.ops.diagonal_scan.gradient import SUMS, Work, build_gradient
from sensprobe_kernels.ops.diagonal_scan.job import Job, Tile
from sensprobe_kernels.ops.diagonal_scan.replay import READY
from sensprobe_kernels.ops.diagonal_scan.steps import IN_A_WORD, ROW, SCALE
from sensprobe_kernels.ops.diagonal_scan.tiles import build
from sensprobe_kernels.ops.diagonal_scan.transfer import CHUNK, LINE
from sensprobe_kernels.quantize.rounding import STOCHASTIC
from sensprobe_kernels.quantize.spec import (
    FUSED,
    GROUP,
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
FEW_HEADS = 4
"""Heads in a tile whose gradient is asked for, so that the states of a chunk stay in the cache."""
_NONE = np.zeros(0, np.float32)


class Run(NamedTuple):
    """One call of the kernel: its inputs, the key of the compiled function, the tiles of work."""

    u: Array  # (batch, length, heads)
    state: Array
    residual: Array
    flags: Flags
    tiles: list[Tile]
    n: int
    keep: bool  # there are checkpoints


def prepare(
    u: Array,
    coefficients: tuple[Array, Array, Array],
    spec: Spec,
    state: Array,
    residual: Array | None,
    step: int,
    threads: int,
    keep: bool = False,
) -> Run:
    """Prepare a call of the kernel, for so many threads.

    u: (batch, length, heads). coefficients: A, B, C as (heads, n, 2). state and residual:
    (batch, heads, n, 2), changed in place by `scan`; a residual, allowed with NEAREST only, turns
    error feedback on. `step` counts the steps taken before. With `keep` there are checkpoints of
    the state every CHUNK steps, for `gradient`. All float32, C-contiguous.
    """
    batch, length, heads = u.shape
    n, rest = coefficients[0].shape[1], _NONE if residual is None else residual.reshape(-1)
    flags = spec._replace(feedback=residual is not None).apart_along(1).flags()
    flags = flags._replace(quotient=_quotient(spec, flags, coefficients))
    job = Job(batch, length, heads, n, step, spec.first, spec.settings(n))
    coef, constants = _rows(coefficients, spec), np.array(spec.constants(), np.float32)
    wide = heads if spec.span == TENSOR else _tile_heads(job, threads, FEW_HEADS if keep else HEADS)
    chunks = -(-length // CHUNK) if keep else 0

    saved = length * _saved_a_head(job, flags) if keep else 0
    drawn = length * _drawn_a_head(job, flags) if keep else 0

    def tile(b0: int, h0: int) -> Tile:
        h1 = min(h0 + wide, heads)
        size = chunks * (h1 - h0) * n * 2 * LANES
        return Tile(
            job, b0, h0, h1, coef, constants, _NONE, _NONE, scratch(size),
            scratch(size if rest.size else 0), scratch(saved * (h1 - h0)),
            scratch(drawn * (h1 - h0)),
        )  # fmt: skip

    there = u.size and n
    places = [(b0, h0) for b0 in range(0, batch, LANES) for h0 in range(0, heads, wide)]
    tiles = [tile(*place) for place in places] if there else []
    return Run(u, state, rest, flags, tiles, n, keep)


def scan(run: Run, threads: int) -> Array:
    """Run the recurrence; returns y (batch, length, heads). A run is scanned once: the state is
    overwritten."""
    y = lines(run.u.shape)
    compiled = build(run.flags, run.keep) if run.tiles else None

    def work(k: int, _: int) -> None:
        tile, chunk = _with_state(run.tiles[k], run.flags)
        assert compiled is not None
        compiled(
            run.u.reshape(-1),
            y.reshape(-1),
            run.state.reshape(-1),
            run.residual,
            tile,
            scratch(chunk),
            scratch(chunk),
        )

    spread_out(work, [(k, 0) for k in range(len(run.tiles))], threads)
    return y


def _with_state(tile: Tile, flags: Flags) -> tuple[Tile, int]:
    """The tile with scratch for a state of its own, and the size of its drive and out."""
    size = (tile.h1 - tile.h0) * tile.job.n * 2 * LANES
    own = tile._replace(state=scratch(size), residual=scratch(size if flags.feedback else 0))
    return own, (tile.h1 - tile.h0) * LINE


class Gradient(NamedTuple):
    """The gradient of sum(y · dy) in u, A, B and C, each of the shape of its argument."""

    u: Array
    A: Array
    B: Array
    C: Array


def gradient(run: Run, dy: Array, threads: int) -> Gradient:
    """The gradient of a run that was prepared with checkpoints and scanned. dy: as y."""
    du, (batch, _, heads) = np.zeros(run.u.shape, np.float32), run.u.shape
    sums = np.zeros((-(-batch // LANES), heads, run.n, SUMS), np.float32)
    compiled = build_gradient(run.flags) if run.tiles else None

    def work(k: int, _: int) -> None:
        tile, chunk = _with_state(run.tiles[k], run.flags)
        size = tile.state.size
        together = size if run.flags.span == TENSOR else run.n * 2 * LANES
        assert compiled is not None
        compiled(
            run.u.reshape(-1),
            dy.reshape(-1),
            du.reshape(-1),
            tile,
            Work(
                scratch((CHUNK + 1) * together), scratch(size), scratch(size // 2 * SUMS),
                scratch(chunk), scratch(chunk), scratch(chunk), scratch(CHUNK * READY * LANES),
            ),
            sums[tile.b0 // LANES, tile.h0 : tile.h1].reshape(-1),
        )  # fmt: skip

    spread_out(work, [(k, 0) for k in range(len(run.tiles))], threads)
    A, B, C = np.moveaxis(sums.sum(axis=0).reshape(heads, run.n, 3, 2), 2, 0)
    return Gradient(du, A, B, 2 * C)


def _saved_a_head(job: Job, flags: Flags) -> int:
    """Numbers that are saved of the dynamic scales of a head at a step."""
    groups = -(-job.n // job.state.group) if flags.span == GROUP else 0
    return groups * 2 * (3 if flags.asym else 1) * LANES


def _drawn_a_head(job: Job, flags: Flags) -> int:
    """Words that are saved of what random bits decided for a head at a step, where `replay` reads
    them."""
    drawn = flags.rounding == STOCHASTIC and flags.span != TENSOR and job.state.every == 1
    return -(-job.n // IN_A_WORD) * LANES if drawn else 0


def _tile_heads(job: Job, threads: int, most: int) -> int:
    """Heads a tile: `most`, fewer where that leaves threads without work."""
    blocks = -(-job.batch // LANES)
    return max(1, min(most, job.heads * blocks // max(threads, 1)))


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
