"""Tuned models: a mark each, joined to the plan as it scores on the model before it was tuned."""

from __future__ import annotations

from collections.abc import Sequence
from math import isfinite

from sensprobe.report.charts.chart import (
    Axis,
    Chart,
    Level,
    Look,
    Point,
    Series,
    byte_axis,
    error_of,
    nothing,
)
from sensprobe.report.charts.labels import apart
from sensprobe.report.tables import FRONT
from sensprobe.report.theme import BLUE, VERMILION
from sensprobe.report.tuned import LETTER, Tuned, Tuning, trained_for
from sensprobe.report.values import Measured, Quantity, in_bytes, plus_minus, shortened

LOOK = Look("cross", 12, VERMILION, letter=LETTER)
LINE = Look(colour=LOOK.colour)
BEFORE = Look("circle", 9, BLUE, letter=FRONT)


def joined(marks: Sequence[tuple[Point, Point]]) -> tuple[Series, ...]:
    """Series of (untuned, tuned) marks: a line from one to the other, and the tuned ones."""
    ends = (tuple(Point(mark.x, mark.y) for mark in pair) for pair in marks)
    lines = (Series("", pair, LINE, joined="straight", dash="dot", marks=False) for pair in ends)
    return (*lines, Series("tuned", tuple(after for _, after in marks), LOOK))


def tuned(found: Tuning) -> Chart:
    """Plans before and after the model was trained under them, by score on the confirmation split
    and bytes, with error bars of one standard error and full precision as a band."""
    title, q = "What tuning gained", found.quantity
    plans = [p for p in found.plans if p.total_bytes > 0 and isfinite(p.confirmation.after.value)]
    if not plans:
        return nothing(title, "no plan was tuned")
    marks = [(_mark(plan, q, tuned=False), _mark(plan, q, tuned=True)) for plan in plans]
    sizes = [plan.total_bytes for plan in plans]
    batches = ", ".join(sorted({str(plan.batch) for plan in plans}))
    best = max(plans, key=lambda plan: plan.confirmation.n)
    full = q.shown(best.confirmation.full)
    value = f"{plus_minus(full)} {q.unit}".rstrip()
    counts = " or ".join(f"{n:,}" for n in sorted({plan.confirmation.n for plan in plans}))
    heights = [mark.y for pair in marks for mark in pair if isfinite(mark.y)]
    level = Level(full.value, "full precision", value, full.stderr)
    if q.paired_first:
        level = Level(0.0, "full precision", value)
    heights += [level.at, level.at + (level.error if isfinite(level.error) else 0.0)]
    room = 0.12 * (max(heights) - min(heights)) or 1.0
    return apart(Chart(
        title,
        ("bars: one standard error" + (", paired with full precision" * (q.paired_first)),),
        x=byte_axis(
            f"weights and state at batch {batches}", [min(sizes) / 1.3, 1.3 * max(sizes)]
        ),
        y=Axis(
            f"{q.change_heading if q.paired_first else q.heading} on {counts} confirmation "
            "samples",
            ends=(min(heights) - room, max(heights) + room),
        ),
        series=(Series("untuned", tuple(b for b, _ in marks), BEFORE), *joined(marks)),
        levels=(level,),
        height=420,
    ))  # fmt: skip


def _mark(plan: Tuned, q: Quantity, *, tuned: bool) -> Point:
    scores = plan.confirmation
    value = q.shown(scores.after if tuned else scores.before)
    if q.paired_first:  # paired; of the plan before it no paired error is known
        left = q.shown(scores.left)
        value = left if tuned else Measured(left.value - q.shown(scores.gained).value)
    label = shortened(plan.name, 32) if tuned else ""
    lines = about_tuned(plan, q, "confirmation")
    return Point(plan.total_bytes, value.value, plan.candidate or "", lines, label, "top right",
                 y_error=error_of(value))  # fmt: skip


def about_tuned(plan: Tuned, q: Quantity, split: str) -> tuple[str, ...]:
    """Everything a reader asks of a tuned model, a line each."""
    scores = plan.search if split == "search" else plan.confirmation
    lines = [
        f"{plan.name}, tuned",
        f"{q.heading} {q.level(scores.after)} on {scores.n:,} {split} samples",
        f"untuned {q.level(scores.before)}",
        f"by tuning {q.change(scores.gained)} {q.change_unit}".rstrip(),
        f"to full precision {q.change(scores.left)} {q.change_unit}".rstrip(),
        f"{in_bytes(plan.total_bytes)} in all",
        f"{plan.epochs:.3g} epochs in {trained_for(plan)}",
    ]
    return tuple(lines)
