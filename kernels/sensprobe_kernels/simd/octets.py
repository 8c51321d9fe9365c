"""Reading and writing packed memory inside Numba functions: a flat uint8 array and byte offsets.

Codes are laid out as `layout` says, so sixteen codes of b bits that start at a whole byte take 2 b
bytes. Nothing outside the bytes named is touched: an array may end where its last code does.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from llvmlite import ir
from numba.core import cgutils, types

from sensprobe_kernels.simd.vector import _F, _I, LANES, _pointer, _splat, intrinsic

_BYTE, _SHORT, _WORD = ir.IntType(8), ir.IntType(16), ir.IntType(32)


def _vector(element: ir.Type, size: int = LANES) -> ir.VectorType:
    return ir.VectorType(element, size)


def _constants(numbers: list[int], element: ir.Type = _WORD) -> ir.Constant:
    return ir.Constant(_vector(element, len(numbers)), numbers)


def _at(context: Any, builder: Any, array_type: Any, array: Any, at: Any, kind: ir.Type) -> Any:
    """A pointer to a number of that kind at a byte."""
    place = _pointer(context, builder, array_type, array, at)
    return builder.bitcast(place, kind.as_pointer())


# -- codes ----------------------------------------------------------------------------------------


def _spread_out(builder: Any, line: Any, bits: int, signed: bool = False) -> Any:
    """2 b bytes as sixteen codes in the low bits of 32, signed ones filled with their sign."""
    size = 2 * bits
    undefined = ir.Constant(_vector(_BYTE, size), ir.Undefined)

    def bytes_of(shift: int) -> Any:
        chosen = [min((i * bits + shift) // 8, size - 1) for i in range(LANES)]
        picked = builder.shuffle_vector(line, undefined, _constants(chosen))
        return builder.zext(picked, _I.llvm)

    if bits == 8 and not signed:
        return bytes_of(0)
    codes = bytes_of(0)
    if 8 % bits:  # some codes lie in two bytes
        codes = builder.or_(codes, builder.shl(bytes_of(8), _constants([8] * LANES)))
    if signed:
        up = [32 - bits - i * bits % 8 for i in range(LANES)]
        return builder.ashr(builder.shl(codes, _constants(up)), _constants([32 - bits] * LANES))
    codes = builder.lshr(codes, _constants([i * bits % 8 for i in range(LANES)]))
    return builder.and_(codes, _constants([(1 << bits) - 1] * LANES))


def _first_bytes(builder: Any, count: Any, bits: int, size: int) -> Any:
    """A mask of those of `size` bytes that the first `count` codes of `bits` bits lie in."""
    filled = builder.add(builder.mul(count, count.type(bits)), count.type(7))
    there = builder.trunc(builder.lshr(filled, count.type(3)), _BYTE)
    none = ir.Constant(_vector(_BYTE, size), ir.Undefined)
    one = builder.insert_element(none, there, _WORD(0))
    every = builder.shuffle_vector(one, none, _constants([0] * size))
    return builder.icmp_unsigned("<", _constants(list(range(size)), _BYTE), every)


def _masked_bytes(builder: Any, place: Any, mask: Any) -> Any:
    """Bytes from a place where the mask says so, 0 elsewhere."""
    kind, size = place.type.pointee, mask.type.count
    function = cgutils.get_or_insert_function(
        builder.module,
        ir.FunctionType(kind, [place.type, _WORD, mask.type, kind]),
        f"llvm.masked.load.v{size}i8.p0",
    )
    return builder.call(function, [place, _WORD(1), mask, cgutils.get_null_value(kind)])


def reader(bits: int, signed: bool = False) -> Any:
    """A function (bytes, at) -> Ints: the sixteen codes of `bits` bits from byte `at` on."""
    line_type = _vector(_BYTE, 2 * bits)

    def codes(typing: Any, array: Any, at: Any) -> Any:
        def lower(context: Any, builder: Any, sig: Any, args: Any) -> Any:
            array, at = args
            place = _at(context, builder, sig.args[0], array, at, line_type)
            return _spread_out(builder, builder.load(place, align=1), bits, signed)

        return _I(array, types.intp), lower

    return intrinsic(codes)


def first_reader(bits: int, signed: bool = False) -> Any:
    """A function (bytes, at, count) -> Ints: as `reader`, of which only the first `count` codes'
    bytes are read and the others are 0."""
    size = 2 * bits
    line_type = _vector(_BYTE, size)

    def codes(typing: Any, array: Any, at: Any, count: Any) -> Any:
        def lower(context: Any, builder: Any, sig: Any, args: Any) -> Any:
            array, at, count = args
            place = _at(context, builder, sig.args[0], array, at, line_type)
            line = _masked_bytes(builder, place, _first_bytes(builder, count, bits, size))
            found = _spread_out(builder, line, bits, signed)
            lanes = _constants(list(range(LANES)))
            inside = builder.icmp_signed(
                "<", lanes, _splat(builder, builder.trunc(count, _WORD), _WORD)
            )
            return builder.select(inside, found, cgutils.get_null_value(_I.llvm))

        return _I(array, types.intp, types.intp), lower

    return intrinsic(codes)


def writer(bits: int) -> Any:
    """A function (bytes, at, count, codes) that writes the low bits of the first `count` of sixteen
    whole numbers from byte `at` on; count · bits is a multiple of 8."""
    whole = ir.IntType(LANES * bits)
    size = 2 * bits
    line_type = _vector(_BYTE, size)

    def put(typing: Any, array: Any, at: Any, count: Any, codes: Any) -> Any:
        def lower(context: Any, builder: Any, sig: Any, args: Any) -> Any:
            array, at, count, codes = args
            place = _at(context, builder, sig.args[0], array, at, line_type)
            line = _drawn_together(builder, codes, bits, whole, line_type)
            mask = _first_bytes(builder, count, bits, size)
            kind = ir.FunctionType(
                ir.VoidType(), [line_type, line_type.as_pointer(), _WORD, mask.type]
            )
            name = f"llvm.masked.store.v{size}i8.p0"
            function = cgutils.get_or_insert_function(builder.module, kind, name)
            builder.call(function, [line, place, _WORD(1), mask])
            return context.get_dummy_value()

        return types.void(array, types.intp, types.intp, _I), lower

    return intrinsic(put)


def _drawn_together(builder: Any, codes: Any, bits: int, whole: Any, line_type: Any) -> Any:
    """The low bits of sixteen whole numbers, one after the other, as 2 b bytes."""
    if bits == 8:
        return builder.trunc(codes, line_type)
    line = builder.trunc(codes, _vector(ir.IntType(bits)))
    return builder.bitcast(builder.bitcast(line, whole), line_type)


# -- numbers of sixteen and of thirty-two bits ----------------------------------------------------


def _one_reader(kind: ir.Type, out: Any, widen: Callable[[Any, Any], Any], doc: str) -> Any:
    def typed(typing: Any, array: Any, at: Any) -> Any:
        def lower(context: Any, builder: Any, sig: Any, args: Any) -> Any:
            array, at = args
            place = _at(context, builder, sig.args[0], array, at, kind)
            return widen(builder, builder.load(place, align=1))

        return out(array, types.intp), lower

    typed.__doc__ = doc
    return intrinsic(typed)


def _one_writer(kind: ir.Type, value_type: Any, narrow: Callable[[Any, Any], Any], doc: str) -> Any:
    def typed(typing: Any, array: Any, at: Any, value: Any) -> Any:
        def lower(context: Any, builder: Any, sig: Any, args: Any) -> Any:
            array, at, value = args
            place = _at(context, builder, sig.args[0], array, at, kind)
            builder.store(narrow(builder, value), place, align=1)
            return context.get_dummy_value()

        return types.void(array, types.intp, value_type), lower

    typed.__doc__ = doc
    return intrinsic(typed)


def _bfloat(builder: Any, bits: Any, wide: Any, element: Any) -> Any:
    """Sixteen bits as the upper half of a float32."""
    word = builder.zext(bits, wide)
    amount = _constants([16] * LANES) if isinstance(wide, ir.VectorType) else _WORD(16)
    return builder.bitcast(builder.shl(word, amount), element)


def _upper(builder: Any, value: Any, wide: Any, narrow: Any) -> Any:
    word = builder.bitcast(value, wide)
    amount = _constants([16] * LANES) if isinstance(wide, ir.VectorType) else _WORD(16)
    return builder.trunc(builder.lshr(word, amount), narrow)


_HALF, _FLOAT = ir.HalfType(), ir.FloatType()
_WORDS, _SHORTS, _HALVES = _vector(_WORD), _vector(_SHORT), _vector(_HALF)

half_at = _one_reader(
    _HALF, types.float32, lambda b, v: b.fpext(v, _FLOAT), "One float16, as float32."
)
float_at = _one_reader(_FLOAT, types.float32, lambda b, v: v, "One float32.")
byte_at = _one_reader(_BYTE, types.int64, lambda b, v: b.sext(v, ir.IntType(64)), "One int8.")
short_at = _one_reader(_SHORT, types.int64, lambda b, v: b.sext(v, ir.IntType(64)), "One int16.")
word_at = _one_reader(_WORD, types.int64, lambda b, v: b.sext(v, ir.IntType(64)), "One int32.")
halves_at = _one_reader(
    _HALVES, _F, lambda b, v: b.fpext(v, _F.llvm), "Sixteen float16, as Floats."
)
bfloats_at = _one_reader(
    _SHORTS, _F, lambda b, v: _bfloat(b, v, _WORDS, _F.llvm), "Sixteen bfloat16, as Floats."
)
floats_at = _one_reader(_F.llvm, _F, lambda b, v: v, "Sixteen float32, as Floats.")

put_half = _one_writer(
    _HALF, types.float32, lambda b, v: b.fptrunc(v, _HALF), "Write a float32 as float16."
)
put_float = _one_writer(_FLOAT, types.float32, lambda b, v: v, "Write a float32.")
put_byte = _one_writer(_BYTE, types.int64, lambda b, v: b.trunc(v, _BYTE), "Write an int8.")
put_short = _one_writer(_SHORT, types.int64, lambda b, v: b.trunc(v, _SHORT), "Write an int16.")
put_word = _one_writer(_WORD, types.int64, lambda b, v: b.trunc(v, _WORD), "Write an int32.")
put_halves = _one_writer(
    _HALVES, _F, lambda b, v: b.fptrunc(v, _HALVES), "Write Floats as float16."
)
put_bfloats = _one_writer(
    _SHORTS, _F, lambda b, v: _upper(b, v, _WORDS, _SHORTS),
    "Write the upper halves of Floats: bfloat16 where the lower ones are 0.",
)  # fmt: skip
put_floats = _one_writer(_F.llvm, _F, lambda b, v: v, "Write Floats.")


@intrinsic
def lane(typing: Any, values: Any, place: Any) -> Any:
    """One of sixteen float32 numbers."""

    def lower(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        return builder.extract_element(args[0], builder.trunc(args[1], _WORD))

    return types.float32(_F, types.intp), lower


@intrinsic
def first_int(typing: Any, values: Any) -> Any:
    """The first of sixteen whole numbers."""

    def lower(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        return builder.sext(builder.extract_element(args[0], _WORD(0)), ir.IntType(64))

    return types.int64(_I), lower


@intrinsic
def whole_numbers(typing: Any, values: Any) -> Any:
    """Signed whole numbers as float32."""

    def lower(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        return builder.sitofp(args[0], _F.llvm)

    return _F(_I), lower


@intrinsic
def rounded_off(typing: Any, values: Any) -> Any:
    """Float32 numbers that are whole, as Ints."""

    def lower(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        return builder.fptosi(args[0], _I.llvm)

    return _I(_F), lower
