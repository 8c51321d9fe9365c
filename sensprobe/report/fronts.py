"""A search seen otherwise: at another batch, within a budget, without unstable plans."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from math import isfinite, nan

from sensprobe.report.results import Candidate, Compared, Confirmation, Search
from sensprobe.scores.pareto import nondominated

MOST_BATCH = 2**20
"""The largest batch that is told; a plan without state has none."""
KEPT = 4
"""Answers kept: a page asks the same of one search at every click."""


@dataclass(frozen=True, slots=True)
class FrontView:
    """A way to look at a front. Budgets, in all and of weights and state apart, are in bytes, NaN
    where there is none; `selected` and `named` are names of plans: those have rings, and both lie
    within the axes. `loss` draws what is lost to full precision,
    on a log axis, instead of the score; None does so of text alone."""

    budget: float = nan
    weights: float = nan
    state: float = nan
    feasible: bool = False
    log: bool = True
    loss: bool | None = None
    selected: tuple[str, ...] = ()
    named: tuple[str, ...] = ()

    @property
    def limited(self) -> bool:
        """Whether a budget is set."""
        return any(map(isfinite, (self.budget, self.weights, self.state)))


@lru_cache(maxsize=KEPT)
def at_batch(search: Search, batch: int) -> Search:
    """The same plans with the state of `batch` sequences: bytes, bits a value, and the front.

    What was chosen stays what was chosen, at the batch it was searched for. A search that does not
    say what state full precision has tells neither its bytes nor bits a value.
    """
    if batch == search.batch:
        return search
    factor = batch / search.batch
    full_state = round(search.full_state_bytes * factor)
    full = search.full_bytes - search.full_state_bytes + full_state
    stateful = any(c.state_bytes for c in search.candidates)
    reals = 0.0 if stateful and not full_state else full / 4  # full precision is float32

    def state_of(plan: Candidate | Compared) -> int:
        return round(plan.state_bytes * factor)

    def carried(c: Candidate) -> Candidate:
        state = state_of(c)
        total = c.weight_bytes + state
        bits = 8 * total / reals if reals else nan
        return replace(c, state_bytes=state, total_bytes=total, effective_bits=bits)

    compared = [
        replace(b, state_bytes=state_of(b), total_bytes=b.weight_bytes + state_of(b))
        for b in search.compared
    ]
    candidates = with_front([carried(c) for c in search.candidates], search.quantity.sign)
    return replace(
        search,
        batch=batch,
        candidates=tuple(candidates),
        compared=tuple(compared),
        full_bytes=full,
        full_state_bytes=full_state,
        stored_bytes=search.stored_bytes
        and search.stored_bytes - search.full_state_bytes + full_state,
    )


def with_front(candidates: Sequence[Candidate], sign: int) -> list[Candidate]:
    """Marks those that no other beats, among plans measured in full."""
    whole = [c for c in candidates if not c.stopped_early and isfinite(c.metric.value)]
    best = nondominated([c.total_bytes for c in whole], [sign * c.metric.value for c in whole])
    names = {whole[k].name for k in best}
    return [replace(c, on_front=c.name in names) for c in candidates]


def feasible(candidate: Candidate | Compared, view: FrontView) -> bool:
    """Return whether a plan fits the budgets and its recurrence is stable."""
    beyond = (
        candidate.total_bytes > view.budget
        or candidate.weight_bytes > view.weights
        or candidate.state_bytes > view.state
        or candidate.radius > 1
    )
    return not beyond


@lru_cache(maxsize=KEPT)
def best_within(search: Search, view: FrontView) -> Candidate | None:
    """The plan of the highest score that is feasible, measured in full; of several one that the
    search chose, then the smallest."""
    sign, picks = search.quantity.sign, search.picks

    def place(c: Candidate) -> tuple[float, bool, int]:
        return sign * c.metric.value, c.name in picks, -c.total_bytes

    return max(whole(search, view), key=place, default=None)


@lru_cache(maxsize=KEPT)
def smallest_unharmed(
    search: Search, view: FrontView, confirmed: Confirmation | None = None
) -> Candidate | None:
    """The feasible plan of the fewest bytes that differs from full precision for the worse neither
    where it was searched nor where it was confirmed."""
    sign = search.quantity.sign
    unharmed = [c for c in whole(search, view) if not harmed(c, search, confirmed)]
    return min(unharmed, key=lambda c: (c.total_bytes, -sign * c.metric.value), default=None)


def harmed(plan: Candidate, search: Search, confirmed: Confirmation | None) -> bool:
    """Return whether a plan differs from full precision for the worse, where it was searched or
    where it was confirmed."""
    again = None if confirmed is None else confirmed.of(plan.name)
    changes = (plan.change, *(() if again is None else (again.change,)))
    return any(change.differs and search.quantity.sign * change.value < 0 for change in changes)


def largest_batch(plan: Candidate | Compared, search: Search, memory: float) -> int:
    """The most sequences whose state fits a memory beside the plan's weights, up to MOST_BATCH;
    0 where the weights alone do not fit."""
    left = memory - plan.weight_bytes
    each = plan.state_bytes / search.batch
    return (
        0 if left < each or left < 0 else min(int(left / each) if each else MOST_BATCH, MOST_BATCH)
    )


def by_batch(search: Search, memory: float) -> list[tuple[int, Candidate]]:
    """The largest batch of every plan that fits a memory and is stable, measured in full, with the
    plan, in growing batches; of those that no other beats on both batch and score."""
    sign = search.quantity.sign
    every = [(largest_batch(c, search, memory), c) for c in whole(search)]
    every = [(batch, c) for batch, c in every if batch]
    best = nondominated([-batch for batch, _ in every], [sign * c.metric.value for _, c in every])
    return sorted((every[k] for k in best), key=lambda pair: pair[0])


def whole(search: Search, view: FrontView | None = None) -> list[Candidate]:
    """Feasible plans that were measured in full; without a view, in any memory."""
    view = FrontView(feasible=True) if view is None else view
    return [
        c for c in search.candidates
        if feasible(c, view) and not c.stopped_early and isfinite(c.metric.value)
    ]  # fmt: skip
