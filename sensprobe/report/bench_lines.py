"""What of a bench is drawn, on screen and in print.

A line an operation and scheme, a mark a shape.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import isfinite
from typing import NamedTuple

from sensprobe.report.bench_tables import PERCENT
from sensprobe.report.benches import BenchCase, BenchRun

TICKS = tuple(m * 10.0**k for k in range(-3, 5) for m in (1, 2, 5))


class Shown(NamedTuple):
    """A value of a case, its ends by the quartiles of what was timed, and the value at which it is
    as fast as what it is compared with."""

    title: str
    heading: str
    log: bool
    value: Callable[[BenchCase], float]
    ends: Callable[[BenchCase], tuple[float, float]]
    same: float


COPY = Shown(
    "Bandwidth beside that of copying memory",
    "bytes that must move over the time (% of copying)",
    False,
    lambda c: PERCENT * c.of_copy,
    lambda c: (PERCENT * c.copy_range[0], PERCENT * c.copy_range[1]),
    100.0,
)
TORCH = Shown(
    "Speed beside PyTorch",
    "times as fast as PyTorch (log scale)",
    True,
    lambda c: c.ratio,
    lambda c: (c.ratio_low, c.ratio_high),
    1.0,
)


def drawn(shown: Shown, bench: BenchRun) -> list[BenchCase]:
    """The cases that have the value."""
    return [c for c in bench.cases if isfinite(shown.value(c)) and shown.value(c) > 0]


def lines_of(cases: Sequence[BenchCase]) -> dict[tuple[str, str], int]:
    """(operation, scheme) -> its line, from the top; an operation's own line has no scheme."""
    schemes: dict[str, dict[str, None]] = {}
    for case in cases:
        schemes.setdefault(case.operation, {})[case.scheme] = None
    names = [(op, scheme) for op, found in schemes.items() for scheme in ("", *found)]
    return {name: k for k, name in enumerate(names)}


def across(shown: Shown, cases: Sequence[BenchCase]) -> tuple[float, float]:
    """The ends of the axis: every mark, and where a case is as fast as what it is compared with."""
    values = [shown.same, *(shown.value(c) for c in cases)]
    return (0.8 * min(values), 1.25 * max(values)) if shown.log else (0.0, 1.05 * max(values))


def spread(shown: Shown, cases: Sequence[BenchCase]) -> tuple[list[float], list[float]]:
    """How far bars reach below and above each mark, NaN where quartiles are not known.
    A median that lies outside them turns none around."""
    ends = [(shown.value(c), *shown.ends(c)) for c in cases]
    return [max(v - low, 0.0) for v, low, _ in ends], [max(up - v, 0.0) for v, _, up in ends]
