"""A packed tensor as compiled code sees it: where its codes and scales lie, and what they mean.

A tensor is rows of `columns` numbers that lie in one array of bytes, whole tensors one after the
other. Number (row, column) has scale `row · stride + column // group · parts + column % parts`;
columns of complex tensors are real and imaginary by turns, and two parts have a scale each.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from sensprobe_kernels.jit import inline, row_reader
from sensprobe_kernels.quantize.spec import S16, S32
from sensprobe_kernels.simd.octets import (
    byte_at,
    float_at,
    half_at,
    lane,
    short_at,
    whole_numbers,
    word_at,
)
from sensprobe_kernels.simd.vector import (
    Floats,
    Ints,
    bits,
    choose,
    every,
    every_int,
    from_bits,
    less,
    number,
    places,
    shift_left,
    shift_right,
)

_HALF = np.float32(0.5)
# What codes are: two's complement; whole numbers less a zero point; small floats of a sign and
# `bits - 1` bits that order as the numbers do; numbers without scales; or magnitudes, which have
# phases beside them.
SIGNED, OFFSET, SMALL, HALF, BFLOAT, SINGLE, POLAR, LOG_POLAR = range(8)


class Packed(NamedTuple):
    """A row of the table of tensors; at, scale_at, zero_at: bytes from the start of the array.

    A small float (SMALL) has the value of the float32 number whose bits are its code without the
    sign, shifted left by `shift`, times 2^`factor`. `scales` is how a scale is stored: S16, S32 or
    POW2; `whole` says that every row starts at a whole byte and codes have at most eight bits.

    With a `power` the codes are those of the Hadamard transform of every row, in blocks of base ·
    power columns; the matrix of the inverse transform starts at `signs` of a program's constants.

    Complex numbers of POLAR and LOG_POLAR have a code for two columns in each of two fields, and
    both fields have scales at the same places; `zero_at` is where the low ends of a range are.
    """

    at: int
    bits: int
    kind: int
    rows: int
    columns: int
    scale_at: int
    scales: int
    zero_at: int
    stride: int
    group: int
    shift: int
    factor: int
    whole: int
    parts: int = 1
    base: int = 0
    power: int = 0
    signs: int = 0
    phase_at: int = -1
    phase_bits: int = 0
    phase_scale_at: int = -1
    phase_zero_at: int = -1

    def moved(self, to: Callable[[int], int]) -> Packed:
        """The tensor where the byte at `i` has gone to `to(i)`."""
        places = ("at", "scale_at", "zero_at", "phase_at", "phase_scale_at", "phase_zero_at")
        return self._replace(
            **{name: to(at) for name in places if (at := getattr(self, name)) >= 0}
        )


FIELDS = len(Packed._fields)
packed_of = row_reader(Packed)


@inline
def read_scale(data: Any, at: int, scales: int, i: int) -> Any:
    """Scale i of those from byte `at` on, as float32."""
    if scales == S16:
        return half_at(data, at + 2 * i)
    if scales == S32:
        return float_at(data, at + 4 * i)
    return np.float32(math.ldexp(1.0, byte_at(data, at + i)))


@inline
def read_zero(data: Any, at: int, scales: int, i: int) -> int:
    """Zero point i of those from byte `at` on."""
    return word_at(data, at + 4 * i) if scales == S32 else short_at(data, at + 2 * i)


@inline
def scale_at(data: Any, t: Packed, i: int) -> Any:
    """Scale i; 1 where there is none."""
    return np.float32(1.0) if t.scale_at < 0 else read_scale(data, t.scale_at, t.scales, i)


@inline
def zero_at(data: Any, t: Packed, i: int) -> int:
    """Zero point i; 0 where there is none."""
    return 0 if t.zero_at < 0 else read_zero(data, t.zero_at, t.scales, i)


@inline
def flip_of(t: Packed) -> Ints:
    """The bit to flip so that codes in two's complement count up from 0."""
    return every_int(1 << (t.bits - 1) if t.kind == SIGNED else 0)


@inline
def level_of(zero: int, t: Packed) -> Ints:
    """The number to subtract from codes whose highest bit was flipped."""
    return every_int(1 << (t.bits - 1) if t.kind == SIGNED else zero)


@inline
def integers(codes: Ints, flip: Ints, level: Ints) -> Floats:
    """The numbers that codes of SIGNED and OFFSET name, before the scale."""
    return whole_numbers((codes ^ flip) - level)


@inline
def small_floats(codes: Ints, t: Packed) -> Floats:
    """The numbers that codes of SMALL name, before the scale."""
    sign = shift_right(codes, every_int(t.bits - 1))
    magnitude = codes & every_int((1 << (t.bits - 1)) - 1)
    x = from_bits(shift_left(magnitude, every_int(t.shift)))
    x = x * from_bits(every_int((t.factor + 127) << 23))
    return from_bits(bits(x) | shift_left(sign, every_int(31)))


@inline
def values(codes: Ints, zero: int, t: Packed) -> Floats:
    """The numbers codes name, before the scale."""
    if t.kind == SMALL:
        return small_floats(codes, t)
    return integers(codes, flip_of(t), level_of(zero, t))


@inline
def by_turns(even: float, odd: float) -> Floats:
    """Two numbers in places 0, 2, 4, … and 1, 3, 5, …"""
    turn = number(places() & every_int(1))
    return choose(less(every(_HALF), turn), every(odd), every(even))


@inline
def code_at(data: Any, t: Packed, i: int) -> int:
    """Code i of the tensor, wherever it lies."""
    return code_from(data, t.at, t.bits, i)


@inline
def code_from(data: Any, at: int, bits: int, i: int) -> int:
    """Code i of those of `bits` bits from byte `at` on."""
    first = i * bits
    word: Any = 0
    for k in range((first % 8 + bits + 7) // 8):
        word |= np.int64(data[at + first // 8 + k]) << (8 * k)
    return (word >> (first % 8)) & ((1 << bits) - 1)


@inline
def value_at(data: Any, t: Packed, row: int, column: int) -> Any:
    """One number, scaled, as float32."""
    i = row * t.columns + column
    if t.kind == SINGLE:
        return float_at(data, t.at + 4 * i)
    if t.kind == HALF:
        return half_at(data, t.at + 2 * i)
    if t.kind == BFLOAT:
        word = every_int(short_at(data, t.at + 2 * i) << 16)
        return lane(from_bits(word), 0)
    at = row * t.stride + column // t.group * t.parts + column % t.parts
    scale, zero = scale_at(data, t, at), zero_at(data, t, at)
    found = values(every_int(code_at(data, t, i)), zero, t) * every(scale)
    return lane(found, 0)
