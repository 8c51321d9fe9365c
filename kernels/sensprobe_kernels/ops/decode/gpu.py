"""Small tensors in Triton: norms, biases, A, D and filters, decoded to scratch many at a time."""

from __future__ import annotations

import triton
import triton.language as tl

from sensprobe_kernels.packing.gpu import (
    BFLOAT,
    FIRST_POLAR,
    HALF,
    LOG_POLAR,
    OFFSET,
    SINGLE,
    SMALL,
)
from sensprobe_kernels.packing.msun.gpu import cos_sin, exp
from sensprobe_kernels.quantize.gpu import S16, S32, from_bits, to_bits


@triton.jit
def _bytes(at, count: tl.constexpr, inside):
    """A whole number of so many bytes, wherever it begins."""
    word = tl.load(at, mask=inside, other=0).to(tl.int32)
    for k in tl.static_range(1, count):
        word |= tl.load(at + k, mask=inside, other=0).to(tl.int32) << (8 * k)
    return word


@triton.jit
def _half_at(at, inside):
    return _bytes(at, 2, inside).to(tl.int16).to(tl.float16, bitcast=True).to(tl.float32)


@triton.jit
def _code(at, bits, i, inside):
    """Code i of those of `bits` bits from a pointer on."""
    bit = i * bits
    there = inside & ((bit & 7) + bits > 8)
    word = tl.load(at + (bit >> 3), mask=inside, other=0).to(tl.int32)
    word |= tl.load(at + (bit >> 3) + 1, mask=there, other=0).to(tl.int32) << 8
    word |= (
        tl.load(at + (bit >> 3) + 2, mask=there & ((bit & 7) + bits > 16), other=0).to(tl.int32)
        << 16
    )
    return (word >> (bit & 7).to(tl.int32)) & ((1 << bits) - 1)


@triton.jit
def _scale(at, scales, place, inside):
    """Scales at their places from a pointer on, as float32."""
    scale = tl.zeros(place.shape, tl.float32) + 1.0
    if scales == S16:
        scale = _half_at(at + 2 * place, inside)
    elif scales == S32:
        scale = from_bits(_bytes(at + 4 * place, 4, inside))
    else:
        power = tl.load(at + place, mask=inside, other=0).to(tl.int8)
        scale = from_bits((power.to(tl.int32) + 127) << 23)
    return scale


@triton.jit
def _field(data, at, bits, scale_at, low_at, scales, i, place, inside):
    """Codes of one field of complex numbers times their scale, plus the low end of its range."""
    x = _code(data + at, bits, i, inside).to(tl.float64)
    x = x * _scale(data + scale_at, scales, place, inside).to(tl.float64)
    if low_at >= 0:
        if scales == S32:
            x = x + from_bits(_bytes(data + low_at + 4 * place, 4, inside)).to(tl.float64)
        else:
            x = x + _half_at(data + low_at + 2 * place, inside).to(tl.float64)
    return x


@triton.jit
def _polar(data, t, i, inside, columns):
    """Numbers i of complex ones that are stored by magnitude and phase."""
    scales, group = tl.load(t + 9), tl.load(t + 12)
    place, pair = i // columns * tl.load(t + 11) + i % columns // group, i // 2
    size = _field(
        data, tl.load(t + 3), tl.load(t + 4).to(tl.int32), tl.load(t + 8), tl.load(t + 10), scales,
        pair, place, inside,
    )  # fmt: skip
    if tl.load(t + 5) == LOG_POLAR:
        size = 1.0 - exp(size)
        size = tl.where(size < 0.0, 0.0, size)
    phase = _field(
        data, tl.load(t + 20), tl.load(t + 21).to(tl.int32), tl.load(t + 22), tl.load(t + 23),
        scales, pair, place, inside,
    )  # fmt: skip
    cosine, sine = cos_sin(phase)
    return (size * tl.where((i & 1) == 1, sine, cosine)).to(tl.float32)


@triton.jit
def decode(data, table, out, FIELDS: tl.constexpr, BLOCK: tl.constexpr, POLAR: tl.constexpr):
    """Numbers of small tensors as float32, a block a program.

    data: their bytes; table: a row a program: where in `out` its first number goes, which number
    that is, how many there are, and the fields of `tensor.Packed`; POLAR: some of them are stored
    by magnitude and phase.
    """
    t = table + tl.program_id(0) * FIELDS
    to, first, count = tl.load(t), tl.load(t + 1), tl.load(t + 2)
    at, bits, kind = data + tl.load(t + 3), tl.load(t + 4).to(tl.int32), tl.load(t + 5)
    columns, scale_at, scales = tl.load(t + 7), tl.load(t + 8), tl.load(t + 9)
    zero_at, stride, group = tl.load(t + 10), tl.load(t + 11), tl.load(t + 12)
    shift, factor, parts = tl.load(t + 13), tl.load(t + 14).to(tl.int32), tl.load(t + 16)
    i = first + tl.arange(0, BLOCK)
    inside = i < first + count
    x = tl.zeros((BLOCK,), tl.float32)
    if POLAR and kind >= FIRST_POLAR:
        x = _polar(data, t, i, inside, columns)
    elif kind == SINGLE:
        x = from_bits(_bytes(at + 4 * i, 4, inside))
    elif kind == BFLOAT:
        x = from_bits(_bytes(at + 2 * i, 2, inside) << 16)
    elif kind == HALF:
        x = _half_at(at + 2 * i, inside)
    else:
        code = _code(at, bits, i, inside)
        place = i // columns * stride + i % columns // group * parts + i % columns % parts
        scale = _scale(data + scale_at, scales, place, inside)
        zero = tl.zeros((BLOCK,), tl.int32)
        if kind == OFFSET:
            if scales == S32:
                zero = _bytes(data + zero_at + 4 * place, 4, inside)
            else:
                zero = _bytes(data + zero_at + 2 * place, 2, inside).to(tl.int16).to(tl.int32)
        if kind == SMALL:
            magnitude = code & ((1 << (bits - 1)) - 1)
            x = from_bits(magnitude << shift.to(tl.int32))
            x = x * from_bits((tl.zeros((BLOCK,), tl.int32) + factor + 127) << 23)
            x = from_bits(to_bits(x) | ((code >> (bits - 1)) << 31)) * scale
        elif kind == OFFSET:
            x = (code - zero).to(tl.float32) * scale
        else:
            sign = 1 << (bits - 1)
            x = ((code ^ sign) - sign).to(tl.float32) * scale
    tl.store(out + to + tl.arange(0, BLOCK), x, mask=inside)
