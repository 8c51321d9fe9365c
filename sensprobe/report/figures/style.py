"""What every figure has in common: ground, ink, fonts, margins."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape
from typing import Any

import plotly.graph_objects as go

from sensprobe.report.theme import LIGHT, SERIES, Theme
from sensprobe.report.values import Measured, shortened

FONT = "system-ui, -apple-system, 'Segoe UI', 'DejaVu Sans', sans-serif"
Rows = Sequence[Sequence[Any]]
LABEL = 28  # characters of a name on an axis; the whole name is in the hover text


def scale(colours: tuple[str, ...]) -> list[list[Any]]:
    """Evenly spread colours as a Plotly colour scale."""
    return [[k / (len(colours) - 1), colour] for k, colour in enumerate(colours)]


def template(theme: Theme = LIGHT) -> go.layout.Template:
    """The layout of a theme; swapping it re-colours a drawn figure."""
    axis = {
        "gridcolor": theme.faint,
        "linecolor": theme.faint,
        "zerolinecolor": theme.faint,
        "ticks": "",
        "title": {"standoff": 12},
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
                "xref": "paper",
                "xanchor": "left",
                "font": {"size": 15},
                "subtitle": {"font": {"size": 12}},
            },
            "xaxis": axis,
            "yaxis": axis,
            "hoverlabel": {"align": "left", "font": {"family": FONT, "size": 12}},
            "legend": {
                "orientation": "h",
                "yanchor": "bottom",
                "y": 1.0,
                "x": 0,
                "title": {"text": ""},
            },
            "margin": {"l": 70, "r": 24, "t": 76, "b": 56},
        }
    )


def figure(
    traces: list[Any], title: str, theme: Theme, *, subtitle: str = "", **layout: Any
) -> go.Figure:
    """Traces under a title, in a theme."""
    heading = {"text": escape(title, quote=False)}
    if subtitle:
        heading["subtitle"] = {"text": escape(subtitle, quote=False)}  # type: ignore[assignment]
    return go.Figure(traces, {"template": template(theme), "title": heading, **layout})


def label(name: str, width: int = LABEL) -> str:
    """A name as a figure may show it: short and escaped."""
    return escape(shortened(name, width), quote=False)


def whole(name: str) -> str:
    """A name in full, escaped, for hover text."""
    return escape(shortened(name, 200), quote=False)


def empty(title: str, why: str, theme: Theme) -> go.Figure:
    """A figure that says why there is nothing to see."""
    note = {
        "text": escape(why),
        "showarrow": False,
        "xref": "paper",
        "yref": "paper",
        "x": 0.5,
        "y": 0.5,
    }
    hidden = {"visible": False}
    return figure([], title, theme, annotations=[note], xaxis=hidden, yaxis=hidden, height=220)


def error_bars(values: Iterable[Measured], *, visible: bool = True) -> dict[str, Any]:
    """One standard error up and down; none where it is not known."""
    bars = [number_or_none(value.stderr) for value in values]
    return {"type": "data", "array": bars, "thickness": 1.2, "width": 3, "visible": visible}


def heat_cells(z: Rows, text: Rows, data: Rows) -> go.Heatmap:
    """Cells at whole numbers with a text on each; `data` are [name, hover text]."""
    return go.Heatmap(
        z=z,
        x=list(range(len(z[0]) if z else 0)),
        y=list(range(len(z))),
        text=text,
        customdata=data,
        texttemplate="%{text}",
        hovertemplate="%{customdata[1]}<extra></extra>",
        hoverongaps=False,
        xgap=2,
        ygap=2,
        coloraxis="coloraxis",
    )


def number_or_none(value: float) -> float | None:
    """JSON has no NaN and no infinity: a mark that cannot be placed is left out."""
    return value if abs(value) < float("inf") else None
