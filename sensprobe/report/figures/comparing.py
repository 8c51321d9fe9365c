"""Fronts of several runs on one chart."""

from __future__ import annotations

from collections.abc import Mapping
from math import isfinite

import plotly.graph_objects as go

from sensprobe.report.figures.frontiers import byte_axis, hover
from sensprobe.report.figures.style import empty, error_bars, figure, label, number_or_none
from sensprobe.report.results import Candidate, Search
from sensprobe.report.theme import LIGHT, SERIES, SYMBOLS, Theme

SCALES = ("score", "change", "share")
"""What can be drawn: the score, its change to full precision, and that over the share of bytes."""


def fronts(searches: Mapping[str, Search], of: str = "score", theme: Theme = LIGHT) -> go.Figure:
    """One staircase a run. `of`: "score", "change" (to the run's own full precision, over bytes) or
    "share" (the same over the share of full precision's bytes, for models of different sizes)."""
    title = "Fronts side by side"
    quantities = {s.quantity.heading for s in searches.values()}
    if not searches or not any(_front(s) for s in searches.values()):
        return empty(title, "no run here has a front yet", theme)
    if len(quantities) > 1:
        why = f"these runs measure different things: {', '.join(sorted(quantities))}"
        return empty(title, why, theme)
    quantity = next(iter(searches.values())).quantity
    traces = [_line(name, s, of, k) for k, (name, s) in enumerate(searches.items()) if _front(s)]
    places = [x for trace in traces for x in trace.x]
    if of == "share":
        across = {"title": {"text": "bytes, % of full precision (log scale)"}, "type": "log"}
    else:
        batches = ", ".join(sorted({str(s.batch) for s in searches.values()}))
        across = byte_axis(f"weights and state at batch {batches}", min(places), max(places))
    heading = quantity.heading if of == "score" else quantity.change_heading
    return figure(
        traces, title, theme, xaxis=across, yaxis={"title": {"text": heading}}, height=520,
        hovermode="closest",
        showlegend=True,
    )  # fmt: skip


def _front(search: Search) -> list[Candidate]:
    kept = [c for c in search.candidates if c.on_front and isfinite(c.metric.value)]
    return sorted(kept, key=lambda c: c.total_bytes)


def _line(name: str, search: Search, of: str, place: int) -> go.Scatter:
    front, q = _front(search), search.quantity
    values = [q.shown(c.metric if of == "score" else c.change) for c in front]
    share = 100 / search.full_bytes if of == "share" and search.full_bytes else 1.0
    colour = SERIES[place % len(SERIES)]
    return go.Scatter(
        x=[share * c.total_bytes for c in front],
        y=[number_or_none(v.value) for v in values],
        error_y=error_bars(values),
        mode="lines+markers",
        line={"shape": "hv", "color": colour, "width": 1.5},
        marker={"symbol": SYMBOLS[place % len(SYMBOLS)], "size": 9, "color": colour},
        name=label(name, 40),
        customdata=[[c.name, f"<b>{label(name, 60)}</b><br>{hover(c, search)}"] for c in front],
        hovertemplate="%{customdata[1]}<extra></extra>",
    )
