"""The frontier as a drawing of characters: score against bytes on a log axis."""

from __future__ import annotations

from dataclasses import dataclass, field
from math import ceil, exp, floor, isfinite, log, log10

from rich.text import Text

from sensprobe.report.results import Candidate, Search
from sensprobe.report.tables import CHOSEN, DOMINATED, FRONT, MARKS, UNIFORM, symbol
from sensprobe.report.values import byte_unit, number, shortened

FULL = "┄"
STYLES = {DOMINATED: "dim", FRONT: "dodger_blue2", UNIFORM: "dark_orange", CHOSEN: "bold green"}


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
        """Whether a text of that size fits there over nothing but the full-precision line."""
        inside = column >= 0 and column + size <= self.width
        spots = (self.cells.get((row, column + k), (" ", ""))[0] for k in range(size))
        return inside and all(spot in (" ", FULL) for spot in spots)

    def label(self, row: int, column: int, text: str, style: str) -> None:
        """Beside a mark: right of it if that is free, else left, else nowhere."""
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
class Axis:
    """Maps [low, high] to cells 0 … size - 1."""

    low: float
    high: float
    size: int

    def cell(self, value: float) -> int:
        share = (value - self.low) / (self.high - self.low)
        return round(min(max(share, 0.0), 1.0) * (self.size - 1))


def frontier_plot(search: Search, width: int = 76, height: int = 16) -> Text:
    """Score against total bytes (log), `width` columns wide in all."""
    plotted = [c for c in search.candidates if c.total_bytes > 0 and isfinite(c.metric.value)]
    if not plotted:
        return Text("no plan was evaluated", style="dim")
    scale = search.quantity.scale
    levels = [scale * c.metric.value for c in plotted]
    levels += [scale * search.full.value] if isfinite(search.full.value) else []
    ticks = _ticks(min(levels), max(levels))
    places = max(0, -floor(log10(ticks[1] - ticks[0])))
    margin = max(len(number(tick, places)) for tick in ticks) + 2
    sizes = [c.total_bytes for c in plotted]
    largest = max(*sizes, search.full_bytes or 0, round(min(sizes) * 1.5))
    x = Axis(log(min(sizes)), log(largest), max(width - margin, 20))
    y = Axis(ticks[-1], ticks[0], height)
    canvas = Canvas(x.size, height)
    if isfinite(search.full.value):
        canvas.put(y.cell(scale * search.full.value), 0, FULL * x.size, "dim")
    _draw(canvas, search, plotted, x, y)
    return _framed(canvas, search, x, y, ticks, places, margin)


def _draw(canvas: Canvas, search: Search, plotted: list[Candidate], x: Axis, y: Axis) -> None:
    """Marks from the least to the most telling, then labels where there is room."""
    picks = search.picks
    order = [DOMINATED, FRONT, UNIFORM, CHOSEN]
    marks = sorted(((symbol(c, search), c) for c in plotted), key=lambda mark: order.index(mark[0]))
    spots = [
        (y.cell(search.quantity.scale * c.metric.value), x.cell(log(c.total_bytes)), mark, c)
        for mark, c in marks
    ]
    for row, column, mark, _ in spots:
        canvas.put(row, column, mark, STYLES[mark])
    for row, column, mark, c in reversed(spots):
        if mark in (CHOSEN, UNIFORM):
            text = ", ".join(picks[c.name]) if mark == CHOSEN else (c.uniform or "").split("/")[0]
            canvas.label(row, column, shortened(text, 24), STYLES[mark])


def _framed(
    canvas: Canvas,
    search: Search,
    x: Axis,
    y: Axis,
    ticks: list[float],
    places: int,
    margin: int,
) -> Text:
    labels = {y.cell(tick): number(tick, places) for tick in ticks}
    lines = [Text(search.quantity.heading, style="bold")]
    for row in range(canvas.height):
        lines.append(Text(f"{labels.get(row, ''):>{margin - 2}} ┤").append_text(canvas.line(row)))
    rule, names = _bottom(x)
    lines.append(Text(" " * (margin - 1) + "└" + rule))
    lines.append(Text(" " * margin + names))
    unit, _ = byte_unit([exp(x.low), exp(x.high)])
    legend = Text(" " * margin).append(f"{unit} (log)", style="bold")
    for mark, what in MARKS.items():
        legend.append(f"  {mark}", style=STYLES[mark]).append(f" {what}")
    legend.append(f"  {FULL} full precision", style="dim")
    return Text("\n").join([*lines, legend])


def _bottom(x: Axis) -> tuple[str, str]:
    """The axis with its ticks, and their names: 1, 1.5, 2, 3, 4, 6 … times a power of two."""
    low, high = exp(x.low), exp(x.high)
    _, unit = byte_unit([low, high])
    steps = [m * 2.0**k for k in range(0, 64) for m in (1, 1.25, 1.5, 1.75)]
    wanted = [s for s in steps if low / unit <= s <= high / unit]
    rule, names, used = ["─"] * x.size, [" "] * x.size, -2
    for step in wanted:
        column, name = x.cell(log(step * unit)), f"{step:g}"
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
