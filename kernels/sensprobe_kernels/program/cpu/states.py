"""Reading packed states into sixteen lanes, and writing them back.

A state is rows of n numbers, the rows of a tile of sixteen one a lane: (tiles, n, 16) floats in
scratch, of one sequence. The carry holds codes row after row.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from sensprobe_kernels.jit import inline
from sensprobe_kernels.packing.tensor import (
    BFLOAT,
    HALF,
    OFFSET,
    SIGNED,
    SINGLE,
    SMALL,
    Packed,
    read_scale,
    read_zero,
    values,
)
from sensprobe_kernels.program.ir import State
from sensprobe_kernels.quantize.lanes import clamp
from sensprobe_kernels.quantize.spec import S16, S32
from sensprobe_kernels.simd.octets import (
    bfloats_at,
    first_int,
    float_at,
    floats_at,
    half_at,
    halves_at,
    lane,
    put_bfloats,
    put_byte,
    put_float,
    put_floats,
    put_half,
    put_halves,
    put_short,
    put_word,
    reader,
    rounded_off,
    short_at,
    writer,
)
from sensprobe_kernels.simd.vector import (
    LANES,
    Floats,
    Ints,
    absolute,
    bits,
    choose,
    every,
    every_int,
    from_bits,
    is_nan,
    less,
    load,
    rint,
    shift_left,
    shift_right,
    shift_sign,
    store,
    transpose,
)

_ZERO, _ONE = np.float32(0.0), np.float32(1.0)
_read2, _read3, _read4 = reader(2), reader(3), reader(4)
_read5, _read6, _read7, _read8 = reader(5), reader(6), reader(7), reader(8)
_write2, _write3, _write4 = writer(2), writer(3), writer(4)
_write5, _write6, _write7, _write8 = writer(5), writer(6), writer(7), writer(8)


@inline
def _codes(carry: Any, at: int, width: int) -> Ints:
    """Sixteen codes that begin at a whole byte."""
    if width == 8:
        return _read8(carry, at)
    if width == 4:
        return _read4(carry, at)
    if width == 2:
        return _read2(carry, at)
    if width == 3:
        return _read3(carry, at)
    if width == 5:
        return _read5(carry, at)
    if width == 6:
        return _read6(carry, at)
    return _read7(carry, at)


@inline
def _put_codes(carry: Any, at: int, codes: Ints, width: int) -> None:
    if width == 8:
        _write8(carry, at, LANES, codes)
    elif width == 4:
        _write4(carry, at, LANES, codes)
    elif width == 2:
        _write2(carry, at, LANES, codes)
    elif width == 3:
        _write3(carry, at, LANES, codes)
    elif width == 5:
        _write5(carry, at, LANES, codes)
    elif width == 6:
        _write6(carry, at, LANES, codes)
    else:
        _write7(carry, at, LANES, codes)


@inline
def fields_of(s: State) -> Packed:
    """The fields of `Packed` that `values` reads, of a state."""
    return Packed(0, s.bits, s.kind, s.rows, s.n, -1, 0, -1, 0, 1, s.shift, s.factor, 1, 1)


@inline
def raw_values(carry: Any, base: int, i: int, s: State) -> Floats:
    """Sixteen numbers of a state from number i, a multiple of 16, before scale and zero point."""
    at = base + s.at
    if s.kind == SINGLE:
        return floats_at(carry, at + 4 * i)
    if s.kind == HALF:
        return halves_at(carry, at + 2 * i)
    if s.kind == BFLOAT:
        return bfloats_at(carry, at + 2 * i)
    return values(_codes(carry, at + (i * s.bits >> 3), s.bits), 0, fields_of(s))


@inline
def put_numbers(carry: Any, base: int, i: int, x: Floats, s: State) -> None:
    """The inverse of `raw_values`."""
    at = base + s.at
    if s.kind == SINGLE:
        put_floats(carry, at + 4 * i, x)
    elif s.kind == HALF:
        put_halves(carry, at + 2 * i, x)
    elif s.kind == BFLOAT:
        put_bfloats(carry, at + 2 * i, x)
    else:
        place = at + (i * s.bits >> 3)
        x = choose(is_nan(x), every(_ZERO), x)  # no code stands for it
        if s.kind == SIGNED or s.kind == OFFSET:
            _put_codes(carry, place, rounded_off(x), s.bits)
        else:
            _put_codes(carry, place, _small_codes(x, s), s.bits)


@inline
def _small_codes(x: Floats, s: State) -> Ints:
    """Codes of numbers of a small format, to float32's precision."""
    low = from_bits(every_int((127 - s.factor) << 23))
    half = every_int(1 << (s.shift - 1))
    index = shift_right(bits(absolute(x) * low) + half, every_int(s.shift))
    sign = shift_left(shift_right(bits(x), every_int(31)), every_int(s.bits - 1))
    there = shift_sign(every_int(0) - index, every_int(31))  # all ones but for zero
    return index | (sign & there)


