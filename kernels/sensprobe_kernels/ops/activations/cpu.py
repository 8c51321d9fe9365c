"""Rounding activations on the CPU in one pass over memory, bit for bit the reference."""

from __future__ import annotations

import numpy as np

from sensprobe_kernels.ops.activations.rows import Rows, build
from sensprobe_kernels.quantize.flags import GROUP, STATIC, STATIC_EACH
from sensprobe_kernels.quantize.store import Array, Store, known, numbers, quotient
from sensprobe_kernels.threads import spread_out

_WORK = 1 << 16
"""Least numbers that one thread takes at a time."""


def rounded(x: Array, store: Store, threads: int) -> Array:
    """x (rows, columns), C-contiguous, as its store gives it back; never STOCHASTIC.

    STATIC: `scale` and `zero` of one number, or one a column. GROUP: runs of `group` columns of a
    row share a live scale, the last run of a row may be shorter.
    """
    rows, columns = x.shape
    out = np.empty_like(x)
    if not x.size:
        return out
    span, shape = store.span, (1,)
    if span == STATIC and store.scale is not None and store.scale.size > 1:
        span, shape = STATIC_EACH, (columns,)
    if span == STATIC:  # every number alike: as many in a row as suits the threads
        columns = min(x.size, _WORK)
        rows = x.size // columns
    given = Rows(
        columns, store.group or columns, store.scales, x.reshape(-1), out.reshape(-1),
        known(store, shape).reshape(-1) if span != GROUP else np.zeros(0, np.float32),
        numbers(store),
    )  # fmt: skip
    run = build((span, store.code, store.rounding, quotient(store), int(store.asym)))
    few = max(1, _WORK // columns)
    pieces = [(i, min(i + few, rows)) for i in range(0, rows, few)]

    def work(start: int, stop: int) -> None:
        run(given, start, stop)

    spread_out(work, pieces, threads)
    if left := x.size - rows * columns:
        tail = given._replace(columns=left, x=given.x[-left:], out=given.out[-left:])
        run(tail, 0, 1)
    return out
