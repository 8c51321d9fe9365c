"""How a search went: what each evaluation gained, what it took, and which multipliers mattered."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import accumulate

import plotly.graph_objects as go

from sensprobe.report.course import Course
from sensprobe.report.figures.style import empty, figure, label
from sensprobe.report.theme import BLUE, GREEN, LIGHT, Theme


def convergence(course: Course, theme: Theme = LIGHT) -> go.Figure:
    """Hypervolume of the front after each plan, as a share of the last."""
    title = "What each evaluation gained"
    if len(course.volume) < 2 or not course.volume[-1] > 0:
        return empty(title, "nothing better than the reference was evaluated yet", theme)
    last = course.volume[-1]
    line = go.Scatter(
        x=list(range(1, len(course.volume) + 1)),
        y=[100 * v / last for v in course.volume],
        mode="lines",
        line={"shape": "hv", "color": BLUE, "width": 2},
        customdata=[[name] for name in course.names],
        hovertemplate="plan %{x}: %{customdata[0]}<br>%{y:.1f} %<extra></extra>",
        showlegend=False,
    )
    return figure(
        [line],
        title,
        theme,
        subtitle=f"reference: {course.reference}",
        xaxis={"title": {"text": "plans evaluated"}},
        yaxis={"title": {"text": "hypervolume (% of the last)"}, "rangemode": "tozero"},
        height=400,
    )


def importances(shares: Mapping[str, float], theme: Theme = LIGHT) -> go.Figure:
    """Shares of the variance of the loss, the largest on top."""
    title = "Which multipliers matter"
    if not shares:
        return empty(title, "too few proposals to tell", theme)
    order = sorted(shares, key=lambda name: shares[name])
    bar = go.Bar(
        x=[100 * shares[name] for name in order],
        y=[label(name) for name in order],
        orientation="h",
        marker={"color": GREEN},
        hovertemplate="%{y}: %{x:.1f} %<extra></extra>",
    )
    return figure(
        [bar],
        title,
        theme,
        subtitle="share of the variance of the loss that each explains (fANOVA)",
        xaxis={"title": {"text": "importance (%)"}},
        height=170 + 24 * max(len(order), 4),
    )


def durations(seconds: Sequence[float], theme: Theme = LIGHT) -> go.Figure:
    """Time of every evaluation in the order they were made, and all of it together."""
    title = "Time per evaluation"
    if not seconds:
        return empty(title, "nothing was evaluated yet", theme)
    count = list(range(1, len(seconds) + 1))
    total = list(accumulate(seconds))
    dots = go.Scattergl(
        x=count,
        y=list(seconds),
        mode="markers",
        marker={"size": 5, "color": BLUE},
        customdata=[[t] for t in total],
        hovertemplate="evaluation %{x}: %{y:.3g} s<br>%{customdata[0]:.4g} s so far<extra></extra>",
        showlegend=False,
    )
    return figure(
        [dots],
        f"{title}: {total[-1]:,.3g} s in all",
        theme,
        xaxis={"title": {"text": "evaluation"}},
        yaxis={"title": {"text": "seconds (log scale)"}, "type": "log"},
        height=360,
    )