@inline
def dynamic_scale_at(carry: Any, base: int, s: State, scales: int, i: int) -> Any:
    """Dynamic scale i of a state."""
    return read_scale(carry, base + s.scale_at, scales, i)


@inline
def dynamic_zero_at(carry: Any, base: int, s: State, scales: int, i: int) -> Any:
    if s.zero_at < 0:
        return _ZERO
    return np.float32(read_zero(carry, base + s.zero_at, scales, i))


@inline
def put_dynamic(
    carry: Any, base: int, s: State, scales: int, i: int, scale: float, zero: float
) -> None:
    """Write dynamic scale i, and its zero point where there is one."""
    if scales == S16:
        put_half(carry, base + s.scale_at + 2 * i, scale)
    elif scales == S32:
        put_float(carry, base + s.scale_at + 4 * i, scale)
    else:
        put_byte(carry, base + s.scale_at + i, exponent_of(scale))
    if s.zero_at >= 0:
        if scales == S32:
            put_word(carry, base + s.zero_at + 4 * i, int(zero))
        else:
            put_short(carry, base + s.zero_at + 2 * i, int(zero))


@inline
def exponent_of(scale: float) -> int:
    """The exponent of a power of two."""
    return math.frexp(scale)[1] - 1


@inline
def raw_tile(carry: Any, base: int, k: int, s: State, flat: Any, state: Any) -> None:
    """Read tile k into `state`, before scale and zero point. `flat` is scratch for 16 n numbers."""
    first = k * LANES * s.n
    for i in range(0, LANES * s.n, LANES):
        store(flat, i, raw_values(carry, base, first + i, s))
    to_lanes(flat, state, first, s.n)


@inline
def unpack_tile(
    carry: Any, base: int, k: int, s: State, scale: Floats, zero: Floats, flat: Any, state: Any
) -> None:
    """As `raw_tile`, scaled; each row has a scale and a zero point."""
    first = k * LANES * s.n
    raw_tile(carry, base, k, s, flat, state)
    if s.kind < HALF:
        for i in range(first, first + LANES * s.n, LANES):
            store(state, i, (load(state, i) - zero) * scale)


@inline
def to_lanes(flat: Any, state: Any, first: int, n: int) -> None:
    """Transpose rows (16, n) from the start of `flat` into lanes (n, 16) from state[first] on."""
    for c in range(0, n, LANES):
        transpose(flat, c, n, LANES, min(LANES, n - c), state, first + c * LANES, LANES)


@inline
def _to_rows(state: Any, first: int, flat: Any, n: int) -> None:
    """The inverse of `to_lanes`."""
    for c in range(0, n, LANES):
        transpose(state, first + c * LANES, LANES, min(LANES, n - c), LANES, flat, c, n)


@inline
def ratios(x: Floats, scale: Floats, zero: Floats, s: State) -> Floats:
    """The integers that codes name, of numbers that were rounded to multiples of the scale.

    x is a float32 product, and x / scale may round to a neighbour where zero points are large: the
    whole number is the one whose product is x.
    """
    if s.kind > OFFSET:
        return x / scale
    one = every(_ONE)
    q = rint(x / scale)
    q = choose(less(q * scale, x), q + one, choose(less(x, q * scale), q - one, q))
    return q if s.kind == SIGNED else clamp(q + zero, every(_ZERO), every(levels_of(s)))


