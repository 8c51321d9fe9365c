"""The system's monotonic clock, as compiled code reads it: some 20 ns a reading on Linux."""

from __future__ import annotations

import time
from typing import Any

from llvmlite import ir
from numba.core import cgutils, types

from sensprobe_kernels.simd.vector import intrinsic

_LONG = ir.IntType(64)
_NANOSECONDS = 1_000_000_000


@intrinsic
def nanoseconds(typing: Any) -> Any:
    """The time in nanoseconds since an arbitrary moment."""

    def lower(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        place = cgutils.alloca_once(builder, ir.LiteralStructType([_LONG, _LONG]))  # timespec
        kind = ir.FunctionType(ir.IntType(32), [ir.IntType(32), place.type])
        read = cgutils.get_or_insert_function(builder.module, kind, "clock_gettime")
        builder.call(read, [ir.IntType(32)(time.CLOCK_MONOTONIC), place])
        now = builder.load(place)
        seconds = builder.extract_value(now, 0)
        return builder.add(builder.mul(seconds, _LONG(_NANOSECONDS)), builder.extract_value(now, 1))

    return types.int64(), lower
