"""Labels of marks that neither cover each other nor leave the chart, on narrow and wide screens.

Where two labels stand apart on a narrow screen they do on a wide one, since marks move apart there
and text keeps its size.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from math import isfinite, log

from sensprobe.report.charts.chart import Axis, Chart, Point, Series

SIDES = ("top left", "top right", "bottom right", "bottom left", "top center", "bottom center")
WIDTHS = (250, 560)
"""Pixels between the ends of the horizontal axis of a narrow and of a wide screen."""
ABOVE_AND_BELOW = 190  # pixels of title, axis and legend
LETTER, LINE = 7.0, 15.0  # pixels a letter takes, and a line of text
LONG = 8  # letters: a longer label is not drawn unless there is room on a narrow screen too
SMALL = 6  # pixels of a mark
Box = tuple[float, float, float, float]
"""Left, top, right and bottom, in pixels."""


def apart(chart: Chart) -> Chart:
    """The chart with each label on a side where it is free, those of later series first; one that
    finds none is left to the hover text. Both axes must have ends."""
    taken: dict[int, list[Box]] = {width: [*_marks(chart, width)] for width in WIDTHS}
    placed: list[Series] = []
    for series in reversed(chart.series):
        points = tuple(_placed(chart, series, point, taken) for point in series.points)
        placed.append(replace(series, points=points))
    return replace(chart, series=tuple(reversed(placed)))


def _placed(chart: Chart, series: Series, point: Point, taken: dict[int, list[Box]]) -> Point:
    if not point.label:
        return point
    sides = (point.side, *(side for side in SIDES if side != point.side))
    for width in WIDTHS[: 1 if len(point.label) > LONG else None]:
        wider = [w for w in WIDTHS if w >= width]
        for side in sides:
            boxes = {w: _box(chart, series, point, side, w) for w in wider}
            if all(_free(boxes[w], taken[w], chart, w) for w in wider):
                for w in wider:
                    taken[w].append(boxes[w])
                return point._replace(side=side)
    return point._replace(label="")


def _free(box: Box, taken: list[Box], chart: Chart, width: int) -> bool:
    left, top, right, bottom = box
    inside = left >= 0 and right <= width and top >= 0 and bottom <= _tall(chart)
    return inside and not any(
        left < other[2] and other[0] < right and top < other[3] and other[1] < bottom
        for other in taken
    )


def _marks(chart: Chart, width: int) -> Iterator[Box]:
    """The places of marks; small ones, of which there are many, may be covered."""
    for series in chart.series:
        half = series.look.size / 2 if series.look.size < LINE else series.look.size / 3
        if series.marks and series.look.size > SMALL:
            for point in series.points:
                x, y = _place(chart, point, width)
                yield x - half, y - half, x + half, y + half


def _box(chart: Chart, series: Series, point: Point, side: str, width: int) -> Box:
    """Where a label stands on a side of its mark."""
    (x, y), long = _place(chart, point, width), LETTER * len(point.label)
    away, (up, across) = series.look.size / 2 + 1, side.split()
    left = {"left": x - away - long, "right": x + away, "center": x - long / 2}[across]
    top = y - away - LINE if up == "top" else y + away
    return left, top, left + long, top + LINE


def _place(chart: Chart, point: Point, width: int) -> tuple[float, float]:
    tall = _tall(chart)
    return width * _share(chart.x, point.x), tall * (1 - _share(chart.y, point.y))


def _tall(chart: Chart) -> float:
    return float(chart.height - ABOVE_AND_BELOW)


def _share(axis: Axis, value: float) -> float:
    """How far from the first end of an axis to the last a value lies; -1 where it is none."""
    assert axis.ends is not None
    if not isfinite(value) or (axis.log and value <= 0):
        return -1.0
    low, high, value = (log(v) if axis.log else v for v in (*axis.ends, value))
    return (value - low) / (high - low)
