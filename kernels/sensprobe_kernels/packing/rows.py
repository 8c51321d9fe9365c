"""Rows of packed tensors: decoded, and multiplied without being decoded to memory.

    decoded      number · scale, one float32 product
    product      the sum over sixteen lanes, each from the first column upward: lane i adds
                 columns i, i + 16, i + 32, …; then lanes 0 to 7 and 8 to 15, and so on by halves

(float32, no contraction; `sensprobe.ops.linear` is the reference.)
"""

from __future__ import annotations

from typing import Any

import numpy as np

from sensprobe_kernels.jit import inline, noinline
from sensprobe_kernels.packing.polar import decode_polar
from sensprobe_kernels.packing.tensor import (
    HALF,
    OFFSET,
    POLAR,
    SIGNED,
    SINGLE,
    Packed,
    by_turns,
    scale_at,
    value_at,
    values,
    zero_at,
)
from sensprobe_kernels.simd.octets import (
    bfloats_at,
    first_reader,
    floats_at,
    halves_at,
    reader,
    whole_numbers,
)
from sensprobe_kernels.simd.vector import (
    LANES,
    Floats,
    Ints,
    every,
    every_int,
    load,
    load_first,
    prefetch,
    store,
    store_first,
    summed,
)

_ZERO = np.float32(0.0)
LINE = 64  # bytes of a cache line
AHEAD = 2  # blocks of four rows from the one at hand to the one asked for


def _decoder(bits: int) -> Any:
    """Decodes a row of codes of so many bits."""
    read, first = reader(bits), first_reader(bits)

    @inline
    def decode(data: Any, t: Packed, row: int, out: Any, to: int) -> None:
        for g in range(0, t.columns, t.group):
            at = row * t.stride + g // t.group * t.parts
            other = at + t.parts - 1
            scale = by_turns(scale_at(data, t, at), scale_at(data, t, other))
            zero = by_turns(np.float32(zero_at(data, t, at)), np.float32(zero_at(data, t, other)))
            end = min(g + t.group, t.columns)
            place = t.at + ((row * t.columns + g) * bits >> 3)
            for c in range(g, end - LANES + 1, LANES):
                store(out, to + c, (values(read(data, place), 0, t) - zero) * scale)
                place += 2 * bits
            left = (end - g) % LANES
            if left:
                x = (values(first(data, place, left), 0, t) - zero) * scale
                store_first(out, to + end - left, left, x)

    return decode


def _product(bits: int, signed: bool) -> Any:
    """Multiplies by four rows at a time of whole numbers of so many bits; gives the first row left
    over."""
    read, first = reader(bits, signed), first_reader(bits, signed)

    @inline
    def _level(data: Any, t: Packed, i: int) -> Ints:
        return every_int(0 if signed else zero_at(data, t, i))

    @inline
    def four(
        data: Any, t: Packed, row: int, x: Any, x_at: int
    ) -> tuple[Floats, Floats, Floats, Floats]:
        y0, y1, y2, y3 = every(_ZERO), every(_ZERO), every(_ZERO), every(_ZERO)
        size = t.columns * bits >> 3
        for g in range(0, t.columns, t.group):
            i0 = row * t.stride + g // t.group
            i1 = i0 + t.stride
            i2, i3 = i1 + t.stride, i1 + 2 * t.stride
            s0, s1 = every(scale_at(data, t, i0)), every(scale_at(data, t, i1))
            s2, s3 = every(scale_at(data, t, i2)), every(scale_at(data, t, i3))
            z0, z1 = _level(data, t, i0), _level(data, t, i1)
            z2, z3 = _level(data, t, i2), _level(data, t, i3)
            end = min(g + t.group, t.columns)
            p = t.at + row * size + (g * bits >> 3)
            for c in range(g, end - LANES + 1, LANES):
                v = load(x, x_at + c)
                y0 = y0 + whole_numbers(read(data, p) - z0) * s0 * v
                y1 = y1 + whole_numbers(read(data, p + size) - z1) * s1 * v
                y2 = y2 + whole_numbers(read(data, p + 2 * size) - z2) * s2 * v
                y3 = y3 + whole_numbers(read(data, p + 3 * size) - z3) * s3 * v
                p += 2 * bits
            left = (end - g) % LANES
            if left:
                v = load_first(x, x_at + end - left, left, every(_ZERO))
                y0 = y0 + whole_numbers(first(data, p, left) - z0) * s0 * v
                y1 = y1 + whole_numbers(first(data, p + size, left) - z1) * s1 * v
                y2 = y2 + whole_numbers(first(data, p + 2 * size, left) - z2) * s2 * v
                y3 = y3 + whole_numbers(first(data, p + 3 * size, left) - z3) * s3 * v
        return y0, y1, y2, y3

    @inline
    def product(
        data: Any, t: Packed, first_row: int, last_row: int, x: Any, x_at: int, x_pitch: int,
        batch: int, y: Any, y_at: int, y_pitch: int,
    ) -> int:  # fmt: skip
        whole = last_row - (last_row - first_row) % 4
        size = t.columns * bits >> 1  # bytes of four rows
        for row in range(first_row, whole, 4):
            ahead = t.at + row * size // 4 + AHEAD * size
            for i in range(ahead, ahead + size, LINE):
                prefetch(data, i)
            for b in range(batch):
                s0, s1, s2, s3 = four(data, t, row, x, x_at + b * x_pitch)
                to = y_at + b * y_pitch + row
                y[to] = summed(s0)
                y[to + 1] = summed(s1)
                y[to + 2] = summed(s2)
                y[to + 3] = summed(s3)
        return whole

    return product


