"""A chart for print, as a PNG (200 dots an inch) or SVG file: matplotlib without global state.

A name is never read as mathematics, and a letter the font lacks becomes a box: no text from a model
can break a picture. The studies draw figures of their own on the same `sheet`.
"""

from __future__ import annotations

import io
from functools import cache
from math import isfinite, nan
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib import get_data_path
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import LinearSegmentedColormap, to_rgb
from matplotlib.figure import Figure
from matplotlib.ft2font import FT2Font
from matplotlib.ticker import NullLocator

from sensprobe.report.charts.chart import Axis, Bars, Cell, Cells, Chart, Level, Series, ticked
from sensprobe.report.theme import GREY, LIGHT
from sensprobe.report.values import shortened

DPI = 200
SMALL: dict[str, Any] = {"fontsize": 8, "color": LIGHT.ink}
MARKERS = {
    "circle": "o",
    "diamond": "D",
    "square": "s",
    "triangle-down": "v",
    "cross": "P",
    "star": "*",
    "hexagon": "h",
}
"""Matplotlib's names of the symbols that a `Look` may have."""
STEPS = {"steps": "steps-post", "before": "steps-pre"}
POINTS = {"star": 0.8}
"""Size of a mark on paper for a pixel on a screen, where that is not 0.6."""
MOST_ROWS = 60  # a page holds no more rows of a heat map
FAINT = "#7A8088"


def draw(chart: Chart, kind: str = "png") -> bytes:
    """The chart as a file of that kind, "png" or "svg"."""
    chart = ticked(chart)
    if chart.nothing:
        figure, axes = sheet(6, 1.6, chart.title)
        axes.axis("off")
        where: dict[str, Any] = {"ha": "center", "transform": axes.transAxes, "color": LIGHT.ink}
        axes.text(0.5, 0.4, printable(chart.nothing), **where)
        return saved(figure, kind)
    if chart.cells is not None:
        figure, axes = _map(chart, chart.cells)
    else:
        figure, axes = sheet(chart.width, chart.height / 100 - 0.6, chart.title)
        axes.grid(axis="both" if chart.y.grid else "x", color=LIGHT.faint, linewidth=0.6)
    for level in chart.levels:
        _level(axes, level)
    for place, colour in chart.rules:
        axes.axvline(place, color=colour, linestyle=":", linewidth=1.2, zorder=0)
    for k, series in enumerate(chart.series):
        if series.points:
            _series(axes, series, 3 + k)
    left = np.zeros(len(chart.bars[0].segments) if chart.bars else 0)
    for bars in chart.bars:
        _bars(axes, bars, left)
        left += [bar.length for bar in bars.segments]
    _scale(axes, chart.x, "x")
    _scale(axes, chart.y, "y")
    if axes.get_legend_handles_labels()[0]:
        axes.legend(loc="upper left", bbox_to_anchor=(1.04, 1.0), fontsize=8, frameon=False)
    _caption(axes, chart)
    return saved(figure, kind)


@cache
def _letters() -> frozenset[int]:
    path = Path(get_data_path()) / "fonts" / "ttf" / "DejaVuSans.ttf"
    return frozenset(FT2Font(str(path)).get_charmap())


def printable(text: str, width: int = 200) -> str:
    """Text as matplotlib may draw it: lines that are short, no mathematics, no letter without a
    shape."""
    lines = (shortened(line, width) for line in text.split("\n"))
    kept = ("".join(c if ord(c) in _letters() else "□" for c in line) for line in lines)
    return "\n".join(kept).replace("$", r"\$")


def saved(figure: Figure, kind: str = "png") -> bytes:
    """The figure as a file of that kind, cropped to what is drawn."""
    FigureCanvasAgg(figure)
    out = io.BytesIO()
    about = {"Software": "sensprobe"} if kind == "png" else {"Creator": "sensprobe", "Date": None}
    figure.savefig(
        out, format=kind, dpi=DPI, facecolor=LIGHT.paper, bbox_inches="tight", metadata=about
    )
    return out.getvalue()


