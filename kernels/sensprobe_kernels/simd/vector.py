"""Sixteen float32 numbers as one value inside Numba functions.

    Floats   sixteen float32        Ints   their bits, as int32        Mask   sixteen yes or no

`+ - * /` on Floats are single IEEE operations: nothing is reordered or contracted, and a loop needs
no luck with the vectoriser. On a processor with narrower registers a value takes several, with the
same results. `fused` is the one fused multiply-add, used only where it is asked for by name.

Comparisons are false for NaN, so the order of the arguments of a `choose` decides what NaN does.
"""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Any

from llvmlite import ir
from numba import extending
from numba.core import cgutils, types
from numba.core.typing.templates import ConcreteTemplate, infer_global, signature
from numba.extending import lower_builtin, models, register_model

LANES = 16

intrinsic: Any = extending.intrinsic  # its own annotations describe what Numba calls, not us

Floats = Any
Ints = Any
Mask = Any


class _Lanes(types.Type):
    def __init__(self, name: str, element: ir.Type) -> None:
        super().__init__(name=f"{name}x{LANES}")
        self.llvm = ir.VectorType(element, LANES)


_F = _Lanes("float32", ir.FloatType())
_I = _Lanes("int32", ir.IntType(32))
_M = _Lanes("mask", ir.IntType(1))


@register_model(_Lanes)
class _LanesModel(models.PrimitiveModel):
    def __init__(self, dmm: Any, fe_type: _Lanes) -> None:
        super().__init__(dmm, fe_type, fe_type.llvm)


# -- operators ------------------------------------------------------------------------------------


def _operator(symbol: Callable, floats: str | None, ints: str | None) -> None:
    """Give an operator its meaning on Floats and on Ints, as names of LLVM instructions."""
    kinds = [(kind, name) for kind, name in ((_F, floats), (_I, ints)) if name is not None]

    @infer_global(symbol)
    class Template(ConcreteTemplate):
        cases = [signature(kind, kind, kind) for kind, _ in kinds]  # noqa: RUF012

    for kind, name in kinds:

        def lower(context: Any, builder: Any, sig: Any, args: Any, name: str = name) -> Any:
            return getattr(builder, name)(*args)

        lower_builtin(symbol, kind, kind)(lower)


_operator(operator.add, "fadd", "add")
_operator(operator.sub, "fsub", "sub")
_operator(operator.mul, "fmul", None)
_operator(operator.truediv, "fdiv", None)
_operator(operator.and_, None, "and_")
_operator(operator.or_, None, "or_")
_operator(operator.xor, None, "xor")


# -- memory ---------------------------------------------------------------------------------------


def _pointer(context: Any, builder: Any, array_type: Any, array: Any, at: Any) -> Any:
    data = context.make_array(array_type)(context, builder, array).data
    return builder.gep(data, [at])


