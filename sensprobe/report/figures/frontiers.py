"""Score against bytes: every plan the search evaluated, and which of them nothing beats."""

from __future__ import annotations

from collections.abc import Sequence
from math import isfinite
from typing import Any

import plotly.graph_objects as go

from sensprobe.report.figures.style import empty, error_bars, figure, label, whole
from sensprobe.report.fronts import FrontView, feasible
from sensprobe.report.results import Beside, Candidate, Search
from sensprobe.report.tables import (
    CHOSEN,
    DOMINATED,
    FRONT,
    MOST_DOMINATED,
    UNIFORM,
    mark_of,
    symbol,
    thinned,
)
from sensprobe.report.theme import BLUE, GREEN, GREY, LIGHT, ORANGE, PURPLE, VERMILION, Theme
from sensprobe.report.values import Measured, byte_ticks, digits, flagged, in_bytes, plus_minus

EVERYTHING = FrontView()
LOOKS: dict[str, dict[str, Any]] = {
    DOMINATED: {"symbol": "circle", "size": 6, "color": GREY, "opacity": 0.4},
    FRONT: {"symbol": "circle", "size": 9, "color": BLUE},
    UNIFORM: {"symbol": "diamond", "size": 11, "color": ORANGE},
    CHOSEN: {"symbol": "star", "size": 16, "color": GREEN},
}


def frontier(search: Search, theme: Theme = LIGHT, view: FrontView = EVERYTHING) -> go.Figure:
    """Error bars of one standard error, full precision as a band, known recipes by name.

    `customdata[0]` of a mark is the plan's name.
    """
    title = f"What {search.quantity.name} the memory buys"
    plotted = [c for c in search.candidates if c.total_bytes > 0 and isfinite(c.metric.value)]
    if view.feasible:
        plotted = [c for c in plotted if feasible(c, view.budget)]
    if not plotted:
        return empty(title, "no plan was evaluated", theme)
    marks: dict[str, list[Candidate]] = {mark: [] for mark in LOOKS}
    for c in plotted:
        marks[symbol(c, search)].append(c)
    every = len(marks[DOMINATED])
    marks[DOMINATED] = thinned(marks[DOMINATED])
    note = f" ({len(marks[DOMINATED]):,} of {every:,} drawn)" if every > MOST_DOMINATED else ""
    beside = [b for b in search.also if b.total_bytes > 0 and isfinite(b.metric.value)]
    sizes = [c.total_bytes for c in plotted] + [b.total_bytes for b in beside]
    low, high = min(sizes), max(*sizes, search.full_bytes, 1.3 * min(sizes))
    edges = (low / 1.08, high * 1.08)
    height = _Height(search, view.loss, [*(c.change for c in plotted)])
    traces = [
        *([] if view.loss else _full_precision(search, edges)),
        _marks(DOMINATED, f"dominated{note}", marks[DOMINATED], search, height),
        _steps(plotted, height),
        *(
            _marks(mark, name, marks[mark], search, height)
            for mark, name in ((FRONT, "front"), (UNIFORM, "uniform"), (CHOSEN, "chosen"))
        ),
        *_recipes(beside, search, height),
        *_selected([c for c in plotted if c.name in view.selected], search, height),
    ]
    return figure(
        traces,
        title,
        theme,
        xaxis=byte_axis(f"weights and state at batch {search.batch}", *edges, log=view.log),
        yaxis=height.axis(),
        shapes=_budget_line(view.budget),
        hovermode="closest",
        height=520,
    )


class _Height:
    """Where a plan lies on the vertical axis: its score, or what it loses, on a log axis whose
    bottom edge stands for no loss."""

    def __init__(self, search: Search, loss: bool, changes: Sequence[Measured]) -> None:
        self._search, self._loss = search, loss
        lost = [self._lost(change).value for change in changes]
        self._floor = min((v for v in lost if v > 0), default=1e-6) / 2

    def of(self, plan: Candidate | Beside) -> Measured:
        if not self._loss:
            return self._search.quantity.shown(plan.metric)
        lost = self._lost(plan.change)
        return Measured(max(lost.value, self._floor), lost.stderr, lost.n)

    def axis(self) -> dict[str, Any]:
        q = self._search.quantity
        if not self._loss:
            where = f"on {self._search.n:,} {self._search.split} samples"
            return {"title": {"text": f"{q.heading} {where}"}}
        unit = f" ({q.change_unit})" if q.change_unit else ""
        return {
            "title": {"text": f"{q.name} lost{unit}; bottom edge: none"},
            "type": "log",
            "exponentformat": "power",
        }

    def _lost(self, change: Measured) -> Measured:
        return self._search.quantity.shown(change).times(-self._search.quantity.sign)


def byte_axis(what: str, low: float, high: float, *, log: bool = True) -> dict[str, Any]:
    """An axis of bytes, ticks at powers of two and between, in the unit that suits them."""
    unit, ticks = byte_ticks(low, high)
    places = {"tickvals": [s for s, _ in ticks], "ticktext": [name for _, name in ticks]}
    if log:
        return {"type": "log", "title": {"text": f"{what} ({unit}, log scale)"}, **places}
    return {"type": "linear", "title": {"text": f"{what} ({unit})"}, **places}


