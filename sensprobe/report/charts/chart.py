"""A figure before it is drawn: its values, marks, labels, axes and captions.

The other files of this folder make a `Chart` of results; `sensprobe.report.drawing` turns one into
a Plotly figure, a PNG file or characters. Text is plain here: each drawer escapes what it must. NaN
stands for a number that is not known, and is not drawn.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from math import ceil, floor, inf, isfinite, log10, nan
from typing import NamedTuple

from sensprobe.report.theme import BLUE
from sensprobe.report.values import Measured, byte_ticks, digits, shortened

LABEL = 32  # characters of a name on an axis; the whole name is in the hover text
MOST_TICKS = 8  # of a log axis
ROW = 24  # pixels of a line of marks or a bar
Error = tuple[float, float]
"""The lengths of an error bar below and above its mark."""
UNKNOWN_ERROR = (nan, nan)


class Tick(NamedTuple):
    """A named place on an axis."""

    place: float
    name: str
    bold: bool = False


@dataclass(frozen=True, slots=True)
class Axis:
    """A scale, its title, and its ticks (None: the drawer chooses) between its `ends`.

    Ends in falling order turn the axis round. `grid` draws a line at every tick, `zero` one at 0.
    """

    title: str = ""
    unit: str = ""
    log: bool = False
    ticks: tuple[Tick, ...] | None = None
    ends: tuple[float, float] | None = None
    grid: bool = True
    zero: bool = False

    @property
    def heading(self) -> str:
        """The title with the unit and the kind of scale: "bytes (KiB, log scale)"."""
        about = ", ".join(filter(None, (self.unit, "log scale" if self.log else "")))
        return f"{self.title} ({about})" if about and self.title else self.title


@dataclass(frozen=True, slots=True)
class Look:
    """The look of marks: a symbol by Plotly's name, its size in pixels, a colour. `letter` stands
    for them where characters are drawn; marks without one are left out there."""

    symbol: str = "circle"
    size: float = 9
    colour: str = BLUE
    opacity: float = 1.0
    letter: str = ""


class Point(NamedTuple):
    """One mark. `name` is what a click on it picks; `about` are the lines of its hover text, the
    first in bold; `side` says where its `label` stands."""

    x: float
    y: float
    name: str = ""
    about: tuple[str, ...] = ()
    label: str = ""
    side: str = "top left"
    x_error: Error = UNKNOWN_ERROR
    y_error: Error = UNKNOWN_ERROR
    hollow: bool = False


@dataclass(frozen=True, slots=True)
class Series:
    """Marks of one look, or a line through points that have none.

    `joined` is "steps" (each value from its mark on), "before" (each up to its mark), "straight" or
    "" for marks alone. A series without a name is not in the
    legend.
    """

    name: str
    points: tuple[Point, ...]
    look: Look = Look()
    joined: str = ""
    dash: str = "solid"
    marks: bool = True


class Level(NamedTuple):
    """A named value of the vertical axis, that value as text, and the band of its error."""

    at: float
    name: str
    value: str
    error: float = nan

    @property
    def heading(self) -> str:
        return f"{self.name} {self.value}"


class Bar(NamedTuple):
    """One segment of a bar; its place is its index among the bars."""

    length: float
    name: str = ""
    about: tuple[str, ...] = ()
    label: str = ""


@dataclass(frozen=True, slots=True)
class Bars:
    """Segments of one colour, one a bar; those of later `Bars` are stacked on them."""

    name: str
    segments: tuple[Bar, ...]
    colour: str
    hatched: bool = False


class Cell(NamedTuple):
    """A cell of a heat map. `place` is where its colour lies on the scale; `short` is written where
    little room is, `long` where there is more; `faint` marks what is no difference, `framed` what
    was changed."""

    place: float
    short: str
    long: str
    name: str = ""
    about: tuple[str, ...] = ()
    faint: bool = False
    framed: bool = False


@dataclass(frozen=True, slots=True)
class Cells:
    """A heat map: rows from the top (None: nothing there), and its colour scale from `low` to
    `high`, "diverging" or "sequential" (see `theme`), turned round where `reverse` says so."""

    rows: tuple[tuple[Cell | None, ...], ...]
    low: float
    high: float
    scale: str
    reverse: bool
    heading: str
    ticks: tuple[Tick, ...] | None = None


@dataclass(frozen=True, slots=True)
class Chart:
    """Everything a drawer needs. `nothing` says why there is nothing to see, instead of the rest.

    `rules` are places of vertical lines, dashed; `height` is in pixels, `width` in inches on paper
    (a screen gives what it has); lines of the caption stand under the title.
    """

    title: str
    caption: tuple[str, ...] = ()
    x: Axis = Axis()
    y: Axis = Axis()
    series: tuple[Series, ...] = ()
    levels: tuple[Level, ...] = ()
    bars: tuple[Bars, ...] = ()
    cells: Cells | None = None
    rules: tuple[tuple[float, str], ...] = ()  # (place, colour)
    nothing: str = ""
    height: int = 450
    width: float = 7.0

    @property
    def notes(self) -> tuple[str, ...]:
        """The caption; and that error bars are of one standard error, where there are any and it
        says no more of them."""
        points = (p for series in self.series if series.marks for p in series.points)
        if self.nothing or any(line.startswith("bars: ") for line in self.caption):
            return self.caption
        drawn = any(isfinite(e) and e > 0 for p in points for e in (*p.x_error, *p.y_error))
        return (*self.caption, "bars: one standard error") if drawn else self.caption


def nothing(title: str, why: str) -> Chart:
    """A chart that says why there is nothing to see."""
    return Chart(title, nothing=why, height=220)


def error_of(value: Measured) -> Error:
    """An error bar of one standard error down and up, as every figure has them."""
    return (value.stderr, value.stderr)


def ticked(chart: Chart) -> Chart:
    """The chart whose log axes have whole names at their ticks: powers of ten, and what is between
    where those are few."""
    places = {
        "x": [p.x for s in chart.series for p in s.points],
        "y": [p.y for s in chart.series for p in s.points] + [lev.at for lev in chart.levels],
    }
    return replace(chart, **{  # type: ignore[arg-type]
        which: _with_ticks(getattr(chart, which), values) for which, values in places.items()
    })  # fmt: skip


def _with_ticks(axis: Axis, values: Iterable[float]) -> Axis:
    known = [value for value in values if 0 < value < inf]
    if not axis.log or axis.ticks is not None or not known:
        return axis
    ends = axis.ends or (min(known) / 1.4, 1.4 * max(known))
    return replace(axis, ticks=log_ticks(*ends), ends=ends)


def log_ticks(low: float, high: float) -> tuple[Tick, ...]:
    """Ticks of a log axis between two ends."""
    for steps in ((1,), (1, 2, 5), (1, 1.5, 2, 3, 5, 7), tuple(k / 10 for k in range(10, 100))):
        every = [
            m * 10.0**k for k in range(floor(log10(low)), floor(log10(high)) + 1) for m in steps
        ]
        places = [place for place in every if low <= place <= high]
        if len(places) > 2:
            break
    places = places[:: max(ceil(len(places) / MOST_TICKS), 1)]
    return tuple(Tick(place, _round(place)) for place in places)


def _round(place: float) -> str:
    return f"{place:.12g}" if 1e-4 < place < 1e6 else digits(place, 1)


def named_rows(names: Iterable[str], width: int = LABEL) -> Axis:
    """An axis of names at whole numbers from the top, each shortened: two that shorten alike stay
    two."""
    ticks = tuple(Tick(k, shortened(name, width)) for k, name in enumerate(names))
    return Axis(ticks=ticks, ends=(len(ticks) - 0.4, -0.6), grid=False)


def byte_axis(title: str, sizes: Iterable[float], *, log: bool = True) -> Axis:
    """An axis that holds some sizes in bytes, with ticks in the unit that suits them."""
    known = [size for size in sizes if isfinite(size)]
    ends = (min(known) / 1.08, max(known) * 1.08)
    unit, ticks = byte_ticks(*ends)
    return Axis(title, unit, log, tuple(Tick(*tick) for tick in ticks), ends)
