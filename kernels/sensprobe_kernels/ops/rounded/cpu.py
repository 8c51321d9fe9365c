"""Rounding activations on the CPU in one pass over memory, bit for bit the reference."""

from __future__ import annotations

import numpy as np

from sensprobe_kernels.ops.rounded.rows import Rows, build
from sensprobe_kernels.quantize.spec import GROUP, STATIC, STATIC_EACH, Array, Spec
from sensprobe_kernels.threads import spread_out

_WORK = 1 << 16
"""Least numbers that one thread takes at a time."""


def rounded(x: Array, spec: Spec, threads: int) -> Array:
    """x (rows, columns), C-contiguous, rounded as `spec` says, which is never STOCHASTIC.

    STATIC: `scale` and `zero` of one number, or one a column. GROUP: runs of `group` columns of a
    row share a dynamic scale; the last run of a row may be shorter.
    """
    rows, columns = x.shape
    out = np.empty_like(x)
    if not x.size:
        return out
    flags, shape = spec.flags(), (1,)
    if flags.span == STATIC and spec.scale is not None and spec.scale.size > 1:
        flags, shape = flags._replace(span=STATIC_EACH), (columns,)
    if flags.span == STATIC:  # every number alike: as many in a row as suits the threads
        columns = min(x.size, _WORK)
        rows = x.size // columns
    given = Rows(
        columns, spec.group or columns, spec.scales, x.reshape(-1), out.reshape(-1),
        spec.known(shape).reshape(-1) if flags.span != GROUP else np.zeros(0, np.float32),
        np.array(spec.constants(), np.float32),
    )  # fmt: skip
    run = build(flags._replace(feedback=0, clip=0))
    few = max(1, _WORK // columns)
    pieces = [(i, min(i + few, rows)) for i in range(0, rows, few)]

    def work(start: int, stop: int) -> None:
        run(given, start, stop)

    spread_out(work, pieces, threads)
    if left := x.size - rows * columns:
        tail = given._replace(columns=left, x=given.x[-left:], out=given.out[-left:])
        run(tail, 0, 1)
    return out
