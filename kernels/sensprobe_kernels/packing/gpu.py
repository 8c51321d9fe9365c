"""Packed numbers in Triton: tiles of codes, read and written.

Codes lie as `layout` says. A tile is (rows, columns) of a tensor whose rows start at whole bytes;
`columns` is padded to a power of two, and what lies past a row's end is masked off.
"""

from __future__ import annotations

from typing import NamedTuple

import triton
import triton.language as tl

from sensprobe_kernels.packing import tensor as packed
from sensprobe_kernels.quantize.gpu import from_bits, to_bits

SIGNED, OFFSET = tl.constexpr(packed.SIGNED), tl.constexpr(packed.OFFSET)
SMALL, HALF = tl.constexpr(packed.SMALL), tl.constexpr(packed.HALF)
BFLOAT, SINGLE = tl.constexpr(packed.BFLOAT), tl.constexpr(packed.SINGLE)
FIRST_POLAR, LOG_POLAR = tl.constexpr(packed.POLAR), tl.constexpr(packed.LOG_POLAR)


class Codes(NamedTuple):
    """The constants that reading codes is compiled for, as in `tensor.Packed`.

    Kinds from HALF on are numbers that a pointer of their type reads. `scales` is -1 where there
    are none. `ragged` is the number of codes in a row where rows do not start at whole bytes or
    have codes that are no multiple of 8, else 0.
    """

    bits: int
    kind: int
    shift: int
    factor: int
    scales: int
    ragged: int = 0


@triton.jit
def load_codes(at, rows, first, pitch, inside, N: tl.constexpr, c: tl.constexpr):
    """Codes of rows (R, 1), of `pitch` bytes each from a pointer on, and of N columns from `first`
    on, a multiple of 8; (R, N), those past the end of a row 0."""
    R: tl.constexpr = rows.shape[0]
    if c.ragged:
        return load_ragged(at, rows, first + tl.arange(0, N)[None, :], inside, c)
    elif c.bits == 8:
        columns = first + tl.arange(0, N)[None, :]
        there = inside & (columns < pitch)
        return tl.load(at + rows * pitch + columns, mask=there, other=0).to(tl.int32)
    elif c.bits == 2 or c.bits == 4:
        per: tl.constexpr = 8 // c.bits
        unit = first // per + tl.arange(0, N // per)[None, :]
        byte = tl.load(at + rows * pitch + unit, mask=inside & (unit < pitch), other=0)
        places = (tl.arange(0, per) * c.bits)[None, None, :]
        codes = (byte.to(tl.int32)[:, :, None] >> places) & ((1 << c.bits) - 1)
        return tl.reshape(codes, (R, N))
    else:
        unit = first // 8 + tl.arange(0, N // 8)[None, :]
        k = tl.arange(0, 8)[None, None, :]
        place = (rows * pitch + unit * c.bits)[:, :, None] + k
        there = (inside & (unit * c.bits < pitch))[:, :, None] & (k < c.bits)
        word = tl.sum(tl.load(at + place, mask=there, other=0).to(tl.int64) << (8 * k), 2)
        codes = (word[:, :, None] >> (k * c.bits)) & ((1 << c.bits) - 1)
        return tl.reshape(codes, (R, N)).to(tl.int32)


