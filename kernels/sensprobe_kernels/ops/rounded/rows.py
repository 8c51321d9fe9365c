"""Rounding rows of activations.

A row is cut into runs that share a dynamic scale. A run is walked in whole vectors. The last one
starts earlier, so that it ends where the run ends; in a run shorter than a vector it repeats the
first number. A number that is met twice changes no range and is written twice alike.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any, NamedTuple

import numpy as np

from sensprobe_kernels.jit import compiled, inline, inline_optimised
from sensprobe_kernels.quantize.lanes import Scale, kept, scale_from
from sensprobe_kernels.quantize.scales import Range, across, dynamic_scale, unseen, widen
from sensprobe_kernels.quantize.spec import GROUP, STATIC_EACH, Flags
from sensprobe_kernels.simd.vector import (
    LANES,
    Floats,
    every,
    load,
    load_first,
    spread,
    store,
    store_first,
)

_ZERO, _ONE = np.float32(0.0), np.float32(1.0)


class Rows(NamedTuple):
    """Flat float32 arrays. x and out: (rows, columns). known: (5, columns or 1), see `Spec.known`;
    STATIC_EACH has one a column."""

    columns: int
    run: int  # columns that share a dynamic scale
    scales: int  # how a dynamic one is stored
    x: Any
    out: Any
    known: Any
    numbers: Any


@inline
def _known(rows: Rows, column: int, count: int, flags: Flags) -> Scale:
    """The calibrated Scale of sixteen columns, of which `count` exist."""
    if flags.span != STATIC_EACH:
        return scale_from(
            spread(rows.known, 0),
            spread(rows.known, 1),
            spread(rows.known, 2),
            spread(rows.known, 3),
            spread(rows.known, 4),
            flags,
        )
    none, wide = every(_ONE), rows.columns
    return scale_from(
        load_first(rows.known, column, count, none),
        load_first(rows.known, column + wide, count, none),
        load_first(rows.known, column + 2 * wide, count, none),
        load_first(rows.known, column + 3 * wide, count, none),
        load_first(rows.known, column + 4 * wide, count, none),
        flags,
    )


@inline
def run_range(rows: Rows, start: int, stop: int, flags: Flags) -> Range:
    """The range of a run, in every lane."""
    seen = unseen(flags)
    if stop - start < LANES:
        line = load_first(rows.x, start, stop - start, spread(rows.x, start))
        return across(widen(seen, line, flags))
    for i in range(start, stop - LANES + 1, LANES):
        seen = widen(seen, load(rows.x, i), flags)
    return across(widen(seen, load(rows.x, stop - LANES), flags))


@inline
def _rounded(rows: Rows, x: Floats, scale: Scale, flags: Flags) -> Floats:
    return kept(x, scale, every(_ZERO), rows.numbers, flags)


@inline_optimised
def _write(rows: Rows, first: int, start: int, stop: int, scale: Scale, flags: Flags) -> None:
    """Round a run of the row that starts at `first`."""
    count = stop - start
    if count < LANES:
        line = load_first(rows.x, start, count, spread(rows.x, start))
        if flags.span == STATIC_EACH:
            scale = _known(rows, start - first, count, flags)
        store_first(rows.out, start, count, _rounded(rows, line, scale, flags))
        return
    for i in range(start, stop - LANES + 1, LANES):
        if flags.span == STATIC_EACH:
            scale = _known(rows, i - first, LANES, flags)
        store(rows.out, i, _rounded(rows, load(rows.x, i), scale, flags))
    last = stop - LANES
    if flags.span == STATIC_EACH:
        scale = _known(rows, last - first, LANES, flags)
    store(rows.out, last, _rounded(rows, load(rows.x, last), scale, flags))


@cache
def build(flags: Flags) -> Callable[..., None]:
    """The compiled rounding for one set of flags: takes Rows, the first row and the one after the
    last. It releases the interpreter's lock."""
    span = flags.span

    def round_rows(rows: Rows, start: int, stop: int) -> None:
        for row in range(start, stop):
            first = row * rows.columns
            if span == GROUP:
                for at in range(first, first + rows.columns, rows.run):
                    end = min(at + rows.run, first + rows.columns)
                    seen = run_range(rows, at, end, flags)
                    scale = dynamic_scale(seen, rows.numbers, rows.scales, flags)
                    _write(rows, first, at, end, scale, flags)
            else:
                scale = _known(rows, 0, 1, flags)
                _write(rows, first, first, first + rows.columns, scale, flags)

    return compiled(round_rows)
