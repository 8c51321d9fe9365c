"""Results of a run as plain typed values: the vocabulary of tables and figures.

Values are as measured (accuracy 0.975, nats, bytes); the quantity beside them says how they are
shown.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
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
"""The name of the number that tells whether a recurrence is stable, where a document does not say;
of a Mamba it is the largest decay at rest."""
KINDS = ("weight", "state", "activation")
Entries = tuple[tuple[str, str], ...]
"""A plan as text: (pattern, scheme) in order; a later entry overrides an earlier one."""


@dataclass(frozen=True, slots=True)
class Row:
    """The cost of one group in one scheme; `change` is paired with full precision."""

    group: str
    part: str
    kind: str
    scheme: str  # as asked
    change: Measured
    additive: Measured
    layer: int | None = None
    applied: tuple[str, ...] = ()  # distinct schemes after fitting to the sites
    weight_bytes: int = 0
    state_bytes: int = 0
    radius: float = nan  # what `radius_name` says, as stored
    sites: tuple[str, ...] = ()  # those that were put in the scheme together

    @property
    def unstable(self) -> bool:
        return self.radius > 1


@dataclass(frozen=True, slots=True)
class Sensitivity:
    """One profile: every group in every scheme."""

    method: str
    by: str
    split: str
    metric: Quantity
    additive: Quantity
    baseline: Measured
    schemes: tuple[str, ...]
    rows: tuple[Row, ...]
    n: int = 0
    clusters: int = 0
    radius_name: str = RADIUS

    @property
    def groups(self) -> list[str]:
        """Names of the groups, in the order they were profiled."""
        return list(dict.fromkeys(row.group for row in self.rows))

    @property
    def searched(self) -> Sensitivity:
        """Weights and states alone, for a search leaves activations exact; everything in a profile
        of noise, and where there is nothing else."""
        kept = tuple(row for row in self.rows if row.kind != "activation")
        return replace(self, rows=kept) if kept and self.method != "noise" else self

    @property
    def kinds(self) -> str:
        """The kinds of its groups in words: "weights and states"."""
        found = {row.kind for row in self.rows}
        return " and ".join(f"{kind}s" for kind in KINDS if kind in found) or "groups"

    @property
    def has_metric(self) -> bool:
        """True if the headline metric was measured (the estimate from a gradient has none)."""
        return any(row.change.known for row in self.rows)

    @property
    def grid(self) -> dict[tuple[str, str], Row]:
        """(group, scheme) -> row."""
        return {(row.group, row.scheme): row for row in self.rows}

    def quantity(self, of: str) -> Quantity:
        """The measured quantity: `of` is "metric" (change to full precision) or "additive"."""
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
    weight_bytes: int
    state_bytes: int
    total_bytes: int
    metric: Measured
    change: Measured
    entries: Entries
    uniform: str | None = None  # the scheme, where the plan is uniform
    source: str = ""
    effective_bits: float = nan
    predicted: float = nan  # additive loss the search expected
    n: int = 0
    stopped_early: bool = False
    radius: float = nan
    on_front: bool = False
    plan_fingerprint: str = ""
    extra_nats: float = nan  # additive loss that was measured, as `predicted` counts it

    @property
    def title(self) -> str:
        """The name of the plan, and of a uniform one its scheme."""
        return self.name if self.uniform is None else f"uniform {self.uniform}"


@dataclass(frozen=True, slots=True)
class Chosen:
    """Names of the candidates chosen for a budget."""

    budget: str
    candidate: str | None = None
    uniform: str | None = None  # the best uniform plan within the same budget
    hand: str | None = None  # the best plan made by hand within it
    hand_about: str = ""


@dataclass(frozen=True, slots=True)
class Compared:
    """A plan that a search is compared with: a preset, or one of the user's.

    `chosen` is the largest chosen plan of no more bytes, `gain` its score minus this one's, paired;
    known of confirmed plans.
    """

    name: str
    weight_bytes: int
    state_bytes: int
    total_bytes: int
    metric: Measured
    change: Measured = UNKNOWN  # minus full precision, on the same samples
    radius: float = nan
    chosen: str | None = None
    gain: Measured = UNKNOWN
    entries: Entries = ()
    saved: bool = False  # a file of the run, which no search measured


@dataclass(frozen=True, slots=True, eq=False)
class Search:
    """One search: every candidate and what was chosen. Equal to itself alone, so that what is
    worked out of thousands of candidates can be kept by it."""

    method: str
    batch: int
    split: str
    quantity: Quantity
    full: Measured
    full_bytes: int
    candidates: tuple[Candidate, ...]
    n: int = 0
    chance: float = nan
    chosen: tuple[Chosen, ...] = ()
    compared: tuple[Compared, ...] = ()
    full_state_bytes: int = 0
    stored_bytes: int = 0  # weights as the model's file has them, and the state; 0: not known
    stored_dtype: str = ""
    radius_name: str = RADIUS

    def times_smaller(self, total_bytes: int) -> float:
        """The bytes of the model as the user has it over those of a plan."""
        return self.stored_bytes / total_bytes if self.stored_bytes and total_bytes else nan

    def candidate(self, name: str | None) -> Candidate | None:
        return next((c for c in self.candidates if c.name == name), None)

    def plan(self, name: str | None) -> Candidate | Compared | None:
        """A candidate, or what was measured beside the search."""
        return self.candidate(name) or next((b for b in self.compared if b.name == name), None)

    @property
    def picks(self) -> dict[str, list[str]]:
        """Candidate name -> the budgets it was chosen for; not to be changed."""
        return _picks(self.chosen)


@lru_cache(maxsize=64)
def _picks(chosen: tuple[Chosen, ...]) -> dict[str, list[str]]:
    """Cached: every mark of a figure asks for it."""
    out: dict[str, list[str]] = {}
    for choice in chosen:
        if choice.candidate is not None:
            out.setdefault(choice.candidate, []).append(choice.budget)
    return out


@dataclass(frozen=True, slots=True)
class Rival:
    """A plan that a confirmed one stands against within the same budget: the best uniform one, or
    the best one made by hand.

    `difference` is the confirmed plan's score minus this one's, paired.
    """

    name: str
    total_bytes: int = 0
    metric: Measured = UNKNOWN
    difference: Measured = UNKNOWN
    radius: float = nan


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
    radius: float = nan
    max_loss: float | None = None  # what the budget allows, in the unit of the scores
    uniform: Rival | None = None
    hand: Rival | None = None


@dataclass(frozen=True, slots=True)
class Confirmation:
    """The chosen plans of a search, measured on the samples kept for the end."""

    split: str
    quantity: Quantity
    baseline: Measured
    plans: tuple[Confirmed, ...]
    n: int = 0
    looks: int = 0  # other plans of the run that were scored on these samples before
    compared: tuple[Compared, ...] = ()
    radius_name: str = RADIUS

    def of(self, candidate: str) -> Confirmed | None:
        """What was confirmed of a candidate of the search."""
        return next((plan for plan in self.plans if plan.candidate == candidate), None)

    def misses(self, plan: Confirmed) -> bool:
        """Return whether a plan loses more here than its budget allows."""
        lost = -self.quantity.sign * plan.change.value
        return plan.max_loss is not None and lost > plan.max_loss + 1e-9
