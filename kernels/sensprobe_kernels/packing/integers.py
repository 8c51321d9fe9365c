"""Products of packed whole numbers and vectors of whole numbers, both with scales.

    y_o = Σ_g (float32(Σ_i q_oi c_i) · s_o) · a      i: the columns of group g, which share s and a

The inner sum is exact, in int32: whoever calls sees to it that it fits, and then it may wrap on the
way. The outer one is float32, from the first group upward, starting at 0 (no contraction;
`sensprobe.ops.linear.linear_codes` is the reference).
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from sensprobe_kernels.jit import inline, noinline
from sensprobe_kernels.packing.rows import AHEAD, LINE
from sensprobe_kernels.packing.tensor import OFFSET, Packed, scale_at, zero_at
from sensprobe_kernels.simd.octets import whole_numbers
from sensprobe_kernels.simd.pairs import (
    PAIRS,
    Shorts,
    dotted,
    every_short,
    first_pair_reader,
    four_floats,
    four_ints,
    four_totals,
    load_first_shorts,
    load_shorts,
    pair_reader,
    times,
)
from sensprobe_kernels.simd.vector import (
    Floats,
    Ints,
    every,
    every_int,
    prefetch,
    spread,
    store_first,
)

BITS = (2, 3, 4, 8)
"""Widths of codes that are multiplied."""


class Coded(NamedTuple):
    """Vectors of whole numbers: int16 `codes` from `at` on, `pitch` apart; `run` columns share a
    scale, of those in float32 `scales` from `scale_at` on, `scale_pitch` apart."""

    codes: Any
    at: int
    pitch: int
    run: int
    scales: Any
    scale_at: int
    scale_pitch: int


class Four(NamedTuple):
    """Four rows of a matrix; past the last row that one again."""

    first: int
    second: int
    third: int
    fourth: int


@inline
def _four_from(row: int, t: Packed) -> Four:
    last = t.rows - 1
    return Four(row, min(row + 1, last), min(row + 2, last), min(row + 3, last))


@inline
def _scales(data: Any, t: Packed, rows: Four, i: int) -> Floats:
    """Scale i of each row."""
    return four_floats(
        scale_at(data, t, rows.first * t.stride + i), scale_at(data, t, rows.second * t.stride + i),
        scale_at(data, t, rows.third * t.stride + i), scale_at(data, t, rows.fourth * t.stride + i),
    )  # fmt: skip


@inline
def _zeros(data: Any, t: Packed, rows: Four, i: int) -> Ints:
    """Zero point i of each row, as codes whose highest bit was flipped count."""
    zeros = four_ints(
        zero_at(data, t, rows.first * t.stride + i), zero_at(data, t, rows.second * t.stride + i),
        zero_at(data, t, rows.third * t.stride + i), zero_at(data, t, rows.fourth * t.stride + i),
    )  # fmt: skip
    return zeros - every_int(1 << (t.bits - 1))


def _product(bits: int) -> Any:
    """Multiplies rows of codes of so many bits."""
    read, first = pair_reader(bits), first_pair_reader(bits)

    @inline
    def group(
        data: Any, t: Packed, rows: Four, start: int, end: int, x: Any, x_at: int, flip: Shorts
    ) -> tuple[Ints, Ints]:
        """Over some columns: what codes give in the first four places, and the sum of x."""
        size, p = t.columns * bits >> 3, t.at + (start * bits >> 3)
        p0, p1 = p + rows.first * size, p + rows.second * size
        p2, p3 = p + rows.third * size, p + rows.fourth * size
        y0, y1, y2, y3 = every_int(0), every_int(0), every_int(0), every_int(0)
        total, one = every_int(0), every_short(1)
        for c in range(start, end - PAIRS + 1, PAIRS):
            v, i = load_shorts(x, x_at + c), (c - start) * bits >> 3
            y0 = dotted(y0, read(data, p0 + i, flip), v)
            y1 = dotted(y1, read(data, p1 + i, flip), v)
            y2 = dotted(y2, read(data, p2 + i, flip), v)
            y3 = dotted(y3, read(data, p3 + i, flip), v)
            total = dotted(total, one, v)
        left = (end - start) % PAIRS
        if left:
            v, i = load_first_shorts(x, x_at + end - left, left), (end - start - left) * bits >> 3
            y0 = dotted(y0, first(data, p0 + i, left, flip), v)
            y1 = dotted(y1, first(data, p1 + i, left, flip), v)
            y2 = dotted(y2, first(data, p2 + i, left, flip), v)
            y3 = dotted(y3, first(data, p3 + i, left, flip), v)
            total = dotted(total, one, v)
        return four_totals(y0, y1, y2, y3), total

    @inline
    def product(
        data: Any, t: Packed, start: int, stop: int, x: Coded, batch: int, y: Any, y_at: int,
        y_pitch: int,
    ) -> None:  # fmt: skip
        flip = every_short(1 << 15 if t.kind == OFFSET else 0)
        size, run = t.columns * bits >> 1, min(t.group, x.run)
        for row in range(start, stop, 4):
            rows, ahead = _four_from(row, t), t.at + row * size // 4 + AHEAD * size
            for i in range(ahead, ahead + size, LINE):
                prefetch(data, i)
            for b in range(batch):
                total, at = every(np.float32(0)), x.at + b * x.pitch
                for g in range(0, t.columns, run):
                    end = min(g + run, t.columns)
                    found, seen = group(data, t, rows, g, end, x.codes, at, flip)
                    if t.kind == OFFSET:
                        zeros = _zeros(data, t, rows, g // t.group)
                        found = found - times(zeros, four_totals(seen, seen, seen, seen))
                    a = spread(x.scales, x.scale_at + b * x.scale_pitch + g // x.run)
                    s = _scales(data, t, rows, g // t.group)
                    total = total + whole_numbers(found) * s * a
                store_first(y, y_at + b * y_pitch + row, min(4, stop - row), total)

    return product


_product2, _product3, _product4, _product8 = (_product(bits) for bits in BITS)


@noinline
def multiply_codes(
    data: Any, t: Packed, start: int, stop: int, x: Coded, batch: int, y: Any, y_at: int,
    y_pitch: int,
) -> None:  # fmt: skip
    """Rows `start` to `stop` of y = W x of `batch` vectors, where the codes of W are SIGNED or
    OFFSET, in one of BITS, and groups of columns that share scales start at whole bytes."""
    if t.bits == 8:
        _product8(data, t, start, stop, x, batch, y, y_at, y_pitch)
    elif t.bits == 4:
        _product4(data, t, start, stop, x, batch, y, y_at, y_pitch)
    elif t.bits == 3:
        _product3(data, t, start, stop, x, batch, y, y_at, y_pitch)
    else:
        _product2(data, t, start, stop, x, batch, y, y_at, y_pitch)