@triton.jit
def store_codes(at, codes, rows, first, pitch, inside, N: tl.constexpr, c: tl.constexpr):
    """Write codes (R, N), of which the lowest bits count, as `load_codes` reads them."""
    R: tl.constexpr = rows.shape[0]
    codes = codes & ((1 << c.bits) - 1)
    if c.ragged:
        store_ragged(at, codes, rows, inside, N, c)
    elif c.bits == 8:
        columns = first + tl.arange(0, N)[None, :]
        tl.store(at + rows * pitch + columns, codes.to(tl.uint8), mask=inside & (columns < pitch))
    elif c.bits == 2 or c.bits == 4:
        per: tl.constexpr = 8 // c.bits
        unit = first // per + tl.arange(0, N // per)[None, :]
        places = (tl.arange(0, per) * c.bits)[None, None, :]
        byte = tl.sum(tl.reshape(codes, (R, N // per, per)) << places, 2).to(tl.uint8)
        tl.store(at + rows * pitch + unit, byte, mask=inside & (unit < pitch))
    else:
        unit = first // 8 + tl.arange(0, N // 8)[None, :]
        k = tl.arange(0, 8)[None, None, :]
        word = tl.sum(tl.reshape(codes, (R, N // 8, 8)).to(tl.int64) << (k * c.bits), 2)
        place = (rows * pitch + unit * c.bits)[:, :, None] + k
        there = (inside & (unit * c.bits < pitch))[:, :, None] & (k < c.bits)
        tl.store(at + place, ((word[:, :, None] >> (8 * k)) & 255).to(tl.uint8), mask=there)


@triton.constexpr_function
def _padded(count: int) -> int:
    return triton.next_power_of_2(count)


@triton.jit
def load_ragged(at, rows, columns, inside, c: tl.constexpr):
    """Codes of rows that start at any bit, one by one."""
    there = inside & (columns < c.ragged)
    bit = (rows * c.ragged + columns) * c.bits
    place, shift = bit >> 3, bit & 7
    low = tl.load(at + place, mask=there, other=0).to(tl.int32)
    over = there & (shift + c.bits > 8)
    high = tl.load(at + place + 1, mask=over, other=0).to(tl.int32)
    return ((low | (high << 8)) >> shift) & ((1 << c.bits) - 1)


@triton.jit
def store_ragged(at, codes, rows, inside, N: tl.constexpr, c: tl.constexpr):
    """Write codes of R rows that follow one another, as `load_ragged` reads them. R is a multiple
    of 8."""
    R: tl.constexpr = rows.shape[0]
    n: tl.constexpr = c.ragged
    F: tl.constexpr = _padded(R * n)
    flat = tl.arange(0, F)
    filled = tl.reshape(tl.where(inside, codes, 0), (R * N,))
    codes = tl.gather(filled, tl.where(flat < R * n, flat // n * N + flat % n, 0), 0)
    codes = tl.where(flat < R * n, codes, 0)
    k = tl.arange(0, 8)[None, :]
    word = tl.sum(tl.reshape(codes, (F // 8, 8)).to(tl.int64) << (k * c.bits), 1)[:, None]
    unit = tl.arange(0, F // 8)[:, None]
    here = tl.sum(inside.to(tl.int32))  # rows of these R that there are
    end = (here * n * c.bits + 7) // 8
    place = unit * c.bits + k
    start = at + tl.min(rows) * n * c.bits // 8
    tl.store(
        start + place, ((word >> (8 * k)) & 255).to(tl.uint8), mask=(k < c.bits) & (place < end)
    )


@triton.jit
def numbers(codes, zero, c: tl.constexpr):
    """The float32 numbers that codes stand for, before the scale."""
    if c.kind == SIGNED:
        half: tl.constexpr = 1 << (c.bits - 1)
        return ((codes ^ half) - half).to(tl.float32)
    elif c.kind == OFFSET:
        return codes.to(tl.float32) - zero
    else:
        sign = codes >> (c.bits - 1)
        magnitude = codes & ((1 << (c.bits - 1)) - 1)
        power: tl.constexpr = c.factor + 127
        x = from_bits(magnitude << c.shift) * from_bits(tl.full(codes.shape, power << 23, tl.int32))
        return from_bits(to_bits(x) | (sign << 31))


@triton.jit
def codes_of(x, c: tl.constexpr):
    """The codes of numbers as `quantize.gpu.code_of` returns them: undoes `numbers`."""
    if c.kind == SIGNED or c.kind == OFFSET:
        return x.to(tl.int32)
    else:
        power: tl.constexpr = 127 - c.factor
        low = from_bits(tl.full(x.shape, power << 23, tl.int32))
        index = (to_bits(tl.abs(x) * low) + (1 << (c.shift - 1))) >> c.shift
        sign = (to_bits(x) < 0) & (index > 0)
        return index | tl.where(sign, 1 << (c.bits - 1), 0)


@triton.jit
def load_numbers(at, rows, first, n, pitch, scale, zero, inside, N: tl.constexpr, c: tl.constexpr):
    """The numbers of a tile of rows of n, times their scales where there are some."""
    if c.kind >= HALF:
        columns = first + tl.arange(0, N)[None, :]
        there = inside & (columns < n)
        return tl.load(at + rows * n + columns, mask=there, other=0).to(tl.float32)
    else:
        return numbers(load_codes(at, rows, first, pitch, inside, N, c), zero, c) * scale