@intrinsic
def load(typing: Any, array: Any, at: Any) -> Any:
    """Sixteen numbers of a flat float32 array, from position `at`."""

    def lower(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        place = _pointer(context, builder, sig.args[0], *args)
        return builder.load(builder.bitcast(place, _F.llvm.as_pointer()), align=4)

    return _F(array, types.intp), lower


@intrinsic
def store(typing: Any, array: Any, at: Any, value: Any) -> Any:
    """Write sixteen numbers to a flat float32 array, from position `at`."""

    def lower(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        array, at, value = args
        place = _pointer(context, builder, sig.args[0], array, at)
        builder.store(value, builder.bitcast(place, _F.llvm.as_pointer()), align=4)
        return context.get_dummy_value()

    return types.void(array, types.intp, _F), lower


@intrinsic
def prefetch(typing: Any, array: Any, at: Any) -> Any:
    """Ask for the cache line of a position, which may lie outside the array, of any type."""

    def lower(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        byte, word = ir.IntType(8).as_pointer(), ir.IntType(32)
        place = builder.bitcast(_pointer(context, builder, sig.args[0], *args), byte)
        kind = ir.FunctionType(ir.VoidType(), [byte, word, word, word])
        function = cgutils.get_or_insert_function(builder.module, kind, "llvm.prefetch.p0")
        builder.call(function, [place, word(0), word(3), word(1)])  # to read, to keep, data
        return context.get_dummy_value()

    return types.void(array, types.intp), lower


def _splat(builder: Any, scalar: Any, element: ir.Type) -> Any:
    vector = ir.VectorType(element, LANES)
    one = builder.insert_element(ir.Constant(vector, ir.Undefined), scalar, ir.IntType(32)(0))
    places = ir.Constant(ir.VectorType(ir.IntType(32), LANES), [0] * LANES)
    return builder.shuffle_vector(one, ir.Constant(vector, ir.Undefined), places)


@intrinsic
def spread(typing: Any, array: Any, at: Any) -> Any:
    """One number of a flat float32 array in all sixteen places."""

    def lower(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        scalar = builder.load(_pointer(context, builder, sig.args[0], *args))
        return _splat(builder, scalar, ir.FloatType())

    return _F(array, types.intp), lower


@intrinsic
def every(typing: Any, value: Any) -> Any:
    """One number in all sixteen places, as float32."""

    def lower(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        return _splat(builder, args[0], ir.FloatType())

    return _F(types.float32), lower


@intrinsic
def every_int(typing: Any, value: Any) -> Any:
    """One whole number in all sixteen places, modulo 2^32."""

    def lower(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        return _splat(builder, builder.trunc(args[0], ir.IntType(32)), ir.IntType(32))

    return _I(types.int64), lower


@intrinsic
def places(typing: Any) -> Any:
    """The numbers 0 to 15."""

    def lower(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        return ir.Constant(_I.llvm, list(range(LANES)))

    return _I(), lower


@intrinsic
def transpose(
    typing: Any,
    source: Any,
    at: Any,
    pitch: Any,
    rows: Any,
    columns: Any,
    target: Any,
    to: Any,
    width: Any,
) -> Any:
    """target[to + c * width + r] = source[at + r * pitch + c], both flat float32 arrays.

    For r < rows and c < columns, at most sixteen each. Other places of the source are not read,
    of the target not written.
    """

    def lower(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        source, at, pitch, rows, columns, target, to, width = args
        start = _pointer(context, builder, sig.args[0], source, at)
        lines = [
            _masked_load(builder, builder.gep(start, [builder.mul(pitch, at.type(i))]),
                         _first(builder, i, rows, columns))
            for i in range(LANES)
        ]  # fmt: skip
        start = _pointer(context, builder, sig.args[5], target, to)
        for i, line in enumerate(_transposed(builder, lines)):
            place = builder.gep(start, [builder.mul(width, at.type(i))])
            _masked_store(builder, line, place, _first(builder, i, columns, rows))
        return context.get_dummy_value()

    size = types.intp
    return types.void(source, size, size, size, size, target, size, size), lower


def _transposed(builder: Any, lines: list[Any]) -> list[Any]:
    """Rows to columns by swapping ever smaller corners: 64 shuffles of two rows."""
    half = LANES // 2
    while half:
        out = list(lines)
        for i in (i for i in range(LANES) if not i & half):
            upper = [j if not j & half else LANES + j - half for j in range(LANES)]
            lower = [j + half if not j & half else LANES + j for j in range(LANES)]
            for place, pattern in ((i, upper), (i + half, lower)):
                mask = ir.Constant(ir.VectorType(ir.IntType(32), LANES), pattern)
                out[place] = builder.shuffle_vector(lines[i], lines[i + half], mask)
        lines, half = out, half // 2
    return lines


def _first(builder: Any, line: int, lines: Any, count: Any) -> Any:
    """A mask of the first `count` places if `line` is one of the first `lines`, else of none."""
    inside = builder.icmp_signed("<", lines.type(line), lines)
    count = builder.trunc(builder.select(inside, count, count.type(0)), ir.IntType(32))
    numbers = ir.Constant(_I.llvm, list(range(LANES)))
    return builder.icmp_signed("<", numbers, _splat(builder, count, ir.IntType(32)))


def _masked_load(builder: Any, place: Any, mask: Any) -> Any:
    pointer = _F.llvm.as_pointer()
    kind = ir.FunctionType(_F.llvm, [pointer, ir.IntType(32), _M.llvm, _F.llvm])
    name = f"llvm.masked.load.v{LANES}f32.p0"
    function = cgutils.get_or_insert_function(builder.module, kind, name)
    zero = cgutils.get_null_value(_F.llvm)
    return builder.call(function, [builder.bitcast(place, pointer), ir.IntType(32)(4), mask, zero])


def _masked_store(builder: Any, value: Any, place: Any, mask: Any) -> None:
    pointer = _F.llvm.as_pointer()
    kind = ir.FunctionType(ir.VoidType(), [_F.llvm, pointer, ir.IntType(32), _M.llvm])
    name = f"llvm.masked.store.v{LANES}f32.p0"
    function = cgutils.get_or_insert_function(builder.module, kind, name)
    builder.call(function, [value, builder.bitcast(place, pointer), ir.IntType(32)(4), mask])


@intrinsic
def load_first(typing: Any, array: Any, at: Any, count: Any, others: Any) -> Any:
    """The first `count` of sixteen numbers from position `at`, and `others` in the places left."""

    def lower(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        array, at, count, others = args
        mask = _first(builder, 0, count.type(1), count)
        line = _masked_load(builder, _pointer(context, builder, sig.args[0], array, at), mask)
        return builder.select(mask, line, others)

    return _F(array, types.intp, types.intp, _F), lower


@intrinsic
def store_first(typing: Any, array: Any, at: Any, count: Any, value: Any) -> Any:
    """Write the first `count` of sixteen numbers from position `at`."""

    def lower(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        array, at, count, value = args
        mask = _first(builder, 0, count.type(1), count)
        _masked_store(builder, value, _pointer(context, builder, sig.args[0], array, at), mask)
        return context.get_dummy_value()

    return types.void(array, types.intp, types.intp, _F), lower


# -- one value ------------------------------------------------------------------------------------


def _unary(kind: _Lanes, out: _Lanes, emit: Callable[[Any, Any], Any], doc: str) -> Any:
    def typed(typing: Any, value: Any) -> Any:
        return out(kind), lambda context, builder, sig, args: emit(builder, args[0])

    typed.__doc__ = doc
    return intrinsic(typed)


def _llvm(name: str) -> Callable[..., Any]:
    """A call of one of LLVM's own functions on Floats."""

    def emit(builder: Any, *values: Any) -> Any:
        kind = ir.FunctionType(_F.llvm, [_F.llvm] * len(values))
        name_ = f"llvm.{name}.v{LANES}f32"
        return builder.call(cgutils.get_or_insert_function(builder.module, kind, name_), values)

    return emit


rint = _unary(_F, _F, _llvm("rint"), "Nearest whole number, ties to even.")
trunc = _unary(_F, _F, _llvm("trunc"), "The whole number next towards zero.")
floor = _unary(_F, _F, _llvm("floor"), "The whole number below.")
absolute = _unary(_F, _F, _llvm("fabs"), "|x|.")
negative = _unary(_F, _F, lambda b, v: b.fneg(v), "-x.")
bits = _unary(_F, _I, lambda b, v: b.bitcast(v, _I.llvm), "The bits of each number.")
from_bits = _unary(_I, _F, lambda b, v: b.bitcast(v, _F.llvm), "The numbers with these bits.")
number = _unary(_I, _F, lambda b, v: b.uitofp(v, _F.llvm), "Unsigned whole numbers as float32.")
is_nan = _unary(_F, _M, lambda b, v: b.fcmp_unordered("uno", v, v), "Where x is not a number.")


@intrinsic
def fused(typing: Any, a: Any, b: Any, c: Any) -> Any:
    """a * b + c, rounded once."""

    def lower(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        return _llvm("fma")(builder, *args)

    return _F(_F, _F, _F), lower


def _butterfly(half: int) -> Any:
    """a + b and a - b of numbers that are `half` places apart, each where one of them was."""

    def emit(builder: Any, x: Any) -> Any:
        lower, upper = (
            builder.shuffle_vector(x, x, ir.Constant(_I.llvm, [chosen(i) for i in range(LANES)]))
            for chosen in (lambda i: i & ~half, lambda i: i | half)
        )
        first = ir.Constant(_M.llvm, [not i & half for i in range(LANES)])
        return builder.select(first, builder.fadd(lower, upper), builder.fsub(lower, upper))

    return _unary(_F, _F, emit, _butterfly.__doc__ or "")


butterfly1, butterfly2, butterfly4, butterfly8 = (_butterfly(half) for half in (1, 2, 4, 8))


def _shuffled(builder: Any, a: Any, b: Any, pattern: list[int]) -> Any:
    """The numbers of a (0 to 15) and b (16 to 31) that a pattern names."""
    return builder.shuffle_vector(a, b, ir.Constant(_I.llvm, pattern))


neighbours = _unary(
    _F, _F, lambda b, v: _shuffled(b, v, v, [i ^ 1 for i in range(LANES)]),
    "Each number in the place of its neighbour: 1, 0, 3, 2, …",
)  # fmt: skip


# -- two values -----------------------------------------------------------------------------------


def _binary(kind: _Lanes, out: _Lanes, emit: Callable[[Any, Any, Any], Any], doc: str) -> Any:
    def typed(typing: Any, a: Any, b: Any) -> Any:
        return out(kind, kind), lambda context, builder, sig, args: emit(builder, *args)

    typed.__doc__ = doc
    return intrinsic(typed)


def _products(builder: Any, a: Any, b: Any) -> tuple[Any, Any]:
    """64-bit products of the unsigned numbers in even places, and of those in odd places.

    Sixteen numbers of 32 bits are read as eight of 64, of which processors multiply the lower
    halves in one instruction; odd places are shifted down first.
    """
    wide = ir.VectorType(ir.IntType(64), LANES // 2)
    low = ir.Constant(wide, [0xFFFFFFFF] * (LANES // 2))
    up = ir.Constant(wide, [32] * (LANES // 2))
    a, b = builder.bitcast(a, wide), builder.bitcast(b, wide)
    even = builder.mul(builder.and_(a, low), builder.and_(b, low))
    return even, builder.mul(builder.lshr(a, up), builder.lshr(b, up))


def _half_of(builder: Any, a: Any, b: Any, half: int) -> Any:
    """The lower (0) or upper (1) half of every product: where `high_product` and `low_product` of
    the same numbers are asked for, the products are made once."""
    products = [builder.bitcast(p, _I.llvm) for p in _products(builder, a, b)]
    places = [i - i % 2 + half + LANES * (i % 2) for i in range(LANES)]
    return builder.shuffle_vector(*products, ir.Constant(_I.llvm, places))


def _turns(first: int) -> Callable[[Any, Any, Any], Any]:
    """Numbers of two values in turn, from a place of both on."""
    pattern = [first + i // 2 + LANES * (i % 2) for i in range(LANES)]
    return lambda builder, a, b: _shuffled(builder, a, b, pattern)


first_in_turn = _binary(_F, _F, _turns(0), "a0, b0, a1, b1, … a7, b7.")
last_in_turn = _binary(_F, _F, _turns(LANES // 2), "a8, b8, … a15, b15.")
less = _binary(_F, _M, lambda b, x, y: b.fcmp_ordered("<", x, y), "Where a < b.")
either = _binary(_M, _M, lambda b, x, y: b.or_(x, y), "Where a or b.")
low_product = _binary(_I, _I, lambda b, x, y: _half_of(b, x, y, 0), "Low half of a 64-bit product.")
high_product = _binary(
    _I, _I, lambda b, x, y: _half_of(b, x, y, 1), "High half of an unsigned 64-bit product."
)
shift_sign = _binary(_I, _I, lambda b, x, y: b.ashr(x, y), "a >> b, filled with a's sign.")
shift_right = _binary(_I, _I, lambda b, x, y: b.lshr(x, y), "a >> b, filled with zeros.")
shift_left = _binary(_I, _I, lambda b, x, y: b.shl(x, y), "a << b, modulo 2^32.")
smaller = _binary(
    _I, _I, lambda b, x, y: b.select(b.icmp_signed("<", x, y), x, y), "The smaller, signed."
)
larger = _binary(
    _I, _I, lambda b, x, y: b.select(b.icmp_signed(">", x, y), x, y), "The larger, signed."
)


@intrinsic
def choose(typing: Any, mask: Any, a: Any, b: Any) -> Any:
    """a where the mask says yes, b elsewhere."""

    def lower(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        return builder.select(*args)

    return _F(_M, _F, _F), lower


@intrinsic
def largest(typing: Any, values: Any) -> Any:
    """The largest of sixteen signed whole numbers, as one."""

    def lower(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        kind = ir.FunctionType(ir.IntType(32), [_I.llvm])
        name = f"llvm.vector.reduce.smax.v{LANES}i32"
        top = builder.call(cgutils.get_or_insert_function(builder.module, kind, name), args)
        return builder.sext(top, ir.IntType(64))

    return types.int64(_I), lower


@intrinsic
def summed(typing: Any, values: Any) -> Any:
    """The sum of sixteen numbers, as one; pairs first, an order that is always the same."""

    def lower(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        line, size = args[0], LANES
        while size > 1:
            size //= 2
            pattern = [(i + size) % LANES for i in range(LANES)]
            mask = ir.Constant(ir.VectorType(ir.IntType(32), LANES), pattern)
            line = builder.fadd(line, builder.shuffle_vector(line, line, mask))
        return builder.extract_element(line, ir.IntType(32)(0))

    return types.float32(_F), lower