_decode2, _decode3, _decode4, _decode5 = _decoder(2), _decoder(3), _decoder(4), _decoder(5)
_decode6, _decode7, _decode8 = _decoder(6), _decoder(7), _decoder(8)
# What is known when it is compiled saves two of nine operations a vector.
_signed2, _signed3, _signed4 = _product(2, True), _product(3, True), _product(4, True)
_signed8 = _product(8, True)
_offset4, _offset8 = _product(4, False), _product(8, False)


@inline
def decode_row(data: Any, t: Packed, row: int, out: Any, to: int) -> None:
    """A row as float32 to out[to : to + columns]; a rotated one stays rotated."""
    if t.kind >= POLAR:
        decode_polar(data, t, row, out, to)
    elif t.kind >= HALF and t.whole:
        _plain(data, t, row, out, to)
    elif not t.whole or (t.group % LANES and t.group < t.columns):
        for c in range(t.columns):
            out[to + c] = value_at(data, t, row, c)
    elif t.bits == 8:
        _decode8(data, t, row, out, to)
    elif t.bits == 4:
        _decode4(data, t, row, out, to)
    elif t.bits == 2:
        _decode2(data, t, row, out, to)
    elif t.bits == 3:
        _decode3(data, t, row, out, to)
    elif t.bits == 5:
        _decode5(data, t, row, out, to)
    elif t.bits == 6:
        _decode6(data, t, row, out, to)
    else:
        _decode7(data, t, row, out, to)


@inline
def _plain(data: Any, t: Packed, row: int, out: Any, to: int) -> None:
    """A row of numbers without scales."""
    first = row * t.columns
    for c in range(0, t.columns - LANES + 1, LANES):
        store(out, to + c, _plain_lanes(data, t, first + c))
    for c in range(t.columns - t.columns % LANES, t.columns):
        out[to + c] = value_at(data, t, row, c)


@inline
def _plain_lanes(data: Any, t: Packed, i: int) -> Floats:
    if t.kind == SINGLE:
        return floats_at(data, t.at + 4 * i)
    if t.kind == HALF:
        return halves_at(data, t.at + 2 * i)
    return bfloats_at(data, t.at + 2 * i)


@inline
def _dot(row: Any, x: Any, x_at: int, columns: int) -> Any:
    """The product of a decoded row, from its start, and x."""
    y = every(_ZERO)
    for c in range(0, columns - LANES + 1, LANES):
        y = y + load(row, c) * load(x, x_at + c)
    left = columns % LANES
    if left:
        none = every(_ZERO)
        c = columns - left
        y = y + load_first(row, c, left, none) * load_first(x, x_at + c, left, none)
    return summed(y)


@noinline
def multiply(
    data: Any, t: Packed, first: int, last: int, x: Any, x_at: int, x_pitch: int, batch: int,
    y: Any, y_at: int, y_pitch: int, row: Any,
) -> None:  # fmt: skip
    """Rows `first` to `last` of y = W x of `batch` vectors that lie `x_pitch` apart; `row` is
    scratch for one row. A matrix stored rotated takes vectors that are."""
    done = first
    if t.whole and t.parts == 1 and (t.group % LANES == 0 or t.group >= t.columns):
        if t.kind == SIGNED and t.bits == 8:
            done = _signed8(data, t, first, last, x, x_at, x_pitch, batch, y, y_at, y_pitch)
        elif t.kind == SIGNED and t.bits == 4:
            done = _signed4(data, t, first, last, x, x_at, x_pitch, batch, y, y_at, y_pitch)
        elif t.kind == SIGNED and t.bits == 3:
            done = _signed3(data, t, first, last, x, x_at, x_pitch, batch, y, y_at, y_pitch)
        elif t.kind == SIGNED and t.bits == 2:
            done = _signed2(data, t, first, last, x, x_at, x_pitch, batch, y, y_at, y_pitch)
        elif t.kind == OFFSET and t.bits == 8:
            done = _offset8(data, t, first, last, x, x_at, x_pitch, batch, y, y_at, y_pitch)
        elif t.kind == OFFSET and t.bits == 4:
            done = _offset4(data, t, first, last, x, x_at, x_pitch, batch, y, y_at, y_pitch)
    for r in range(done, last):
        decode_row(data, t, r, row, 0)
        for b in range(batch):
            y[y_at + b * y_pitch + r] = _dot(row, x, x_at + b * x_pitch, t.columns)
