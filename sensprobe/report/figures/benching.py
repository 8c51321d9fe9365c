"""How fast operations on packed memory ran: beside copying memory, and beside PyTorch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import log10
from typing import Any

import plotly.graph_objects as go

from sensprobe.report.bench_lines import COPY, TICKS, TORCH, Shown, across, drawn, lines_of, spread
from sensprobe.report.bench_tables import GIGA, MICRO, PERCENT
from sensprobe.report.benches import BenchCase, BenchRun
from sensprobe.report.figures.style import empty, figure, label, number_or_none, whole
from sensprobe.report.theme import GREY, LIGHT, SERIES, SYMBOLS, Theme
from sensprobe.report.values import digits, in_bytes, number

ROW, FRAME = 24, 190  # pixels of a line, and of all that stands around the lines
Lines = Mapping[tuple[str, str], int]


def bandwidths(found: BenchRun, other: BenchRun | None = None, theme: Theme = LIGHT) -> go.Figure:
    """A line an operation and scheme, a mark a shape, with quartiles: the share of the bandwidth of
    copying that was reached. Another bench has open marks."""
    return _drawn(COPY, found, other, theme)


def ratios(found: BenchRun, other: BenchRun | None = None, theme: Theme = LIGHT) -> go.Figure:
    """The same lines and marks: how many times as fast as PyTorch's own operation."""
    return _drawn(TORCH, found, other, theme)


def _drawn(shown: Shown, found: BenchRun, other: BenchRun | None, theme: Theme) -> go.Figure:
    kept = [drawn(shown, bench) for bench in (found, other) if bench is not None]
    cases = [case for of_one in kept for case in of_one]
    if not cases:
        return empty(shown.title, "nothing of the kind was measured", theme)
    lines = lines_of(cases)
    shapes = list(dict.fromkeys(case.model for case in cases))
    traces = [
        _marks(shown, [c for c in of_one if c.model == shape], lines, k, second=bool(second))
        for second, of_one in enumerate(kept)
        for k, shape in enumerate(shapes)
    ]
    beside = "" if other is None else f"filled: {found.title}; open: {other.title}"
    return figure(
        [trace for trace in traces if trace.x],
        shown.title,
        theme,
        subtitle=beside,
        xaxis=_values(shown, cases),
        yaxis=_names(lines),
        shapes=[_rule(shown.same)],
        height=FRAME + ROW * len(lines),
        margin={"t": 104},
        legend={"itemclick": False, "itemdoubleclick": False},
        showlegend=True,
        hovermode="closest",
    )


def _values(shown: Shown, cases: Sequence[BenchCase]) -> dict[str, Any]:
    low, high = across(shown, cases)
    axis: dict[str, Any] = {"title": {"text": shown.heading}, "range": [low, high]}
    if shown.log:
        axis |= {"type": "log", "tickvals": list(TICKS), "range": [log10(low), log10(high)]}
    return axis


def _names(lines: Lines) -> dict[str, Any]:
    named = [label(scheme) if scheme else f"<b>{label(op)}</b>" for op, scheme in lines]
    return {
        "tickvals": list(lines.values()),
        "ticktext": named,
        "range": [len(lines) - 0.5, -0.5],
        "zeroline": False,
    }


def _rule(at: float) -> dict[str, Any]:
    """Where a case is as fast as what it is compared with."""
    line = {"color": GREY, "dash": "dash", "width": 1.5}
    return {"type": "line", "x0": at, "x1": at, "y0": 0, "y1": 1, "yref": "paper", "line": line,
            "layer": "below"}  # fmt: skip


def _marks(
    shown: Shown, cases: Sequence[BenchCase], lines: Lines, place: int, *, second: bool
) -> go.Scatter:
    """The marks of one shape in one bench."""
    colour = SERIES[place % len(SERIES)]
    symbol = SYMBOLS[place % len(SYMBOLS)]
    values = [shown.value(c) for c in cases]
    return go.Scatter(
        x=values,
        y=[lines[c.operation, c.scheme] for c in cases],
        error_x=_spread(shown, cases),
        mode="markers",
        marker={
            "symbol": f"{symbol}-open" if second else symbol,
            "size": 10,
            "color": colour,
            "line": {"width": 2 if second else 0, "color": colour},
        },
        name=label(cases[0].model) if cases else "",
        showlegend=not second,
        customdata=[[", ".join(c.name), _hover(c)] for c in cases],
        hovertemplate="%{customdata[1]}<extra></extra>",
    )


def _spread(shown: Shown, cases: Sequence[BenchCase]) -> dict[str, Any]:
    below, above = ([number_or_none(x) for x in side] for side in spread(shown, cases))
    return {
        "type": "data",
        "symmetric": False,
        "array": above,
        "arrayminus": below,
        "thickness": 1.2,
        "width": 3,
    }


def _hover(c: BenchCase) -> str:
    lines = [
        f"<b>{whole(c.operation)}, {whole(c.model)}</b>",
        f"{whole(c.size)} in {whole(c.scheme)}",
        f"{digits(MICRO * c.seconds, 3)} µs for {in_bytes(c.bytes)}",
        f"{digits(GIGA * c.bandwidth, 3)} GB/s, {number(PERCENT * c.of_copy, 0)} % of copying",
        f"{number(c.ratio, 2)} times as fast as PyTorch",
    ]
    return "<br>".join(lines)
