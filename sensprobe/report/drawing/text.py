"""A chart of marks as a drawing of characters."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from math import ceil, floor, log, log10

from rich.text import Text

from sensprobe.report.charts.chart import Axis, Chart, Point, Series
from sensprobe.report.values import number, shortened

LINE = "┄"
STYLES = {
    "·": "dim",
    "●": "dodger_blue2",
    "◇": "dark_orange",
    "★": "bold green",
    "✚": "bold magenta",
}
"""Styles of letters that marks have (see `Look`)."""


@dataclass(slots=True)
class Canvas:
    """Characters on a grid; row 0 is the top."""

    width: int
    height: int
    cells: dict[tuple[int, int], tuple[str, str]] = field(default_factory=dict)

    def put(self, row: int, column: int, text: str, style: str = "") -> None:
        for k, letter in enumerate(text):
            self.cells[row, column + k] = (letter, style)

    def free(self, row: int, column: int, size: int) -> bool:
        """Return whether a text of that size fits there over nothing but a level's line."""
        inside = column >= 0 and column + size <= self.width
        letters = (self.cells.get((row, column + k), (" ", ""))[0] for k in range(size))
        return inside and all(letter in (" ", LINE) for letter in letters)

    def label(self, row: int, column: int, text: str, style: str) -> None:
        """Write beside a mark: right of it if that is free, else left, else nowhere."""
        for start in (column + 2, column - 1 - len(text)):
            if self.free(row, start, len(text)):
                return self.put(row, start, text, style)
        return None

    def line(self, row: int) -> Text:
        out = Text()
        for column in range(self.width):
            letter, style = self.cells.get((row, column), (" ", ""))
            out.append(letter, style=style)
        out.rstrip()
        return out


@dataclass(frozen=True, slots=True)
class Cells:
    """Maps values from `low` to `high` to cells 0 … size - 1."""

    low: float
    high: float
    size: int
    log: bool = False

    def at(self, value: float) -> int:
        low, value, high = (log(v) if self.log else v for v in (self.low, value, self.high))
        return round(min(max((value - low) / (high - low), 0.0), 1.0) * (self.size - 1))


def draw(chart: Chart, width: int = 76, height: int = 16) -> Text:
    """Marks that have a letter, and levels, `width` columns wide in all. Later series are drawn
    over earlier ones; labels stand where there is room. The horizontal axis must have ends and
    ticks."""
    if chart.nothing:
        return Text(chart.nothing, style="dim")
    assert chart.x.ends is not None
    inside = _inside(chart)
    series = [replace(s, points=tuple(filter(inside, s.points))) for s in chart.series]
    series = [s for s in series if s.look.letter and s.points]
    heights = [point.y for s in series for point in s.points] + [lev.at for lev in chart.levels]
    if chart.y.ticks is not None and chart.y.ends is not None:
        names, ends = {tick.place: tick.name for tick in chart.y.ticks}, chart.y.ends
    else:
        ticks = _ticks(min(heights), max(heights))
        places = max(0, -floor(log10(ticks[1] - ticks[0])))
        names, ends = {tick: number(tick, places) for tick in ticks}, (ticks[0], ticks[-1])
    margin = max(map(len, names.values())) + 2
    x = Cells(*chart.x.ends, max(width - margin, 20), chart.x.log)
    y = Cells(ends[1], ends[0], height, chart.y.log)
    canvas = Canvas(x.size, height)
    for level in chart.levels:
        canvas.put(y.at(level.at), 0, LINE * x.size, "dim")
    marks = [(y.at(p.y), x.at(p.x), p, s.look.letter) for s in series for p in s.points]
    for row, column, _, letter in marks:
        canvas.put(row, column, letter, STYLES.get(letter, ""))
    for row, column, point, letter in reversed(marks):
        if point.label:
            canvas.label(row, column, shortened(point.label, 24), STYLES.get(letter, ""))
    at = {y.at(place): name for place, name in names.items()}
    lines = [Text(chart.y.heading, style="bold")]
    for row in range(height):
        lines.append(Text(f"{at.get(row, ''):>{margin - 2}} ┤").append_text(canvas.line(row)))
    rule, below = _bottom(chart.x, x)
    lines.append(Text(" " * (margin - 1) + "└" + rule))
    lines.append(Text(" " * margin + below))
    return Text("\n").join([*lines, _legend(chart, series, margin)])


def _inside(chart: Chart) -> Callable[[Point], bool]:
    """Whether a mark lies between the ends of both axes."""

    def inside(point: Point) -> bool:
        pairs = ((chart.x.ends, point.x), (chart.y.ends, point.y))
        return all(ends is None or min(ends) <= place <= max(ends) for ends, place in pairs)

    return inside


def _legend(chart: Chart, series: list[Series], margin: int) -> Text:
    """The unit of the horizontal axis, and what the letters mean, the most telling first."""
    unit = f"{chart.x.unit} (log)" if chart.x.log else chart.x.unit
    legend = Text(" " * margin).append(unit, style="bold")
    for s in reversed(series):
        legend.append(f"  {s.look.letter}", style=STYLES.get(s.look.letter, ""))
        legend.append(f" {s.name}")
    for level in chart.levels:
        legend.append(f"  {LINE} {level.name}", style="dim")
    return legend


def _bottom(axis: Axis, x: Cells) -> tuple[str, str]:
    """The axis with those of its ticks that have room for their names, and the names."""
    rule, names, used = ["─"] * x.size, [" "] * x.size, -2
    for place, name, _ in axis.ticks or ():
        column = x.at(place)
        start = column - len(name) // 2
        if start <= used + 1 or start < 0 or start + len(name) > x.size:
            continue
        rule[column] = "┬"
        names[start : start + len(name)] = name
        used = start + len(name)
    return "".join(rule), "".join(names).rstrip()


def _ticks(low: float, high: float) -> list[float]:
    """Five or so round numbers that hold [low, high] between them."""
    span = high - low or abs(high) * 0.1 or 1.0
    raw = span / 4
    power = 10.0 ** floor(log10(raw))
    step = next(m * power for m in (1, 2, 2.5, 5, 10) if m * power >= raw * 0.999)
    first, last = floor(low / step), max(ceil(high / step), floor(low / step) + 1)
    return [k * step for k in range(first, last + 1)]
