"""A chart as a Plotly figure, for the report's page and the dashboard.

All text is escaped, and `customdata[0]` of every mark is the name it stands for.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from html import escape
from math import isfinite, log10
from textwrap import wrap
from typing import Any

import plotly.graph_objects as go

from sensprobe.report.charts.chart import (
    Axis,
    Bars,
    Cells,
    Chart,
    Error,
    Level,
    Point,
    Series,
    ticked,
)
from sensprobe.report.theme import GREY, LIGHT, SERIES, Theme
from sensprobe.report.values import shortened

FONT = "system-ui, -apple-system, 'Segoe UI', 'DejaVu Sans', sans-serif"
HOVER = "%{customdata[1]}<extra></extra>"
TITLE, CAPTION, ACROSS, UP = 40, 56, 46, 32
"""Characters of a line of the title, of the text below it and along the axes: 390 pixels wide."""
LINE = 19.5
"""Pixels from line to line of a title."""
MANY = 1000
"""Marks from which a series is drawn by the graphics card."""
SHAPES = {"steps": "hv", "before": "vh"}
FINGER = 10
"""Pixels across what is pointed at, where marks are of several sizes."""


def draw(chart: Chart, theme: Theme = LIGHT) -> go.Figure:
    """The figure; its `meta["scale"]` names the colour scale that a theme puts in."""
    chart = _coloured(ticked(chart), theme)
    layout: dict[str, Any] = {
        "template": template(theme),
        **_title(chart),
        "height": chart.height,
    }
    if chart.nothing:
        place = {"xref": "paper", "yref": "paper", "x": 0.5, "y": 0.5, "showarrow": False}
        layout |= {
            "annotations": [{"text": _escaped(chart.nothing), **place}],
            "xaxis": {"visible": False},
            "yaxis": {"visible": False},
        }
        return go.Figure([], layout)
    layout |= {"xaxis": _axis(chart.x, ACROSS), "yaxis": _axis(chart.y, UP), "hovermode": "closest"}
    named = [*(s.name for s in chart.series if s.points), *(b.name for b in chart.bars)]
    layout["showlegend"] = any(named)
    if any(s.marks and not s.name for s in chart.series) and any(named):
        layout["legend"] = {"itemclick": False, "itemdoubleclick": False}  # some would stay
    layout["shapes"] = [_rule(*rule) for rule in chart.rules]
    layout["shapes"] += [_band(level) for level in chart.levels if isfinite(level.error)]
    traces: list[Any] = [_level(level, chart.x) for level in chart.levels]
    drawn = [series for series in chart.series if series.points]
    traces += map(_series, drawn)
    if len({series.look.size for series in drawn if series.marks}) > 1:
        traces += [_target(trace) for trace in traces if trace.customdata is not None]
    if chart.bars:
        traces += map(_bars, chart.bars)
        layout |= {"barmode": "stack", "bargap": 0.3}
    if chart.cells is not None:
        traces += [_cells(chart.cells), _centres(chart.cells)]
        layout["shapes"] += _frames(chart.cells, theme)
        layout |= {"coloraxis": _colours(chart.cells, theme), "meta": {"scale": chart.cells.scale}}
        layout["hoverdistance"] = -1  # every place on a map is of the nearest cell
    return go.Figure(traces, layout)


def scale(colours: tuple[str, ...]) -> list[list[Any]]:
    """Evenly spread colours as a Plotly colour scale."""
    return [[k / (len(colours) - 1), colour] for k, colour in enumerate(colours)]


def template(theme: Theme = LIGHT) -> go.layout.Template:
    """The layout of a theme; swapping it re-colours a drawn figure."""
    axis = {
        "gridcolor": theme.faint,
        "linecolor": theme.faint,
        "zerolinecolor": theme.faint,
        "zerolinewidth": 2,
        "ticks": "",
        "title": {"standoff": 10, "font": {"size": 12}},
        "automargin": True,
    }
    return go.layout.Template(
        layout={
            "paper_bgcolor": theme.paper,
            "plot_bgcolor": theme.paper,
            "colorway": list(SERIES),
            "font": {"family": FONT, "size": 13, "color": theme.ink},
            "title": {
                "x": 0,
                "xref": "container",
                "xanchor": "left",
                "y": 1,
                "yref": "container",
                "yanchor": "top",
                "font": {"size": 15},
            },
            "xaxis": axis,
            "yaxis": axis,
            "hoverlabel": {"align": "left", "font": {"family": FONT, "size": 12}},
            "legend": {
                "orientation": "h",
                "yref": "container",
                "yanchor": "bottom",
                "y": 0,
                "xref": "container",
                "x": 0,
                "title": {"text": ""},
                "traceorder": "normal",
            },
            "margin": {"l": 56, "r": 16, "b": 48},
        }
    )


def _escaped(text: str) -> str:
    return escape(text, quote=False).replace("\n", "<br>")


def _title(chart: Chart) -> dict[str, Any]:
    """The title with the text below it, on lines that a narrow screen holds, and room for both."""
    title = wrap(chart.title, TITLE)
    below = [line for text in chart.notes for line in wrap(text, CAPTION)]
    text = _escaped("\n".join(title))
    if below:
        text += f'<br><span style="font-size:12px">{_escaped(chr(10).join(below))}</span>'
    lines = len(title) + len(below)
    top = 30 + LINE * lines + 50 * (chart.cells is not None)
    # beside a colour bar Plotly puts the middle of several lines where their first would be
    down = 22 + (LINE * (lines - 1) / 2 if chart.cells is not None else 0)
    return {"title": {"text": text, "pad": {"t": down, "l": 4}}, "margin": {"t": top}}


def _coloured(chart: Chart, theme: Theme) -> Chart:
    """The chart with the colours that its marks have on the ground of a theme."""

    def painted(series: Series) -> Series:
        return replace(series, look=replace(series.look, colour=theme.mark(series.look.colour)))

    return replace(
        chart,
        series=tuple(map(painted, chart.series)),
        bars=tuple(replace(bars, colour=theme.mark(bars.colour)) for bars in chart.bars),
        rules=tuple((place, theme.mark(colour)) for place, colour in chart.rules),
    )


def _axis(axis: Axis, long: int) -> dict[str, Any]:
    out: dict[str, Any] = {
        "title": {"text": _escaped("\n".join(wrap(axis.heading, long)))},
        "type": "log" if axis.log else "linear",
        "showgrid": axis.grid,
        "zeroline": axis.zero,
    }
    if axis.ticks is not None:
        names = [_escaped(tick.name) for tick in axis.ticks]
        bold = [tick.bold for tick in axis.ticks]
        out["tickvals"] = [tick.place for tick in axis.ticks]
        out["ticktext"] = [f"<b>{n}</b>" if b else n for n, b in zip(names, bold, strict=True)]
    elif axis.log:
        out["exponentformat"] = "power"
    if axis.ends is not None:
        out["range"] = [log10(end) for end in axis.ends] if axis.log else list(axis.ends)
    return out


def _placed(value: float) -> float | None:
    """JSON has no NaN and no infinity: what cannot be placed is left out."""
    return value if isfinite(value) else None


def _picked(marks: Iterable[tuple[str, tuple[str, ...]]]) -> list[list[str]]:
    """`customdata` of marks: what a click picks, and the hover text, the first line in bold."""
    out = []
    for name, lines in marks:
        first, *others = [_escaped(shortened(line, 200)) for line in lines] or [""]
        out.append([name, "<br>".join([f"<b>{first}</b>", *others])])
    return out


def _series(series: Series) -> go.Scatter | go.Scattergl:
    points, look = series.points, series.look
    hollow = [point.hollow for point in points]
    symbols = [f"{look.symbol}-open" if h else look.symbol for h in hollow]
    modes = ["lines"] * bool(series.joined) + ["markers"] * series.marks
    modes += ["text"] * any(point.label for point in points)
    told = any(point.about for point in points)
    made: Callable[..., Any] = go.Scattergl if len(points) > MANY else go.Scatter
    return made(
        x=[_placed(point.x) for point in points],
        y=[_placed(point.y) for point in points],
        error_x=_errors([point.x_error for point in points]),
        error_y=_errors([point.y_error for point in points]),
        mode="+".join(modes),
        text=[_escaped(point.label) for point in points] if "text" in modes else None,
        textposition=[point.side for point in points] if "text" in modes else None,
        line={
            "shape": SHAPES.get(series.joined, "linear"),
            "color": look.colour,
            "width": 1.5,
            "dash": series.dash,
        },
        marker={
            "symbol": symbols if len({*symbols}) > 1 else symbols[0],
            "size": look.size,
            "color": look.colour,
            "opacity": look.opacity,
            "line": {"width": max(look.size / 7, 1) if any(hollow) else 0.5, "color": look.colour},
        },
        name=_escaped(series.name),
        showlegend=bool(series.name),
        customdata=_picked((point.name, point.about) for point in points) if told else None,
        hovertemplate=HOVER if told else None,
        hoverinfo=None if told else "skip",
    )


def _target(trace: go.Scatter | go.Scattergl) -> go.Scatter | go.Scattergl:
    """What is pointed at in place of the marks of a trace: the same marks, unseen, all of one size
    and above every trace. Of marks of several sizes Plotly takes the smallest, which may be hidden.
    """
    above = type(trace)(
        x=trace.x,
        y=trace.y,
        mode="markers",
        marker={"opacity": 0, "size": FINGER, "color": trace.marker.color},
        customdata=trace.customdata,
        hovertemplate=HOVER,
        legendgroup=trace.name,
        showlegend=False,
    )
    seen = {"marker": {"opacity": trace.marker.opacity}}
    trace.update(customdata=None, hovertemplate=None, hoverinfo="skip")
    trace.update(legendgroup=trace.name, unselected=seen)
    return above


def _errors(bars: Sequence[Error]) -> dict[str, Any]:
    return {
        "type": "data",
        "symmetric": False,
        "array": [_placed(above) for _, above in bars],
        "arrayminus": [_placed(below) for below, _ in bars],
        "thickness": 1.2,
        "width": 3,
        "visible": any(isfinite(above) for _, above in bars),
    }


def _level(level: Level, across: Axis) -> go.Scatter:
    """A line from end to end, so that the legend names it."""
    points = tuple(Point(end, level.at) for end in across.ends or ())
    line = _series(Series(level.heading, points, dash="dash", joined="straight", marks=False))
    return line.update(line_color=GREY)


def _band(level: Level) -> dict[str, Any]:
    low, high = level.at - level.error, level.at + level.error
    return {
        "type": "rect",
        "x0": 0, "x1": 1, "xref": "paper", "y0": low, "y1": high,
        "fillcolor": "rgba(138, 143, 152, 0.18)", "line": {"width": 0}, "layer": "below",
    }  # fmt: skip


def _rule(place: float, colour: str) -> dict[str, Any]:
    line = {"color": colour, "dash": "dash", "width": 1.5}
    return {"type": "line", "x0": place, "x1": place, "y0": 0, "y1": 1, "yref": "paper",
            "line": line, "layer": "below"}  # fmt: skip


def _bars(bars: Bars) -> go.Bar:
    return go.Bar(
        x=[bar.length for bar in bars.segments],
        y=list(range(len(bars.segments))),
        orientation="h",
        name=_escaped(bars.name),
        text=[_escaped(bar.label) for bar in bars.segments],
        textposition="inside",
        insidetextanchor="middle",
        textangle=0,
        marker={
            "color": bars.colour,
            "pattern": {
                "shape": "/" if bars.hatched else "",
                "fillmode": "overlay",
                "fgcolor": "rgba(255, 255, 255, 0.45)",
                "size": 9,
            },
            "line": {"width": 0},
        },
        customdata=_picked((bar.name, bar.about) for bar in bars.segments),
        hovertemplate=HOVER,
    )


def _cells(cells: Cells) -> go.Heatmap:
    """Cells at whole numbers with a text on each."""
    return go.Heatmap(
        z=[[_placed(cell.place) if cell else None for cell in row] for row in cells.rows],
        x=list(range(len(cells.rows[0]))),
        y=list(range(len(cells.rows))),
        text=[[_escaped(cell.short) if cell else "" for cell in row] for row in cells.rows],
        texttemplate="%{text}",
        hoverinfo="skip",
        xgap=2,
        ygap=2,
        coloraxis="coloraxis",
    )


def _frames(cells: Cells, theme: Theme) -> list[dict[str, Any]]:
    """A frame around each cell that was changed."""
    line = {"color": theme.ink, "width": 3}
    return [
        {
            "type": "rect",
            "x0": x - 0.46,
            "x1": x + 0.46,
            "y0": y - 0.46,
            "y1": y + 0.46,
            "line": line,
        }
        for y, row in enumerate(cells.rows)
        for x, cell in enumerate(row)
        if cell is not None and cell.framed
    ]


def _centres(cells: Cells) -> go.Scatter | go.Scattergl:
    """A mark in the middle of every cell, which is not seen: Plotly picks marks, not cells."""
    places = [
        (column, row, cell)
        for row, cells_of in enumerate(cells.rows)
        for column, cell in enumerate(cells_of)
        if cell is not None
    ]
    made: Callable[..., Any] = go.Scattergl if len(places) > MANY else go.Scatter
    return made(
        x=[column for column, _, _ in places],
        y=[row for _, row, _ in places],
        mode="markers",
        marker={"opacity": 0, "size": 20, "symbol": "square"},
        customdata=_picked((cell.name, cell.about) for _, _, cell in places),
        hovertemplate=HOVER,
        showlegend=False,
    )


def _colours(cells: Cells, theme: Theme) -> dict[str, Any]:
    bar: dict[str, Any] = {
        "title": {"text": _escaped(cells.heading), "side": "top", "font": {"size": 12}},
        "orientation": "h",
        "y": 1,
        "yanchor": "bottom",
        "outlinewidth": 0,
        "thickness": 12,
    }
    if cells.ticks is not None:
        bar["tickvals"] = [tick.place for tick in cells.ticks]
        bar["ticktext"] = [tick.name for tick in cells.ticks]
    return {
        "colorscale": scale(getattr(theme, cells.scale)),
        "reversescale": cells.reverse,
        "cmin": cells.low,
        "cmax": cells.high,
        "colorbar": bar,
    }
