"""How large the values of a tensor are."""

from __future__ import annotations

from sensprobe.report.charts.chart import Axis, Chart, Look, Point, Series, Tick
from sensprobe.report.ranges import Values
from sensprobe.report.theme import VERMILION
from sensprobe.report.values import digits


def octaves(values: Values, scheme: str) -> Chart:
    """The share of a tensor's values in each octave of size, their largest as a dashed line; a
    point holds its octave's lower end and share."""
    counts = dict(values.octaves)
    first, last = min(counts), max(counts)
    share = [100 * counts.get(k, 0) / values.count for k in range(first, last + 1)]
    points = [Point(2.0**k, part) for k, part in zip(range(first, last + 1), share, strict=True)]
    points.append(Point(2.0 ** (last + 1), 0.0))
    step = max(1, (last - first) // 10)
    ticks = tuple(Tick(2.0**k, digits(2.0**k, 2)) for k in range(first, last + 2, step))
    zeros = f"; {digits(100 * values.zeros / values.count, 2)} % are zero" if values.zeros else ""
    ends = f"from {digits(values.low, 3)} to {digits(values.high, 3)}"
    return Chart(
        f"Values of {values.site}, {scheme} in this plan",
        (f"{ends}, {values.count:,} seen{zeros}",),
        x=Axis("size of a value", log=True, ticks=ticks),
        y=Axis("% of values in an octave"),
        series=(Series("", tuple(points), Look(), joined="steps", marks=False),),
        rules=((max(abs(values.low), abs(values.high)), VERMILION),),
        height=320,
    )
