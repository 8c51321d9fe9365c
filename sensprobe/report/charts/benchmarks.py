"""Speeds of operations on packed memory, against copying memory and against PyTorch."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from math import isfinite
from typing import NamedTuple

from sensprobe.report.benchmark_tables import GIGA, MICRO, PERCENT
from sensprobe.report.benchmarks import Benchmark, BenchmarkCase
from sensprobe.report.charts.chart import (
    LABEL,
    ROW,
    Axis,
    Chart,
    Error,
    Look,
    Point,
    Series,
    Tick,
    nothing,
)
from sensprobe.report.theme import GREY, SERIES, SYMBOLS
from sensprobe.report.values import digits, in_bytes, number, shortened

TICKS = tuple(Tick(x, f"{x:g}") for k in range(-3, 5) for x in (10.0**k, 2 * 10.0**k, 5 * 10.0**k))


class Shown(NamedTuple):
    """A value of a case, its ends by the quartiles of what was timed, and the value at which a case
    is as fast as what it is compared with."""

    title: str
    heading: str
    log: bool
    value: Callable[[BenchmarkCase], float]
    ends: Callable[[BenchmarkCase], tuple[float, float]]
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
    "times as fast as PyTorch",
    True,
    lambda c: c.ratio,
    lambda c: (c.ratio_low, c.ratio_high),
    1.0,
)


def bandwidths(found: Benchmark, other: Benchmark | None = None) -> Chart:
    """A line an operation and scheme, a mark a shape, with quartiles: the share of the bandwidth of
    copying that was reached. Another benchmark has hollow marks."""
    return _chart(COPY, found, other)


def ratios(found: Benchmark, other: Benchmark | None = None) -> Chart:
    """The same lines and marks: how many times as fast as PyTorch's own operation."""
    return _chart(TORCH, found, other)


def _chart(shown: Shown, found: Benchmark, other: Benchmark | None) -> Chart:
    drawn = [_drawn(shown, benchmark) for benchmark in (found, other) if benchmark is not None]
    cases = [case for of_one in drawn for case in of_one]
    if not cases:
        return nothing(shown.title, "nothing of the kind was measured")
    lines = _lines(cases)
    series = [
        _series(shown, [c for c in of_one if c.model == shape], lines, k, second=bool(second))
        for second, of_one in enumerate(drawn)
        for k, shape in enumerate(dict.fromkeys(case.model for case in cases))
    ]
    title, caption = f"{shown.title} ({found.title})", ""
    if other is not None:
        title, caption = shown.title, f"filled: {found.title}; open: {other.title}"
    values = [shown.same, *(shown.value(c) for c in cases)]
    ends = (0.8 * min(values), 1.25 * max(values)) if shown.log else (0.0, 1.05 * max(values))
    ticks = tuple(Tick(k, shortened(s or op, LABEL), not s) for (op, s), k in lines.items())
    return Chart(
        title,
        (*((caption,) if caption else ()), "bars: quartiles of what was timed"),
        x=Axis(shown.heading, log=shown.log, ticks=TICKS if shown.log else None, ends=ends),
        y=Axis(ticks=ticks, ends=(len(lines) - 0.5, -0.5)),
        series=tuple(one for one in series if one.points),
        rules=((shown.same, GREY),),
        height=190 + ROW * len(lines),
    )


def _drawn(shown: Shown, benchmark: Benchmark) -> list[BenchmarkCase]:
    """The cases that have the value."""
    return [c for c in benchmark.cases if isfinite(shown.value(c)) and shown.value(c) > 0]


def _lines(cases: Iterable[BenchmarkCase]) -> dict[tuple[str, str], int]:
    """(operation, scheme) -> its line, from the top; an operation's own line has no scheme."""
    schemes: dict[str, dict[str, None]] = {}
    for case in cases:
        schemes.setdefault(case.operation, {})[case.scheme] = None
    names = [(op, scheme) for op, found in schemes.items() for scheme in ("", *found)]
    return {name: k for k, name in enumerate(names)}


def _series(
    shown: Shown,
    cases: Sequence[BenchmarkCase],
    lines: dict[tuple[str, str], int],
    place: int,
    *,
    second: bool,
) -> Series:
    """The marks of one shape in one benchmark; the legend names those of the first."""
    points = tuple(
        Point(
            shown.value(c), lines[c.operation, c.scheme], ", ".join(c.name), _about(c),
            x_error=_error(shown, c), hollow=second,
        )
        for c in cases
    )  # fmt: skip
    look = Look(SYMBOLS[place % len(SYMBOLS)], 10, SERIES[place % len(SERIES)])
    return Series("" if second or not cases else shortened(cases[0].model, LABEL), points, look)


def _error(shown: Shown, case: BenchmarkCase) -> Error:
    """The distances of the quartiles below and above the value. Where the value lies outside of
    them the distance on that side is 0; where they are not known it is NaN."""
    value, (low, high) = shown.value(case), shown.ends(case)
    return max(value - low, 0.0), max(high - value, 0.0)


def _about(c: BenchmarkCase) -> tuple[str, ...]:
    return (
        f"{c.operation}, {c.model}",
        f"{c.size} in {c.scheme}",
        f"{digits(MICRO * c.seconds, 3)} µs for {in_bytes(c.bytes)}",
        f"{digits(GIGA * c.bandwidth, 3)} GB/s, {number(PERCENT * c.of_copy, 0)} % of copying",
        f"{number(c.ratio, 2)} times as fast as PyTorch",
    )
