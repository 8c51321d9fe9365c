"""What a run found, as plain typed values: the vocabulary of tables and figures.

Values are as measured (accuracy 0.975, nats, bytes); the quantity beside them says how they are
shown.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from math import nan

from sensprobe.report.values import (
    UNKNOWN,
    Measured,
    Quantity,
    level_text,
    plus_minus,
    short,
)

RADIUS = "max|A|"
"""What tells a recurrence's stability, where a document does not say; of Mambas the largest decay
at rest."""
Entries = tuple[tuple[str, str], ...]
"""A plan as text: (pattern, scheme) in order; a later entry overrides an earlier one."""


@dataclass(frozen=True, slots=True)
class Row:
    """What one target costs in one scheme; `change` is paired with full precision."""

    target: str
    part: str
    kind: str
    layer: int | None
    scheme: str  # as asked
    applied: tuple[str, ...]  # distinct schemes after fitting to the sites
    weight_bytes: int
    state_bytes: int
    change: Measured
    additive: Measured
    radius: float  # what `radius_name` says, as stored
    sites: tuple[str, ...] = ()  # those that were put in the scheme together

    @property
    def unstable(self) -> bool:
        return self.radius > 1


@dataclass(frozen=True, slots=True)
class Sensitivity:
    """One profile: every target in every scheme."""

    method: str
    by: str
    split: str
    n: int
    clusters: int
    task: str
    metric: Quantity
    additive: Quantity
    baseline: Measured
    schemes: tuple[str, ...]
    rows: tuple[Row, ...]
    radius_name: str = RADIUS

    @property
    def targets(self) -> list[str]:
        """In the order they were profiled."""
        return list(dict.fromkeys(row.target for row in self.rows))

    @property
    def has_metric(self) -> bool:
        """Whether the headline metric was measured (the estimate from a gradient has none)."""
        return any(row.change.known for row in self.rows)

    @property
    def grid(self) -> dict[tuple[str, str], Row]:
        """(target, scheme) -> row."""
        return {(row.target, row.scheme): row for row in self.rows}

    def quantity(self, of: str) -> Quantity:
        """What is measured: `of` is "metric" (change to full precision) or "additive"."""
        return self.metric if of == "metric" else self.additive

    def heading(self, of: str) -> str:
        """Name and unit of what is measured."""
        return self.metric.change_heading if of == "metric" else self.additive.heading

    def shown(self, row: Row, of: str) -> Measured:
        """An observation in the shown unit."""
        return self.quantity(of).shown(row.change if of == "metric" else row.additive)

    def text(self, row: Row, of: str, *, bars: bool = True) -> str:
        """An observation as text, with its error bar or to the digits that one supports."""
        value = self.shown(row, of)
        if of != "metric":
            return level_text(self.additive, value, bars=bars)
        return plus_minus(value, signed=True) if bars else short(value, signed=True)


@dataclass(frozen=True, slots=True)
class Candidate:
    """A plan the search evaluated. `change` is metric minus full precision on the same samples."""

    name: str
    label: str
    source: str
    uniform: str | None  # the scheme, where the plan is uniform
    entries: Entries
    weight_bytes: int
    state_bytes: int
    total_bytes: int
    effective_bits: float
    metric: Measured
    change: Measured
    predicted: float  # additive loss the search expected
    n: int
    stopped_early: bool
    radius: float
    on_front: bool


@dataclass(frozen=True, slots=True)
class Chosen:
    """What the search chose for a budget: names of candidates."""

    budget: str
    candidate: str | None
    uniform: str | None  # the best uniform plan within the same budget
    hand: str | None = None  # the best plan made by hand within it
    hand_about: str = ""


@dataclass(frozen=True, slots=True)
class Beside:
    """A plan measured beside a search: a known recipe, or one of the user's.

    `chosen` is the largest chosen plan of no more bytes, `gain` its score minus this one's, paired;
    known of confirmed plans.
    """

    name: str
    weight_bytes: int
    state_bytes: int
    total_bytes: int
    metric: Measured
    change: Measured  # minus full precision, on the same samples
    radius: float
    chosen: str | None = None
    gain: Measured = UNKNOWN
    entries: Entries = ()


@dataclass(frozen=True, slots=True)
class Search:
    """One search: every candidate and what was chosen."""

    method: str
    batch: int
    split: str
    n: int
    evaluations: float
    spent: float
    quantity: Quantity
    full: Measured
    full_bytes: int
    chance: float
    budgets: Mapping[str, float]  # label -> total bytes, NaN where that is not limited
    candidates: tuple[Candidate, ...]
    chosen: tuple[Chosen, ...]
    also: tuple[Beside, ...] = ()
    full_state_bytes: int = 0
    stored_bytes: int = 0  # weights as the model's file has them, and the state; 0: not known
    stored_dtype: str = ""
    radius_name: str = RADIUS

    def times_smaller(self, total_bytes: int) -> float:
        """How many times a plan's bytes go into those of the model as the user has it."""
        return self.stored_bytes / total_bytes if self.stored_bytes and total_bytes else nan

    def candidate(self, name: str | None) -> Candidate | None:
        return next((c for c in self.candidates if c.name == name), None)

    def plan(self, name: str | None) -> Candidate | Beside | None:
        """A candidate, or what was measured beside the search."""
        return self.candidate(name) or next((b for b in self.also if b.name == name), None)

    @property
    def picks(self) -> dict[str, list[str]]:
        """Candidate name -> the budgets it was chosen for; not to be changed."""
        return _picks(self.chosen)


@lru_cache(maxsize=64)
def _picks(chosen: tuple[Chosen, ...]) -> dict[str, list[str]]:
    """Asked for once a mark of every figure."""
    out: dict[str, list[str]] = {}
    for choice in chosen:
        if choice.candidate is not None:
            out.setdefault(choice.candidate, []).append(choice.budget)
    return out


@dataclass(frozen=True, slots=True)
class Confirmed:
    """A chosen plan on data that nothing before has seen."""

    budget: str
    candidate: str
    name: str
    weight_bytes: int
    state_bytes: int
    total_bytes: int
    metric: Measured
    change: Measured
    uniform: str | None
    uniform_bytes: int
    uniform_metric: Measured
    difference: Measured  # this plan minus the uniform one, paired
    radius: float
    uniform_radius: float = nan
    max_loss: float | None = None  # what the budget allows, in the unit of the scores
    hand: str | None = None  # what the best plan made by hand within the same budget is
    hand_bytes: int = 0
    hand_metric: Measured = UNKNOWN
    hand_difference: Measured = UNKNOWN  # this plan minus that one, paired
    hand_radius: float = nan


@dataclass(frozen=True, slots=True)
class Confirmation:
    split: str
    n: int
    quantity: Quantity
    baseline: Measured
    plans: tuple[Confirmed, ...]
    looks: int = 0  # other plans of the run that were scored on these samples before
    also: tuple[Beside, ...] = ()
    radius_name: str = RADIUS

    def misses(self, plan: Confirmed) -> bool:
        """Whether a plan loses more here than its budget allows."""
        lost = -self.quantity.sign * plan.change.value
        return plan.max_loss is not None and lost > plan.max_loss + 1e-9