@inline
def levels_of(s: State) -> Any:
    """The largest code."""
    return np.float32((1 << s.bits) - 1)


@inline
def put_tile(carry: Any, base: int, k: int, s: State, flat: Any, state: Any) -> None:
    """The inverse of `raw_tile`."""
    first = k * LANES * s.n
    _to_rows(state, first, flat, s.n)
    for i in range(0, LANES * s.n, LANES):
        put_numbers(carry, base, first + i, load(flat, i), s)


@inline
def pack_tile(
    carry: Any, base: int, k: int, s: State, scale: Floats, zero: Floats, flat: Any, state: Any
) -> None:
    """The inverse of `unpack_tile`, for numbers that were rounded already."""
    first = k * LANES * s.n
    if s.kind < HALF:
        for i in range(first, first + LANES * s.n, LANES):
            store(state, i, ratios(load(state, i), scale, zero, s))
    put_tile(carry, base, k, s, flat, state)


@inline
def unpack_residual(carry: Any, base: int, k: int, s: State, flat: Any, residual: Any) -> None:
    """Read the residual (bfloat16) of tile k into lanes."""
    first = k * LANES * s.n
    for i in range(0, LANES * s.n, LANES):
        store(flat, i, bfloats_at(carry, base + s.residual_at + 2 * (first + i)))
    to_lanes(flat, residual, first, s.n)


@inline
def pack_residual(carry: Any, base: int, k: int, s: State, flat: Any, residual: Any) -> None:
    """The inverse of `unpack_residual`."""
    first = k * LANES * s.n
    _to_rows(residual, first, flat, s.n)
    for i in range(0, LANES * s.n, LANES):
        put_bfloats(carry, base + s.residual_at + 2 * (first + i), load(flat, i))


# -- one number at a time -------------------------------------------------------------------------


@inline
def raw_value(carry: Any, base: int, i: int, s: State, t: Packed) -> Any:
    """Number i of a state, before scale and zero point."""
    at = base + s.at
    if s.kind == SINGLE:
        return float_at(carry, at + 4 * i)
    if s.kind == HALF:
        return half_at(carry, at + 2 * i)
    if s.kind == BFLOAT:
        return lane(from_bits(every_int(short_at(carry, at + 2 * i) << 16)), 0)
    first = i * s.bits
    place = at + (first >> 3)
    word = np.int64(carry[place])
    if (first & 7) + s.bits > 8:
        word |= np.int64(carry[place + 1]) << 8
    code = (word >> (first & 7)) & ((1 << s.bits) - 1)
    if s.kind == SIGNED:
        half = 1 << (s.bits - 1)
        return np.float32((code ^ half) - half)
    if s.kind == OFFSET:
        return np.float32(code)
    return lane(values(every_int(code), 0, t), 0)


@inline
def put_number(carry: Any, base: int, i: int, v: Any, s: State) -> None:
    """Write number i and leave its neighbours in the same byte as they are."""
    at = base + s.at
    if s.kind == SINGLE:
        put_float(carry, at + 4 * i, v)
        return
    if s.kind == HALF:
        put_half(carry, at + 2 * i, v)
        return
    if s.kind == BFLOAT:
        put_short(carry, at + 2 * i, first_int(bits(every(v))) >> 16)
        return
    if v != v:  # no code stands for NaN
        v = _ZERO
    if s.kind == SMALL:
        code = first_int(_small_codes(every(v), s))
    else:
        code = np.int64(v)
    mask = (1 << s.bits) - 1
    first = i * s.bits
    place, shift = at + (first >> 3), first & 7
    code = (code & mask) << shift
    mask <<= shift
    carry[place] = np.uint8((np.int64(carry[place]) & ~mask | code) & 255)
    if shift + s.bits > 8:
        carry[place + 1] = np.uint8((np.int64(carry[place + 1]) & ~(mask >> 8)) | (code >> 8))
