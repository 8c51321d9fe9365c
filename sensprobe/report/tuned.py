"""Tuned models of a run: what training under a plan gained, as values and as a table."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from math import isfinite, nan

from sensprobe.report.dataframes import pd
from sensprobe.report.results import RADIUS, Candidate, Compared, Search
from sensprobe.report.tables import FULL
from sensprobe.report.values import (
    KIB,
    MISSING,
    UNSTABLE,
    Measured,
    Quantity,
    byte_unit,
    number,
)
from sensprobe.units import duration

LETTER = "✚"


@dataclass(frozen=True, slots=True)
class TunedScores:
    """Scores of one split at full precision, and under a plan before and after the model was
    trained under it; `gained` is after minus before, `left` after minus full precision, paired."""

    full: Measured
    before: Measured
    after: Measured
    gained: Measured
    left: Measured
    n: int = 0


@dataclass(frozen=True, slots=True)
class Tuned:
    """A model that was trained under a plan. `name` is the budget or the plan it was asked for;
    `asked_fingerprint` that plan's, which training may have learned ranges for."""

    name: str
    asked_fingerprint: str
    weight_bytes: int
    state_bytes: int
    total_bytes: int
    search: TunedScores
    confirmation: TunedScores
    folder: str = ""
    batch: int = 1
    candidate: str | None = None
    radius: float = nan
    radius_before: float = nan
    epochs: float = 0
    seconds: float = nan
    warnings: tuple[str, ...] = ()

    def seen_on(self, split: str) -> Compared:
        """The tuned model as a plan that was measured on a split."""
        scores = self.search if split == "search" else self.confirmation
        sizes = self.weight_bytes, self.state_bytes, self.total_bytes
        return Compared(self.name, *sizes, scores.after, scores.left, self.radius)


@dataclass(frozen=True, slots=True)
class Tuning:
    """The tuned models of a run, in growing bytes."""

    quantity: Quantity
    plans: tuple[Tuned, ...]
    radius_name: str = RADIUS


def tuned_beside(found: Tuning | None, search: Search) -> tuple[Tuned, ...]:
    """Tuned models with the bytes that a search counts for their plans, at its batch."""
    plans = {c.plan_fingerprint: c for c in search.candidates if c.plan_fingerprint}
    return tuple(_beside(tuned, plans, search.batch) for tuned in (found.plans if found else ()))


def _beside(tuned: Tuned, plans: Mapping[str, Candidate], batch: int) -> Tuned:
    if (same := plans.get(tuned.asked_fingerprint)) is not None:
        return replace(tuned, state_bytes=same.state_bytes, total_bytes=same.total_bytes)
    state = round(tuned.state_bytes * batch / tuned.batch)
    return replace(tuned, state_bytes=state, total_bytes=tuned.weight_bytes + state)


def table(found: Tuning) -> pd.DataFrame:
    """Plans before and after the model was trained under them, on the confirmation split."""
    q = found.quantity
    unit, size = byte_unit([max([KIB, *(plan.total_bytes for plan in found.plans)])])
    change = f" ({q.change_unit})" if q.change_unit else ""
    gained = "gained" if q.sign > 0 else "by tuning"
    rows = [
        {
            "plan": plan.name,
            f"total ({unit})": number(plan.total_bytes / size, 0 if size == 1 else 2),
            f"untuned {q.heading}": _level(q, plan.confirmation.before, plan.radius_before),
            f"tuned {q.heading}": _level(q, plan.confirmation.after, plan.radius),
            f"{gained}{change}": q.change(plan.confirmation.gained),
            f"to {FULL}{change}": q.change(plan.confirmation.left),
            "epochs": f"{plan.epochs:.3g}",
            "trained for": trained_for(plan),
        }
        for plan in found.plans
    ]
    return pd.DataFrame(rows)


def trained_for(plan: Tuned) -> str:
    """The time that training took; of one that an earlier version began it is not known."""
    return duration(plan.seconds) if isfinite(plan.seconds) else MISSING


def _level(q: Quantity, score: Measured, radius: float) -> str:
    return f"{UNSTABLE} " * (radius > 1) + q.level(score)
