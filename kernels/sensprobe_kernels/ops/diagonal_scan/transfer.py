"""Copies between arrays of the caller and tiles of sixteen sequences.

u, y   (batch, length, heads)         drive, out  (heads of the tile, CHUNK + 1, 16)
state  (batch, heads, n, 2)           tile.state  (heads of the tile, n, 2, 16)
"""

from __future__ import annotations

from typing import Any

from sensprobe_kernels.jit import inline
from sensprobe_kernels.ops.diagonal_scan.job import Tile
from sensprobe_kernels.simd.vector import LANES, transpose

CHUNK = 64
"""Steps whose inputs and outputs are transposed at a time."""

LINE = (CHUNK + 1) * LANES
"""Numbers a head takes in drive and out; one step more, to keep heads off one cache set."""


@inline
def load_tile(tile: Tile, whole: Any, part: Any) -> None:
    """(batch, heads, n, 2) -> (heads, n, 2, 16); places of missing sequences are left alone."""
    size = tile.job.n * 2
    for lane in range(min(LANES, tile.job.batch - tile.b0)):
        base = ((tile.b0 + lane) * tile.job.heads + tile.h0) * size
        for i in range((tile.h1 - tile.h0) * size):
            part[i * LANES + lane] = whole[base + i]


@inline
def store_tile(tile: Tile, whole: Any, part: Any) -> None:
    size = tile.job.n * 2
    for lane in range(min(LANES, tile.job.batch - tile.b0)):
        base = ((tile.b0 + lane) * tile.job.heads + tile.h0) * size
        for i in range((tile.h1 - tile.h0) * size):
            whole[base + i] = part[i * LANES + lane]


@inline
def load_inputs(tile: Tile, u: Any, drive: Any, t0: int, t1: int) -> None:
    """(batch, length, heads) -> (heads, steps, 16); places of missing sequences are left alone."""
    job, rows = tile.job, min(LANES, tile.job.batch - tile.b0)
    pitch = job.length * job.heads
    for t in range(t0, t1):
        at, to = (tile.b0 * job.length + t) * job.heads, (t - t0) * LANES
        for h in range(tile.h0, tile.h1, LANES):
            columns = min(LANES, tile.h1 - h)
            transpose(u, at + h, pitch, rows, columns, drive, to + (h - tile.h0) * LINE, LINE)


@inline
def store_outputs(tile: Tile, y: Any, out: Any, t0: int, t1: int) -> None:
    job, columns = tile.job, min(LANES, tile.job.batch - tile.b0)
    pitch = job.length * job.heads
    for t in range(t0, t1):
        to, at = (tile.b0 * job.length + t) * job.heads, (t - t0) * LANES
        for h in range(tile.h0, tile.h1, LANES):
            rows = min(LANES, tile.h1 - h)
            transpose(out, at + (h - tile.h0) * LINE, LINE, rows, columns, y, to + h, pitch)
