"""A search: its gains, what it predicted and where it spent, durations, multipliers that matter."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import accumulate
from math import inf, isfinite, log, nan

from sensprobe.plans.sites import Site
from sensprobe.report.charts.chart import (
    ROW,
    Axis,
    Bar,
    Bars,
    Chart,
    Look,
    Point,
    Series,
    Tick,
    named_rows,
    nothing,
)
from sensprobe.report.charts.frontiers import LOOKS, about
from sensprobe.report.course import Course
from sensprobe.report.plans import bits_by_part
from sensprobe.report.results import Candidate, Search
from sensprobe.report.tables import DOMINATED, MARKS, symbol, thinned
from sensprobe.report.theme import BLUE, GREEN, GREY
from sensprobe.report.values import digits, in_bytes

MEANINGS = {
    "depth slope": "moves bits from the first layers to the last, or back",
    "depth ends": "moves bits from the middle layers to the first and last, or back",
    "sensitivities": "as they were measured, or made such that more bits never lose more",
}
"""What each multiplier of a search by `gains` turns; that of a part is named after it."""
BREAK = Point(nan, nan)
"""Where a line of a series ends and the next begins."""
MOST_AXES = 14  # vertical lines that a page has room for


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


def meaning(multiplier: str) -> str:
    """What a parameter of the search stands for, in a few words."""
    head, _, part = multiplier.partition(" ")
    if head == "part" and part:
        return f"how much rounding of {part} is made to count"
    return MEANINGS.get(multiplier, f"the scheme of {multiplier}")


def predictions(search: Search) -> Chart:
    """What sensitivities added up predict that each plan loses, and what it was measured to lose;
    on the line both say the same. What is not positive has no place on a log axis."""
    title = "Predicted and measured loss of every plan"
    known = [c for c in search.candidates if isfinite(c.predicted) and isfinite(c.extra_nats)]
    drawn = [c for c in known if c.predicted > 0 and c.extra_nats > 0]
    if not drawn:
        return nothing(title, "no plan here has both; a search says so when it ends")
    ends = [value for c in drawn for value in (c.predicted, c.extra_nats)]
    equal = tuple(Point(value, value) for value in (min(ends), max(ends)))
    apart = len(known) - len(drawn)

    def point(c: Candidate) -> Point:
        told = f"predicted {digits(c.predicted, 3)}", f"measured {digits(c.extra_nats, 3)}"
        lines = (*about(c, search), *told)
        return Point(c.predicted, c.extra_nats, c.name, lines, hollow=c.stopped_early)

    return Chart(
        title,
        (f"not drawn, for they are at zero or below: {apart}",) if apart else (),
        x=Axis("predicted: sensitivities added up", "nats", log=True),
        y=Axis("measured", "nats", log=True),
        series=(
            Series("equal", equal, Look(colour=GREY), "straight", "dot", marks=False),
            *(
                Series(MARKS[mark], tuple(map(point, plans)), LOOKS[mark])
                for mark, plans in _by_mark(drawn, search).items()
            ),
        ),
        height=500,
        width=5.2,
    )


def _by_mark(plans: Sequence[Candidate], search: Search) -> dict[str, list[Candidate]]:
    """Plans by the most telling thing they are, the least telling first, of many a part."""
    found: dict[str, list[Candidate]] = {mark: [] for mark in LOOKS}
    for c in plans:
        found[symbol(c, search)].append(c)
    return found | {DOMINATED: thinned(found[DOMINATED])}


def parallel(search: Search, sites: Sequence[Site]) -> Chart:
    """A line a plan through the bits of each part, its bytes and what it loses; every axis runs on
    a log scale of its own from the least to the most that a plan has, and its ends are written.

    Left out: plans that were stopped early, uniform plans of more bytes than any other plan, parts
    that all plans treat alike, and of many parts those that differ least.
    """
    title = "Where each plan spends its bits"
    kept = _kept(search)
    bits = {c.name: bits_by_part(c.entries, sites) for c in kept}
    spread = {
        part: max(b[part] for b in bits.values()) - min(b[part] for b in bits.values())
        for part in (next(iter(bits.values())) if bits else ())
    }
    widest = sorted((p for p in spread if spread[p] > 0), key=lambda p: -spread[p])
    parts = [p for p in spread if p in widest[: MOST_AXES - 2]]
    if not parts:
        return nothing(title, "no two plans differ, or this run did not keep the model's sites")
    q = search.quantity
    lost = {c.name: -q.sign * q.shown(c.change).value for c in kept}
    least = min((value for value in lost.values() if value > 0), default=1.0)
    rows = {
        c.name: [*(bits[c.name][p] for p in parts), c.total_bytes, max(lost[c.name], least / 2)]
        for c in kept
    }
    columns = list(zip(*rows.values(), strict=True))
    ends = [(min(column), max(column)) for column in columns]

    def line(c: Candidate) -> list[Point]:
        lines = (*about(c, search), *(f"{p} {digits(bits[c.name][p], 3)} bits" for p in parts))
        places = (
            log(value / low) / log(high / low) if high > low else 0.5
            for value, (low, high) in zip(rows[c.name], ends, strict=True)
        )
        return [*(Point(k, y, c.name, lines) for k, y in enumerate(places)), BREAK]

    def told(k: int, value: float) -> str:
        if k == len(parts):
            return in_bytes(value)
        return "none" if k > len(parts) and value < least else f"{value:.3g}"

    axes = [p for k in range(len(ends)) for p in (Point(k, 0), Point(k, 1), BREAK)]
    texts = [Point(k, -0.02, label=told(k, low), side="bottom center")
             for k, (low, _) in enumerate(ends)]  # fmt: skip
    texts += [Point(k, 1.02, label=told(k, high), side="top center")
              for k, (_, high) in enumerate(ends)]  # fmt: skip
    names = [*parts, "in all", f"{q.name}\nlost" + f" ({q.change_unit})" * bool(q.change_unit)]
    return Chart(
        title,
        ("bits a value of each part, bytes, and loss; each axis from its least to its most",),
        x=Axis(
            ticks=tuple(Tick(k, name) for k, name in enumerate(names)),
            ends=(-0.5, len(names) - 0.5),
            grid=False,
        ),
        y=Axis(ticks=(), ends=(-0.12, 1.12), grid=False),
        series=(
            Series("", tuple(axes), Look(colour=GREY), joined="straight", marks=False),
            Series("", tuple(texts), marks=False),
            *(
                Series(
                    MARKS[mark],
                    tuple(point for c in plans for point in line(c)),
                    replace(LOOKS[mark], size=4),
                    joined="straight",
                )
                for mark, plans in _by_mark(kept, search).items()
            ),
        ),
        height=480,
        width=9.0,
    )


def _kept(search: Search) -> list[Candidate]:
    """The plans that parallel axes show."""
    whole = [c for c in search.candidates if not c.stopped_early and isfinite(c.change.value)]
    most = max((c.total_bytes for c in whole if c.uniform is None), default=inf)
    whole = [c for c in whole if 0 < c.total_bytes <= most]
    return [c for plans in _by_mark(whole, search).values() for c in plans]


def importances(shares: Mapping[str, float]) -> Chart:
    """Shares of the variance of the loss, the largest on top."""
    title = "Which multipliers matter"
    if not shares:
        return nothing(title, "too few proposals to tell")
    order = sorted(shares, key=lambda name: -shares[name])
    bars = [Bar(100 * shares[n], n, (n, f"{100 * shares[n]:.1f} %", meaning(n))) for n in order]
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