def _recipes(found: list[Beside], search: Search, height: _Height) -> list[go.Scatter]:
    """Plans measured beside the search, by their names."""
    if not found:
        return []
    values = [height.of(b) for b in found]
    return [
        go.Scatter(
            x=[b.total_bytes for b in found],
            y=[v.value for v in values],
            error_y=error_bars(values),
            mode="markers+text",
            text=[label(b.name, 16) for b in found],
            textposition="bottom center",
            marker={"symbol": "square", "size": 10, "color": VERMILION},
            name="known recipe",
            customdata=[[b.name, _beside_hover(b, search)] for b in found],
            hovertemplate="%{customdata[1]}<extra></extra>",
        )
    ]


def _selected(found: list[Candidate], search: Search, height: _Height) -> list[go.Scatter]:
    """Rings around the plans that were picked."""
    if not found:
        return []
    return [
        go.Scatter(
            x=[c.total_bytes for c in found],
            y=[height.of(c).value for c in found],
            mode="markers",
            marker={
                "symbol": "circle-open",
                "size": 21,
                "color": PURPLE,
                "line": {"width": 3, "color": PURPLE},
            },
            name="selected",
            customdata=[[c.name, hover(c, search)] for c in found],
            hovertemplate="%{customdata[1]}<extra></extra>",
        )
    ]


def _budget_line(budget: float) -> list[dict[str, Any]]:
    if not isfinite(budget):
        return []
    line = {"color": PURPLE, "width": 1.5, "dash": "dot"}
    return [{"type": "line", "x0": budget, "x1": budget, "y0": 0, "y1": 1, "yref": "paper",
             "line": line}]  # fmt: skip


def _beside_hover(b: Beside, search: Search) -> str:
    q = search.quantity
    change = q.shown(b.change)
    lines = [
        f"<b>{whole(b.name)}</b>",
        "known recipe, measured beside the search",
        f"{q.heading} {plus_minus(q.shown(b.metric))}",
        f"{q.change_heading} {flagged(plus_minus(change, signed=True), change)}",
        f"{in_bytes(b.total_bytes)} in all",
        f"weights {in_bytes(b.weight_bytes)}, state {in_bytes(b.state_bytes)}",
    ]
    return "<br>".join(lines)


def _marks(
    mark: str, name: str, found: list[Candidate], search: Search, height: _Height
) -> go.Scatter:
    picks = search.picks
    values = [height.of(c) for c in found]
    names = {
        UNIFORM: [label((c.uniform or "").split("/")[0], 12) for c in found],
        CHOSEN: [label(", ".join(picks.get(c.name, ())), 32) for c in found],
    }.get(mark)
    look = dict(LOOKS[mark])
    if mark == DOMINATED:
        look["symbol"] = ["circle-open" if c.stopped_early else "circle" for c in found]
    return go.Scatter(
        x=[c.total_bytes for c in found],
        y=[v.value for v in values],
        error_y=error_bars(values, visible=mark != DOMINATED),
        mode="markers+text" if names else "markers",
        text=names,
        textposition="bottom right" if mark == UNIFORM else "top left",
        marker={**look, "line": {"width": 0.5, "color": look["color"]}},
        name=name,
        customdata=[[c.name, hover(c, search)] for c in found],
        hovertemplate="%{customdata[1]}<extra></extra>",
    )


def _steps(plotted: list[Candidate], height: _Height) -> go.Scatter:
    """What is reachable within so many bytes: a staircase over the front."""
    front = sorted((c for c in plotted if c.on_front), key=lambda c: c.total_bytes)
    return go.Scatter(
        x=[c.total_bytes for c in front],
        y=[height.of(c).value for c in front],
        mode="lines",
        line={"shape": "hv", "color": BLUE, "width": 1.5},
        showlegend=False,
        hoverinfo="skip",
    )


def _full_precision(search: Search, edges: tuple[float, float]) -> list[go.Scatter]:
    full = search.quantity.shown(search.full)
    if not isfinite(full.value):
        return []
    line = go.Scatter(
        x=list(edges),
        y=[full.value] * 2,
        mode="lines",
        line={"color": GREY, "width": 1.5, "dash": "dash"},
        name=f"full precision {plus_minus(full)} {search.quantity.unit}".rstrip(),
        hoverinfo="skip",
    )
    if not isfinite(full.stderr):
        return [line]
    high, low = full.value + full.stderr, full.value - full.stderr
    band = go.Scatter(
        x=[edges[0], edges[1], edges[1], edges[0]],
        y=[high, high, low, low],
        fill="toself",
        fillcolor="rgba(138, 143, 152, 0.18)",
        line={"width": 0},
        mode="lines",
        showlegend=False,
        hoverinfo="skip",
    )
    return [band, line]


def hover(c: Candidate, search: Search) -> str:
    """Everything a reader asks of one plan."""
    q = search.quantity
    change = q.shown(c.change)
    lines = [
        f"<b>{whole(c.uniform or c.name)}</b>",
        whole(mark_of(c, search) or "dominated"),
        f"{q.heading} {plus_minus(q.shown(c.metric))}",
        f"{q.change_heading} {flagged(plus_minus(change, signed=True), change)}",
        f"{in_bytes(c.total_bytes)} in all",
        f"weights {in_bytes(c.weight_bytes)}, state {in_bytes(c.state_bytes)}",
        f"{digits(c.effective_bits, 3)} bits a value",
    ]
    if c.radius > 1:
        lines.append(f"{search.radius_name} {digits(c.radius, 5)}: unstable")
    return "<br>".join(lines)
