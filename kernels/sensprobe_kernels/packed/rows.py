"""Rows of packed tensors: decoded, and multiplied without being decoded to memory.

    decoded      number · scale, one float32 product
    product      the sum over sixteen lanes, each from the first column upward: lane i adds
                 columns i, i + 16, i + 32, …; then lanes 0 to 7 and 8 to 15, and so on by halves

(float32, no contraction; `sensprobe.ops.linear` is the reference.)
"""

from __future__ import annotations

from typing import Any

import numpy as np

from sensprobe_kernels.octets import (
    bfloats_at,
    first_reader,
    floats_at,
    halves_at,
    reader,
)
from sensprobe_kernels.packed.tensor import (
    HALF,
    SINGLE,
    SMALL,
    Packed,
    flip_of,
    integers,
    level_of,
    scale_at,
    value_at,
    values,
    zero_at,
)
from sensprobe_kernels.stored.flags import apart, inline
from sensprobe_kernels.vector import (
    LANES,
    Floats,
    every,
    load,
    load_first,
    store,
    store_first,
    summed,
)

_ZERO = np.float32(0.0)


def _for_bits(bits: int) -> tuple[Any, Any]:
    """(decode a row, multiply four rows) of codes of so many bits."""
    read, first = reader(bits), first_reader(bits)

    @inline
    def decode(data: Any, t: Packed, row: int, out: Any, to: int) -> None:
        for g in range(0, t.columns, t.group):
            at = row * t.stride + g // t.group
            scale, zero = every(scale_at(data, t, at)), zero_at(data, t, at)
            end = min(g + t.group, t.columns)
            place = t.at + ((row * t.columns + g) * bits >> 3)
            for c in range(g, end - LANES + 1, LANES):
                store(out, to + c, values(read(data, place), zero, t) * scale)
                place += 2 * bits
            left = (end - g) % LANES
            if left:
                x = values(first(data, place, left), zero, t) * scale
                store_first(out, to + end - left, left, x)

    @inline
    def four(
        data: Any, t: Packed, row: int, x: Any, x_at: int
    ) -> tuple[Floats, Floats, Floats, Floats]:
        y0, y1, y2, y3 = every(_ZERO), every(_ZERO), every(_ZERO), every(_ZERO)
        size, f = t.columns * bits >> 3, flip_of(t)
        for g in range(0, t.columns, t.group):
            i0 = row * t.stride + g // t.group
            i1 = i0 + t.stride
            i2, i3 = i1 + t.stride, i1 + 2 * t.stride
            s0, s1 = every(scale_at(data, t, i0)), every(scale_at(data, t, i1))
            s2, s3 = every(scale_at(data, t, i2)), every(scale_at(data, t, i3))
            z0, z1 = level_of(zero_at(data, t, i0), t), level_of(zero_at(data, t, i1), t)
            z2, z3 = level_of(zero_at(data, t, i2), t), level_of(zero_at(data, t, i3), t)
            end = min(g + t.group, t.columns)
            p = t.at + row * size + (g * bits >> 3)
            for c in range(g, end - LANES + 1, LANES):
                v = load(x, x_at + c)
                y0 = y0 + integers(read(data, p), f, z0) * s0 * v
                y1 = y1 + integers(read(data, p + size), f, z1) * s1 * v
                y2 = y2 + integers(read(data, p + 2 * size), f, z2) * s2 * v
                y3 = y3 + integers(read(data, p + 3 * size), f, z3) * s3 * v
                p += 2 * bits
            left = (end - g) % LANES
            if left:
                v = load_first(x, x_at + end - left, left, every(_ZERO))
                y0 = y0 + integers(first(data, p, left), f, z0) * s0 * v
                y1 = y1 + integers(first(data, p + size, left), f, z1) * s1 * v
                y2 = y2 + integers(first(data, p + 2 * size, left), f, z2) * s2 * v
                y3 = y3 + integers(first(data, p + 3 * size, left), f, z3) * s3 * v
        return y0, y1, y2, y3

    return decode, four


_decode2, _four2 = _for_bits(2)
_decode3, _four3 = _for_bits(3)
_decode4, _four4 = _for_bits(4)
_decode5, _four5 = _for_bits(5)
_decode6, _four6 = _for_bits(6)
_decode7, _four7 = _for_bits(7)
_decode8, _four8 = _for_bits(8)


@apart
def decode_row(data: Any, t: Packed, row: int, out: Any, to: int) -> None:
    """A row as float32 to out[to : to + columns]."""
    if t.kind >= HALF and t.whole:
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


def _product_for(four: Any) -> Any:
    @inline
    def product(
        data: Any, t: Packed, x: Any, x_at: int, x_pitch: int, batch: int, y: Any, y_at: int,
        y_pitch: int,
    ) -> int:  # fmt: skip
        whole = t.rows - t.rows % 4
        for row in range(0, whole, 4):
            for b in range(batch):
                s0, s1, s2, s3 = four(data, t, row, x, x_at + b * x_pitch)
                to = y_at + b * y_pitch + row
                y[to] = summed(s0)
                y[to + 1] = summed(s1)
                y[to + 2] = summed(s2)
                y[to + 3] = summed(s3)
        return whole

    return product


_product2, _product3 = _product_for(_four2), _product_for(_four3)
_product4, _product5 = _product_for(_four4), _product_for(_four5)
_product6, _product7 = _product_for(_four6), _product_for(_four7)
_product8 = _product_for(_four8)


@apart
def multiply(
    data: Any, t: Packed, x: Any, x_at: int, x_pitch: int, batch: int, y: Any, y_at: int,
    y_pitch: int, row: Any,
) -> None:  # fmt: skip
    """y = W x of `batch` vectors that lie `x_pitch` apart; `row` is scratch for one row."""
    done = 0
    if t.kind < SMALL and t.whole and (t.group % LANES == 0 or t.group >= t.columns):
        if t.bits == 8:
            done = _product8(data, t, x, x_at, x_pitch, batch, y, y_at, y_pitch)
        elif t.bits == 4:
            done = _product4(data, t, x, x_at, x_pitch, batch, y, y_at, y_pitch)
        elif t.bits == 2:
            done = _product2(data, t, x, x_at, x_pitch, batch, y, y_at, y_pitch)
        elif t.bits == 3:
            done = _product3(data, t, x, x_at, x_pitch, batch, y, y_at, y_pitch)
        elif t.bits == 5:
            done = _product5(data, t, x, x_at, x_pitch, batch, y, y_at, y_pitch)
        elif t.bits == 6:
            done = _product6(data, t, x, x_at, x_pitch, batch, y, y_at, y_pitch)
        else:
            done = _product7(data, t, x, x_at, x_pitch, batch, y, y_at, y_pitch)
    for r in range(done, t.rows):
        decode_row(data, t, r, row, 0)
        for b in range(batch):
            y[y_at + b * y_pitch + r] = _dot(row, x, x_at + b * x_pitch, t.columns)
