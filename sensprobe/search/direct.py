"""Optuna on the decisions themselves: one categorical a decision, no sensitivities used.

Fine for few decisions and the yardstick for `gains`. With one budget of bytes the objective is the
paired extra loss under constraints; a proposal that does not fit costs nothing: it is told as
infeasible (by how much) with its predicted loss. Otherwise the objectives are extra loss and log2
of the bytes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import log2
from pathlib import Path

from optuna.samplers import BaseSampler, NSGAIISampler, RandomSampler, TPESampler
from optuna.study import Study
from optuna.trial import Trial

from sensprobe.errors import UsageError
from sensprobe.search.arena import Arena, Asked, Spent
from sensprobe.search.problem import Assignment, Budget, Problem, Size
from sensprobe.search.studies import Mirror, open_study, quiet

SAMPLERS: dict[str, Callable[[int], BaseSampler]] = {
    "tpe": lambda seed: TPESampler(seed=seed, multivariate=True),
    "nsga2": lambda seed: NSGAIISampler(seed=seed, population_size=10),
    "random": lambda seed: RandomSampler(seed=seed),
}
PATIENCE = 300  # proposals in a row that teach nothing new before the search ends


def direct(
    arena: Arena,
    budgets: Sequence[Budget],
    *,
    seed: int,
    sampler: str = "tpe",
    study_name: str,
    storage: Path | None,
) -> None:
    """Fill the arena with what the sampler proposes until its evaluations are spent."""
    if sampler not in SAMPLERS:
        raise UsageError(f"no sampler {sampler!r}; there are {', '.join(SAMPLERS)}.")
    only = budgets[0] if len(budgets) == 1 and budgets[0].limits_bytes else None
    with quiet():
        study = open_study(only is not None)
        study.sampler = SAMPLERS[sampler](seed)
        mirror = Mirror(study_name, storage, only is not None)
        idle = 0
        try:
            while idle < PATIENCE and len(arena.candidates) < arena.problem.count:
                idle = 0 if _round(study, arena, only, mirror) else idle + arena.room
        except Spent:
            return


def _round(study: Study, arena: Arena, only: Budget | None, mirror: Mirror) -> bool:
    """Ask for as many proposals as there is room for, evaluate what fits, and tell the study.
    Returns whether a plan was new."""
    proposals = [found for _ in range(arena.room) if (found := _propose(study, arena, only))]
    new = dict.fromkeys(plan for _, plan in proposals if plan not in arena.candidates)
    names = {plan: f"direct {len(arena.candidates) + k}" for k, plan in enumerate(new)}
    candidates = arena.measure([Asked(plan, names.get(plan, "")) for _, plan in proposals])
    for (trial, plan), candidate in zip(proposals, candidates, strict=True):
        trial.set_user_attr("assignment", list(plan))
        trial.set_user_attr("score", candidate.score)
        values = [candidate.extra_nats, log2(max(candidate.size.total, 1))]
        told = study.tell(trial, values[: len(study.directions)])
        if names.pop(plan, None):  # the first proposal of a new plan
            mirror.add(told)
    return bool(new)


def _propose(study: Study, arena: Arena, only: Budget | None) -> tuple[Trial, Assignment] | None:
    """A proposal and its plan; None where the plan does not fit, which the study is told."""
    trial = study.ask()
    assignment = _suggest(trial, arena.problem)
    size = arena.problem.size(assignment)
    if only is not None:
        trial.set_constraint("bytes", _excess(only, size))
        if not only.admits(size):
            study.tell(trial, arena.problem.loss(assignment))
            return None
    return trial, assignment


def _suggest(trial: Trial, problem: Problem) -> Assignment:
    chosen = []
    for decision in problem.decisions:
        schemes = [option.scheme for option in decision.options]
        chosen.append(schemes.index(trial.suggest_categorical(decision.name, schemes)))
    return tuple(chosen)


def _excess(budget: Budget, size: Size) -> float:
    """Bytes over the limits, as a share of them; zero or less where all fit."""
    limits = ((budget.total, size.total), (budget.weight, size.weight), (budget.state, size.state))
    return max(spent / max(limit, 1) - 1 for limit, spent in limits if limit is not None)
