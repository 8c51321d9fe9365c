"""The search: which option for which decision, within a budget, judged by real evaluations.

Modules, each of which uses only those above it:

    problem     plain values: options, decisions, problem, budget, sample, candidate, result
    monotone    noisy sensitivities made monotone in bits
    frontier    the additive model's hull, and its whole front when small
    knapsack    exact plans for any budget (MILP)
    race        when a candidate is beaten beyond its error bar (pure)
    arena       candidates evaluated once, raced, paid for
    byhand      the plan a person would make of a budget
    surrogate   a guess, with its error, of the score of plans not evaluated
    promise     what evaluating a plan is expected to bring
    studies     Optuna's studies, made and kept
    gains, direct, exhaustive   the methods
    history     what an Optuna storage tells of a search
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Literal, get_args

import numpy as np

from sensprobe.errors import UsageError
from sensprobe.search.arena import Arena, Asked, OnEvent, Spent
from sensprobe.search.byhand import upgraded
from sensprobe.search.direct import direct
from sensprobe.search.exhaustive import check_count, every_assignment
from sensprobe.search.frontier import Hull, every_point, sweep
from sensprobe.search.gains import gains
from sensprobe.search.knapsack import check_budget, lightest, solve
from sensprobe.search.monotone import monotone
from sensprobe.search.problem import (
    Assignment,
    Budget,
    Candidate,
    Choice,
    Decision,
    Evaluate,
    Event,
    Option,
    Pair,
    Problem,
    Sample,
    SearchResult,
    Size,
)
from sensprobe.search.promise import Aim
from sensprobe.search.studies import fingerprint

__all__ = [
    "Assignment",
    "Budget",
    "Candidate",
    "Choice",
    "Decision",
    "Evaluate",
    "Event",
    "Hull",
    "Method",
    "Option",
    "Pair",
    "Problem",
    "Sample",
    "SearchResult",
    "Size",
    "every_point",
    "lightest",
    "monotone",
    "search",
    "solve",
    "sweep",
]

Method = Literal["gains", "direct", "frontier", "exhaustive"]
FRONT_POINTS = 24  # hull plans `frontier` evaluates where no budget is named
Z95 = 1.645  # one-sided 95 %
_ROUNDING = 1e-9  # 2 of 400 samples are 0.005, whatever floats say


def search(
    problem: Problem,
    budgets: Sequence[Budget],
    evaluate: Evaluate,
    *,
    baseline: Sequence[Sample],
    method: Method = "gains",
    evaluations: float = 100,
    seed: int = 0,
    uniform: Mapping[str, Assignment] | None = None,
    sampler: str = "tpe",
    storage: Path | None = None,
    on_event: OnEvent | None = None,
    seconds_each: float | None = None,
    full_bytes: int | None = None,
    chance: float = 0.0,
    room: int = 1,
) -> SearchResult:
    """Evaluate plans within `evaluations` full evaluations and choose the best for each budget.

    `baseline` holds the full-precision samples, one `Sample` a piece: the pieces `evaluate` is
    asked for, in order; one piece means no racing. `evaluations` is what may be spent here: the
    caller has taken off what the sensitivities cost. Uniform plans are evaluated first, in full;
    last, beyond what may be spent, for each budget of bytes the best uniform plan with its best
    single upgrade (see `byhand`).
    With no budgets the whole front is searched, its hypervolume measured from (`full_bytes`,
    `chance`): the full-precision bytes (default: the largest plan's) and the score of guessing.
    `evaluate` is asked for `room` plans at a time where the method has so many to ask for before
    it must know what came out; a room of 1 decides each plan on all that came before it.
    `storage` is Optuna's SQLite file. `seconds_each` only helps messages. KeyboardInterrupt ends
    the search and returns what is done, `interrupted` set.

    Errors: BudgetError for a budget no plan meets or every plan meets; UsageError for a method
    that does not exist, or too many plans for `exhaustive`.
    """
    if method not in get_args(Method):
        raise UsageError(f"no method {method!r}; there are {', '.join(get_args(Method))}.")
    measured, problem = problem, monotone(problem)
    for budget in budgets:
        check_budget(problem, budget)
    if method == "exhaustive":
        check_count(problem, evaluations, seconds_each=seconds_each)
    report = on_event or (lambda event: None)
    arena = Arena(problem, evaluate, baseline, allowed=evaluations, on_event=report, room=room)
    aim = Aim(
        tuple(budgets),
        float(arena.baseline.score.mean()),
        full_bytes or problem.largest().total,
        chance,
    )
    question = fingerprint(measured, aim, sorted((uniform or {}).items()), sampler)
    name = f"{method}-seed{seed}-{question}"
    run = {
        "gains": lambda: gains(arena, aim, measured, seed=seed, study_name=name, storage=storage),
        "direct": lambda: direct(
            arena, budgets, seed=seed, sampler=sampler, study_name=name, storage=storage
        ),
        "frontier": lambda: _frontier(arena, budgets),
        "exhaustive": lambda: _exhaustive(arena),
    }[method]
    return _conclude(arena, budgets, uniform or {}, method, run)


def _conclude(
    arena: Arena,
    budgets: Sequence[Budget],
    uniform: Mapping[str, Assignment],
    method: str,
    run: Callable[[], None],
) -> SearchResult:
    interrupted = False
    try:
        arena.measure_each((Asked(a, f"uniform {n}") for n, a in uniform.items()), race=False)
        run()
    except Spent:
        pass
    except KeyboardInterrupt:
        interrupted = True
        arena.tell("interrupted", f"stopped with {len(arena.candidates)} plans evaluated")
    plain = {a: name for name, a in uniform.items() if a in arena.candidates}
    hands: dict[Budget, tuple[Candidate, str]] = {}
    try:
        made = [] if interrupted else list(_by_hand(arena, budgets, plain).items())
        for first in range(0, len(made), arena.room):
            group = made[first : first + arena.room]
            found = arena.complete([asked for _, (asked, _) in group])
            hands |= {b: (c, about) for (b, (_, about)), c in zip(group, found, strict=True)}
    except KeyboardInterrupt:
        interrupted = True
    return SearchResult(
        method=method,
        candidates=tuple(arena.candidates.values()),
        choices=tuple(_choose(arena, b, set(plain), *hands.get(b, (None, ""))) for b in budgets),
        front=tuple(arena.front()),
        spent=arena.spent,
        interrupted=interrupted,
    )


def _by_hand(
    arena: Arena, budgets: Sequence[Budget], uniform: Mapping[Assignment, str]
) -> dict[Budget, tuple[Asked, str]]:
    """For each budget of bytes that has one: the best uniform plan within it with its best upgrade,
    and what that is, in words."""
    made: dict[Budget, tuple[Asked, str]] = {}
    for budget in budgets:
        plain = [c for c in _fitting(arena, budget) if c.assignment in uniform]
        start = _best(plain, budget) if budget.limits_bytes else None
        better = None if start is None else upgraded(arena.problem, budget, start.assignment)
        if start is None or better is None:
            continue
        decision = arena.problem.decisions[better.decision]
        scheme = decision.options[better.assignment[better.decision]].scheme
        about = f"{uniform[start.assignment]}, {decision.name} in {scheme}"
        made[budget] = Asked(better.assignment, f"hand {about}"), about
    return made


def _fitting(arena: Arena, budget: Budget) -> list[Candidate]:
    """Candidates measured in full that meet every limit of a budget."""
    fits = [c for c in arena.finished() if budget.admits(c.size)]
    if budget.max_loss is None:
        return fits
    return [c for c in fits if c.drop <= budget.max_loss + _ROUNDING]


def _choose(
    arena: Arena, budget: Budget, uniform: set[Assignment], hand: Candidate | None, about: str
) -> Choice:
    """The best measured candidate within the budget; uniform plans compete like any other."""
    fits = _fitting(arena, budget)
    best = _best(fits, budget)
    bound = None if best is None else _bound(best)
    plain = _best([c for c in fits if c.assignment in uniform], budget)
    return Choice(budget, best, bound, plain, hand, about)


def _bound(candidate: Candidate) -> float:
    """One-sided 95 % upper bound of the drop; of n samples that all agree by the rule of three."""
    if candidate.drop_stderr == 0:
        return candidate.drop + 3 / candidate.n
    return candidate.drop + Z95 * candidate.drop_stderr


def _best(fits: Sequence[Candidate], budget: Budget) -> Candidate | None:
    """The candidate of most merit, or of fewest bytes where the loss is limited; None of none."""
    if budget.max_loss is None:
        return max(fits, key=_merit, default=None)
    return min(fits, key=lambda c: (c.size.total, *(-m for m in _merit(c))), default=None)


def _merit(candidate: Candidate) -> tuple[float, float, int]:
    """Measured score, then the loss (it sees what a score of few samples cannot), then bytes."""
    return candidate.score, -candidate.extra_nats, -candidate.size.total


def _frontier(arena: Arena, budgets: Sequence[Budget]) -> None:
    """The solver's plan for each budget; hull plans for `max_loss` alone, or for no budget."""
    asked = []
    for budget in budgets:
        if budget.limits_bytes:
            asked.append(Asked(solve(arena.problem, budget), f"frontier {budget}"))
    arena.measure_each(asked, race=False)
    if not budgets or any(budget.max_loss is not None for budget in budgets):
        hull = sweep(arena.problem)
        spread = np.log(np.maximum(hull.total_bytes, 1))
        wanted = np.linspace(spread[0], spread[-1], FRONT_POINTS)
        points = sorted({int(np.abs(spread - place).argmin()) for place in wanted})
        arena.measure_each(Asked(hull.assignment(k), f"hull {k}") for k in points)


def _exhaustive(arena: Arena) -> None:
    plans = enumerate(every_assignment(arena.problem))
    arena.measure_each((Asked(plan, f"plan {number}") for number, plan in plans), race=False)
