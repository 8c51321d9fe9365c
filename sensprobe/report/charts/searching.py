"""The course of a search: gains, durations, and the multipliers that mattered."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import accumulate

from sensprobe.report.charts.chart import (
    ROW,
    Axis,
    Bar,
    Bars,
    Chart,
    Look,
    Point,
    Series,
    named_rows,
    nothing,
)
from sensprobe.report.course import Course
from sensprobe.report.theme import BLUE, GREEN


def convergence(course: Course) -> Chart:
    """Hypervolume of the front after each plan, as a share of the last."""
    title = "What each evaluation gained"
    if len(course.volume) < 2 or not course.volume[-1] > 0:
        return nothing(title, "nothing better than the reference was evaluated yet")
    points = []
    for k, (name, volume) in enumerate(zip(course.names, course.volume, strict=True), 1):
        share = 100 * volume / course.volume[-1]
        points.append(Point(k, share, name, (f"plan {k}: {name}", f"{share:.1f} %")))
    return Chart(
        title,
        (f"reference: {course.reference}",),
        x=Axis("plans evaluated"),
        y=Axis("hypervolume (% of the last)", ends=(0, 104)),
        series=(Series("", tuple(points), Look(colour=BLUE), joined="steps", marks=False),),
        height=400,
        width=6.0,
    )


def importances(shares: Mapping[str, float]) -> Chart:
    """Shares of the variance of the loss, the largest on top."""
    title = "Which multipliers matter"
    if not shares:
        return nothing(title, "too few proposals to tell")
    order = sorted(shares, key=lambda name: -shares[name])
    bars = [Bar(100 * shares[n], n, (n, f"{100 * shares[n]:.1f} %")) for n in order]
    return Chart(
        title,
        ("share of the variance of the loss that each explains (fANOVA)",),
        x=Axis("importance (%)"),
        y=named_rows(order),
        bars=(Bars("", tuple(bars), GREEN),),
        height=170 + ROW * max(len(order), 4),
        width=6.0,
    )


def durations(seconds: Sequence[float]) -> Chart:
    """Time of every evaluation in the order they were made, and all of it together."""
    title = "Time per evaluation"
    if not seconds:
        return nothing(title, "nothing was evaluated yet")
    points = [
        Point(k, value, "", (f"evaluation {k}: {value:.3g} s", f"{total:.4g} s so far"))
        for k, (value, total) in enumerate(zip(seconds, accumulate(seconds), strict=True), 1)
    ]
    return Chart(
        f"{title}: {sum(seconds):,.3g} s in all",
        x=Axis("evaluation"),
        y=Axis("seconds", log=True),
        series=(Series("", tuple(points), Look(size=5, colour=BLUE)),),
        height=360,
        width=6.0,
    )
