"""Rows of large products, shared among the threads of one step.

A product is cut into pieces of its rows, and the pieces of all products of a program are numbered
in the order they are met. Whoever runs the program opens a product by raising the limit up to which
pieces may be taken; it and its helpers take the next one until none is left, and it goes on when
all are done. A number names one piece of one product, so a helper that slept through several
products takes nothing twice; one that never wakes is not waited for. Rows are computed alike
whoever does, hence results do not depend on how many there are.
"""

from __future__ import annotations

import platform
from typing import Any

from llvmlite import ir
from numba.core import cgutils, types

from sensprobe_kernels.jit import inline
from sensprobe_kernels.simd.vector import _pointer, intrinsic

# Places in the array that threads meet at, a cache line each.
NEXT, LIMIT, DONE = 0, 8, 16
GATE = 24
OVER = -1
"""The limit after the last piece has been opened."""
NONE, ENDED = -1, -2
"""In place of the number of a piece: none is open now; none will be any more."""

_LONG = ir.IntType(64)
_ARM = platform.machine() in ("arm64", "aarch64")
_PAUSE, _HINT = ("llvm.aarch64.hint", (1,)) if _ARM else ("llvm.x86.sse2.pause", ())


@intrinsic
def _read(typing: Any, gate: Any, at: Any) -> Any:
    """Read a number; all that was written before it was written can be read after."""

    def lower(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        place = _pointer(context, builder, sig.args[0], *args)
        return builder.load_atomic(place, "acquire", 8)

    return types.int64(gate, types.intp), lower


@intrinsic
def _write(typing: Any, gate: Any, at: Any, value: Any) -> Any:
    """Write a number for `_read`."""

    def lower(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        gate, at, value = args
        place = _pointer(context, builder, sig.args[0], gate, at)
        builder.store_atomic(value, place, "release", 8)
        return context.get_dummy_value()

    return types.void(gate, types.intp, types.int64), lower


@intrinsic
def _count_up(typing: Any, gate: Any, at: Any) -> Any:
    """Add one to a number."""

    def lower(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        place = _pointer(context, builder, sig.args[0], *args)
        return builder.atomic_rmw("add", place, _LONG(1), "acq_rel")

    return types.int64(gate, types.intp), lower


@intrinsic
def _swap(typing: Any, gate: Any, at: Any, old: Any, new: Any) -> Any:
    """Change a number from `old` to `new`; False if it was another."""

    def lower(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        gate, at, old, new = args
        place = _pointer(context, builder, sig.args[0], gate, at)
        found = builder.cmpxchg(place, old, new, "acq_rel", "acquire")
        return builder.extract_value(found, 1)

    return types.boolean(gate, types.intp, types.int64, types.int64), lower


@intrinsic
def _rest(typing: Any) -> Any:
    """Tell the processor that this is a loop of waiting."""

    def lower(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        numbers = [ir.IntType(32)(n) for n in _HINT]
        kind = ir.FunctionType(ir.VoidType(), [n.type for n in numbers])
        builder.call(cgutils.get_or_insert_function(builder.module, kind, _PAUSE), numbers)
        return context.get_dummy_value()

    return types.void(), lower


@inline
def take_piece(gate: Any) -> int:
    """Take the next piece: its number, or NONE or ENDED."""
    while True:
        limit, number = _read(gate, LIMIT), _read(gate, NEXT)
        if limit == OVER:
            return ENDED
        if number >= limit:
            return NONE
        if _swap(gate, NEXT, number, number + 1):
            return number


@inline
def open_pieces(gate: Any, limit: int) -> None:
    """Let pieces below a limit be taken."""
    _write(gate, LIMIT, limit)


@inline
def finish_piece(gate: Any) -> None:
    """Count a piece as done."""
    _count_up(gate, DONE)


@inline
def wait_for(gate: Any, count: int) -> None:
    """Wait until so many pieces are done."""
    while _read(gate, DONE) < count:
        _rest()


@inline
def pause() -> None:
    _rest()