def sheet(width: float, height: float, title: str) -> tuple[Figure, Axes]:
    """A figure of so many inches with one pair of axes under a title."""
    figure = Figure(figsize=(width, height), facecolor=LIGHT.paper)
    axes = figure.add_subplot()
    axes.set_title(printable(title), loc="left", fontsize=11, color=LIGHT.ink, pad=10)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    for side in ("left", "bottom"):
        axes.spines[side].set_color(LIGHT.faint)
    axes.tick_params(colors=LIGHT.ink, labelsize=9, length=0)
    axes.set_axisbelow(True)
    return figure, axes


def _caption(axes: Axes, chart: Chart) -> None:
    """Small print between the title and the axes."""
    if notes := chart.notes:
        text = printable("\n".join(notes))
        axes.annotate(text, (0, 1), (0, 6), "axes fraction", "offset points", va="bottom", **SMALL)
        pad = 12 + 11 * len(notes)
        title = printable(chart.title)
        axes.set_title(title, loc="left", fontsize=11, color=LIGHT.ink, pad=pad)


def _scale(axes: Axes, axis: Axis, which: str) -> None:
    """Kind, ends, ticks and title of one axis."""
    of_matplotlib = axes.xaxis if which == "x" else axes.yaxis
    if axis.log:
        (axes.set_xscale if which == "x" else axes.set_yscale)("log")
    if axis.ticks is not None:
        names = [printable(tick.name) for tick in axis.ticks]
        of_matplotlib.set_ticks([tick.place for tick in axis.ticks], labels=names)
        of_matplotlib.set_minor_locator(NullLocator())
        for text, tick in zip(of_matplotlib.get_ticklabels(), axis.ticks, strict=True):
            text.set_fontweight("bold" if tick.bold else "normal")
    if axis.ends is not None:
        (axes.set_xlim if which == "x" else axes.set_ylim)(*axis.ends)
    of_matplotlib.set_label_text(printable(axis.heading), fontsize=9, color=LIGHT.ink)


def _level(axes: Axes, level: Level) -> None:
    name = printable(level.heading)
    axes.axhline(level.at, color=GREY, linewidth=1, linestyle="--", label=name, zorder=1)
    if isfinite(level.error):
        low, high = level.at - level.error, level.at + level.error
        axes.axhspan(low, high, color=GREY, alpha=0.18, linewidth=0, zorder=0)


def _series(axes: Axes, series: Series, order: int) -> None:
    """Marks that are filled and hollow, their error bars and labels, and the line through them."""
    look, named = series.look, False
    name = printable(series.name, 40) or None
    if series.joined:
        axes.plot(
            [point.x for point in series.points],
            [point.y for point in series.points],
            drawstyle=STEPS.get(series.joined, "default"),
            color=look.colour,
            linestyle=":" if series.dash == "dot" else "-",
            linewidth=1.2,
            label=None if series.marks else name,
            zorder=2,
        )
    for hollow in (False, True):
        points = [p for p in series.points if p.hollow == hollow and series.marks]
        if not points:
            continue
        edge = look.colour if hollow or look.opacity < 0.5 else LIGHT.paper
        axes.errorbar(
            [point.x for point in points],
            [point.y for point in points],
            xerr=_errors([point.x_error for point in points]),
            yerr=_errors([point.y_error for point in points]),
            fmt=MARKERS[look.symbol],
            markersize=look.size * POINTS.get(look.symbol, 0.6),
            color=look.colour,
            markerfacecolor="none" if hollow else look.colour,
            markeredgecolor=edge,
            markeredgewidth=0.6,
            elinewidth=0.9,
            alpha=look.opacity,
            label=None if named else name,
            zorder=order,
        )
        named = True
    for point in series.points:
        if point.label:
            up, side = point.side.split()
            shift = (
                {"left": -8, "right": 8, "center": 0}[side],
                {"top": 7, "middle": -3, "bottom": -10}[up],
            )
            axes.annotate(
                printable(point.label),
                (point.x, point.y),
                shift,
                textcoords="offset points",
                ha={"left": "right", "right": "left", "center": "center"}[side],
                zorder=order + 1,
                **SMALL,
            )


