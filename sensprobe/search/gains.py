"""Optuna on a dozen multipliers of the sensitivities, each trial decoded by the exact solver."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import exp, log2
from pathlib import Path

import numpy as np
from optuna.distributions import BaseDistribution, FloatDistribution
from optuna.samplers import BaseSampler, TPESampler
from optuna.study import Study

from sensprobe.errors import BudgetError
from sensprobe.search.arena import Arena, Spent
from sensprobe.search.knapsack import solve
from sensprobe.search.problem import Assignment, Budget, Problem
from sensprobe.search.studies import completed, open_study, quiet, reseed

REACH = 2.0  # multipliers run over exp(-REACH)..exp(REACH)
OPENING = 12  # budgets of the additive solutions evaluated first
PATIENCE = 300


def gains(
    arena: Arena, budgets: Sequence[Budget], *, seed: int, study_name: str, storage: Path | None
) -> None:
    """Fill the arena with decoded trials until its evaluations are spent."""
    with quiet():
        study = open_study(study_name, storage, ["minimize", "minimize"])
        try:
            for trial in completed(study):
                arena.measure(tuple(trial.user_attrs["assignment"]), f"trial {trial.number}")
            if not study.get_trials(deepcopy=False):
                for place in np.linspace(0.0, 1.0, max(OPENING, len(budgets))):
                    study.enqueue_trial(_still(arena.problem) | {"budget": float(place)})
            _propose(study, arena, budgets, seed)
        except Spent:
            return


def _propose(study: Study, arena: Arena, budgets: Sequence[Budget], seed: int) -> None:
    problem, idle, finished = arena.problem, 0, len(completed(study))
    while idle < PATIENCE and len(arena.candidates) < problem.count:
        reseed(study, _sampler, seed, finished)
        trial = study.ask(_space(problem))
        known = len(arena.candidates)
        assignment = decode(problem, trial.params, budgets)
        candidate = arena.measure(assignment, f"trial {trial.number}")
        trial.set_user_attr("assignment", list(assignment))
        study.tell(trial, [candidate.extra_nats, log2(max(candidate.size.total, 1))])
        idle = 0 if len(arena.candidates) > known else idle + 1
        finished += 1


def decode(problem: Problem, params: Mapping[str, float], budgets: Sequence[Budget]) -> Assignment:
    """The solver's plan for the scaled sensitivities at the trial's budget."""
    limited = [budget for budget in budgets if budget.limits_bytes]
    if limited:
        budget = limited[min(int(params["budget"] * len(limited)), len(limited) - 1)]
    else:
        low, high = problem.smallest().total, problem.largest().total
        budget = Budget(total=min(int(low * (high / low) ** params["budget"]), high - 1))
    factors = multipliers(problem, params)
    try:
        return solve(problem, budget, gains=factors)
    except BudgetError:
        return solve(problem, Budget(total=problem.smallest().total), gains=factors)


def multipliers(problem: Problem, params: Mapping[str, float]) -> list[float]:
    """One factor a decision: its part's, a slope over depth, and a bump at both ends."""
    return [
        exp(
            params[f"part.{d.part}"]
            + params.get("depth.slope", 0.0) * (d.depth - 0.5)
            + params.get("depth.ends", 0.0) * (2 * abs(d.depth - 0.5) - 0.5)
        )
        for d in problem.decisions
    ]


def _space(problem: Problem) -> dict[str, BaseDistribution]:
    names = sorted({f"part.{decision.part}" for decision in problem.decisions})
    if len({decision.depth for decision in problem.decisions}) > 1:
        names += ["depth.slope", "depth.ends"]
    space: dict[str, BaseDistribution] = {n: FloatDistribution(-REACH, REACH) for n in names}
    return space | {"budget": FloatDistribution(0.0, 1.0)}


def _still(problem: Problem) -> dict[str, float]:
    return {name: 0.0 for name in _space(problem)}


def _sampler(seed: int) -> BaseSampler:
    return TPESampler(seed=seed, multivariate=True)
