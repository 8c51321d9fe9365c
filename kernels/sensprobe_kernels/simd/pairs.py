"""Thirty-two whole numbers of sixteen bits as one value inside Numba functions: integer products.

    Shorts   thirty-two int16

`dotted` multiplies them by others and adds up pairs of products in int32, exactly: what processors
have one instruction for (vpdpwssd, vpmaddwd). Codes of b bits are read thirty-two at a time; of
OFFSET ones the highest bit is flipped, so that they count from -2^(b-1) upward as signed ones do.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from llvmlite import ir
from numba.core import cgutils, types
from numba.extending import register_model

from sensprobe_kernels.simd.octets import (
    _BYTE,
    _SHORT,
    _WORD,
    _at,
    _constants,
    _first_bytes,
    _masked_bytes,
)
from sensprobe_kernels.simd.vector import _F, _I, LANES, _Lanes, _LanesModel, intrinsic

PAIRS = 2 * LANES

Shorts = Any


class _PairsType(_Lanes):
    def __init__(self) -> None:
        types.Type.__init__(self, name=f"int16x{PAIRS}")
        self.llvm = ir.VectorType(_SHORT, PAIRS)


_S = _PairsType()
register_model(_PairsType)(_LanesModel)


def _everywhere(builder: Any, short: Any) -> Any:
    none = ir.Constant(_S.llvm, ir.Undefined)
    one = builder.insert_element(none, short, _WORD(0))
    return builder.shuffle_vector(one, none, _constants([0] * PAIRS))


# -- codes ----------------------------------------------------------------------------------------


def _signed(builder: Any, line: Any, bits: int, flip: Any) -> Any:
    """4 b bytes as thirty-two signed codes, their highest bits flipped where `flip` has its."""
    if bits == 8:
        line = builder.xor(
            line, builder.trunc(builder.lshr(flip, flip.type([8] * PAIRS)), line.type)
        )
        return builder.sext(line, _S.llvm)
    size = 4 * bits
    chosen = [min(i * bits // 8 + k, size - 1) for i in range(PAIRS) for k in (0, 1)]
    none = ir.Constant(line.type, ir.Undefined)
    codes = builder.bitcast(builder.shuffle_vector(line, none, _constants(chosen)), _S.llvm)
    up = [16 - bits - i * bits % 8 for i in range(PAIRS)]
    codes = builder.xor(builder.shl(codes, _constants(up, _SHORT)), flip)
    return builder.ashr(codes, _constants([16 - bits] * PAIRS, _SHORT))


def pair_reader(bits: int) -> Any:
    """A function (bytes, at, flip) -> Shorts: the thirty-two codes from byte `at` on."""
    line_type = ir.VectorType(_BYTE, 4 * bits)

    def codes(typing: Any, array: Any, at: Any, flip: Any) -> Any:
        def lower(context: Any, builder: Any, sig: Any, args: Any) -> Any:
            array, at, flip = args
            place = _at(context, builder, sig.args[0], array, at, line_type)
            return _signed(builder, builder.load(place, align=1), bits, flip)

        return _S(array, types.intp, _S), lower

    return intrinsic(codes)


def first_pair_reader(bits: int) -> Any:
    """A function (bytes, at, count, flip) -> Shorts: as `pair_reader`, of which only the bytes of
    the first `count` codes are read; the others are any."""
    line_type = ir.VectorType(_BYTE, 4 * bits)

    def codes(typing: Any, array: Any, at: Any, count: Any, flip: Any) -> Any:
        def lower(context: Any, builder: Any, sig: Any, args: Any) -> Any:
            array, at, count, flip = args
            place = _at(context, builder, sig.args[0], array, at, line_type)
            line = _masked_bytes(builder, place, _first_bytes(builder, count, bits, 4 * bits))
            return _signed(builder, line, bits, flip)

        return _S(array, types.intp, types.intp, _S), lower

    return intrinsic(codes)


@intrinsic
def every_short(typing: Any, value: Any) -> Any:
    """One whole number in all thirty-two places, modulo 2^16."""

    def lower(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        return _everywhere(builder, builder.trunc(args[0], _SHORT))

    return _S(types.int64), lower


# -- memory ---------------------------------------------------------------------------------------


@intrinsic
def load_shorts(typing: Any, array: Any, at: Any) -> Any:
    """Thirty-two numbers of a flat int16 array, from position `at`."""

    def lower(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        array, at = args
        return builder.load(_at(context, builder, sig.args[0], array, at, _S.llvm), align=2)

    return _S(array, types.intp), lower


@intrinsic
def load_first_shorts(typing: Any, array: Any, at: Any, count: Any) -> Any:
    """The first `count` of them, and 0 in the places left."""

    def lower(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        array, at, count = args
        place = _at(context, builder, sig.args[0], array, at, _S.llvm)
        every = _everywhere(builder, builder.trunc(count, _SHORT))
        mask = builder.icmp_signed("<", _constants(list(range(PAIRS)), _SHORT), every)
        function = cgutils.get_or_insert_function(
            builder.module,
            ir.FunctionType(_S.llvm, [place.type, _WORD, mask.type, _S.llvm]),
            f"llvm.masked.load.v{PAIRS}i16.p0",
        )
        return builder.call(function, [place, _WORD(2), mask, cgutils.get_null_value(_S.llvm)])

    return _S(array, types.intp, types.intp), lower


@intrinsic
def put_shorts(typing: Any, array: Any, at: Any, values: Any) -> Any:
    """Write sixteen Ints to a flat int16 array, from position `at`."""

    def lower(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        array, at, values = args
        kind = ir.VectorType(_SHORT, LANES)
        place = _at(context, builder, sig.args[0], array, at, kind)
        builder.store(builder.trunc(values, kind), place, align=2)
        return context.get_dummy_value()

    return types.void(array, types.intp, _I), lower


# -- sums -----------------------------------------------------------------------------------------


@intrinsic
def dotted(typing: Any, total: Any, a: Any, b: Any) -> Any:
    """total_i + a_2i b_2i + a_2i+1 b_2i+1, modulo 2^32."""

    def lower(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        total, a, b = args
        wide = ir.VectorType(_WORD, PAIRS)
        products = builder.mul(builder.sext(a, wide), builder.sext(b, wide))
        none = ir.Constant(wide, ir.Undefined)
        even, odd = (
            builder.shuffle_vector(products, none, _constants(list(range(first, PAIRS, 2))))
            for first in (0, 1)
        )
        return builder.add(total, builder.add(even, odd))

    return _I(_I, _S, _S), lower


@intrinsic
def four_totals(typing: Any, a: Any, b: Any, c: Any, d: Any) -> Any:
    """The sums of four times sixteen whole numbers, modulo 2^32, in the first four places."""

    def lower(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        def folded(x: Any, y: Any, width: int) -> Any:
            """Runs of `width` numbers of x and y by turns, each the sum of two of their halves."""
            runs = [range(i, i + width) for i in range(0, 2 * LANES, width)]
            mine, others = runs[: len(runs) // 2], runs[len(runs) // 2 :]
            low = [
                i for pair in zip(mine[::2], others[::2], strict=True) for run in pair for i in run
            ]
            high = [
                i
                for pair in zip(mine[1::2], others[1::2], strict=True)
                for run in pair
                for i in run
            ]
            return builder.add(
                builder.shuffle_vector(x, y, _constants(low)),
                builder.shuffle_vector(x, y, _constants(high)),
            )

        a, b, c, d = args
        # places by turns: a b a b …, then a c b d …: pairs of numbers halve at each step
        ab, cd = folded(a, b, 1), folded(c, d, 1)
        line, size = folded(ab, cd, 2), LANES
        while size > 4:
            size //= 2
            turned = [(i + size) % LANES for i in range(LANES)]
            line = builder.add(line, builder.shuffle_vector(line, line, _constants(turned)))
        return line

    return _I(_I, _I, _I, _I), lower


def _four(kind: Any, scalar: Any, narrow: Callable[[Any, Any], Any], doc: str) -> Any:
    def typed(typing: Any, a: Any, b: Any, c: Any, d: Any) -> Any:
        def lower(context: Any, builder: Any, sig: Any, args: Any) -> Any:
            line = cgutils.get_null_value(kind.llvm)
            for i, value in enumerate(args):
                line = builder.insert_element(line, narrow(builder, value), _WORD(i))
            return line

        return kind(scalar, scalar, scalar, scalar), lower

    typed.__doc__ = doc
    return intrinsic(typed)


four_floats = _four(_F, types.float32, lambda b, v: v, "Four float32, and 0 in the places left.")
four_ints = _four(
    _I, types.int64, lambda b, v: b.trunc(v, _WORD), "Four whole numbers, modulo 2^32, and 0."
)


@intrinsic
def times(typing: Any, a: Any, b: Any) -> Any:
    """a b, modulo 2^32."""

    def lower(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        return builder.mul(*args)

    return _I(_I, _I), lower