def _errors(bars: list[tuple[float, float]]) -> np.ndarray | None:
    """(2, n): how far bars reach below and above; None where there are none."""
    found = np.array(bars).T
    return found if np.isfinite(found).any() else None


def _bars(axes: Axes, bars: Bars, left: np.ndarray) -> None:
    """Segments of a colour, beginning where those before end, named where there is room."""
    lengths = [bar.length for bar in bars.segments]
    axes.barh(
        range(len(lengths)),
        lengths,
        left=left,
        height=0.62,
        color=bars.colour,
        edgecolor=LIGHT.paper,
        linewidth=0.8,
        hatch="////" if bars.hatched else None,
        label=printable(bars.name) or None,
    )
    box: dict[str, Any] = {"facecolor": bars.colour, "edgecolor": "none", "pad": 1.2}
    ink = _ink_on(*to_rgb(bars.colour))
    for k, bar in enumerate(bars.segments):
        if bar.label:
            middle = left[k] + bar.length / 2
            where: dict[str, Any] = {"ha": "center", "va": "center", "bbox": box}
            axes.text(middle, k, printable(bar.label), fontsize=8, color=ink, **where)


def _ink_on(red: float, green: float, blue: float) -> str:
    """Dark on a light ground, light on a dark one."""
    return LIGHT.ink if 0.299 * red + 0.587 * green + 0.114 * blue > 0.55 else LIGHT.paper


def _map(chart: Chart, cells: Cells) -> tuple[Figure, Axes]:
    """Cells as wide as their longest text, each with it, and the bar of their colours."""
    rows, title = cells.rows[:MOST_ROWS], chart.title
    if len(cells.rows) > MOST_ROWS:
        title += f" (first {MOST_ROWS} of {len(cells.rows)})"
    longest = max((len(cell.long) for row in rows for cell in row if cell), default=1)
    wide = max(0.42, 0.2 + 0.07 * longest)
    figure, axes = sheet(1.6 + wide * len(rows[0]), 1.0 + 0.36 * max(len(rows), 3), title)
    names = getattr(LIGHT, cells.scale)
    colours = LinearSegmentedColormap.from_list("cells", names[::-1] if cells.reverse else names)
    z = [[nan if cell is None else cell.place for cell in row] for row in rows]
    axes.set_facecolor(LIGHT.missing)
    edges = [np.arange(n + 1) - 0.5 for n in (len(rows[0]), len(rows))]
    mesh = axes.pcolormesh(
        *edges,
        np.ma.masked_invalid(np.array(z, float)),
        cmap=colours,
        vmin=cells.low,
        vmax=cells.high,
        edgecolors=LIGHT.paper,
        linewidth=1.5,
    )
    for y, row in enumerate(rows):
        for x, cell in enumerate(row):
            if cell is not None:
                ink = FAINT if cell.faint else _ink_of(cell, cells, colours)
                text, size = printable(cell.long), 8 if wide > 0.5 else 7
                axes.text(x, y, text, ha="center", va="center", fontsize=size, color=ink)
    for spine in axes.spines.values():
        spine.set_visible(False)
    axes.tick_params(axis="x", labelsize=8, rotation=0 if wide > 0.6 else 90)
    bar = figure.colorbar(mesh, ax=axes, fraction=0.05, pad=0.025, aspect=28)
    if cells.ticks is not None:
        bar.set_ticks([t.place for t in cells.ticks], labels=[t.name for t in cells.ticks])
    bar.ax.tick_params(labelsize=8, length=0, colors=LIGHT.ink)
    bar.outline.set_visible(False)
    bar.set_label(printable(cells.heading), fontsize=9, color=LIGHT.ink)
    return figure, axes


def _ink_of(cell: Cell, cells: Cells, colours: LinearSegmentedColormap) -> str:
    share = (cell.place - cells.low) / (cells.high - cells.low)
    return _ink_on(*colours(share)[:3]) if isfinite(share) else FAINT
