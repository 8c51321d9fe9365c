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
from optuna.trial import FrozenTrial, Trial

from sensprobe.errors import UsageError
from sensprobe.search.arena import Arena, Spent
from sensprobe.search.problem import Assignment, Budget, Problem, Size
from sensprobe.search.studies import completed, open_study, quiet, reseed

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
        study = open_study(study_name, storage, ["minimize"] * (1 if only else 2))
        try:
            _replay(study, arena)
            _propose(study, arena, only, sampler, seed)
        except Spent:
            return


def _replay(study: Study, arena: Arena) -> None:
    for trial in completed(study):
        if "assignment" in trial.user_attrs:
            arena.measure(tuple(trial.user_attrs["assignment"]), f"trial {trial.number}")


def _propose(study: Study, arena: Arena, only: Budget | None, sampler: str, seed: int) -> None:
    idle = 0
    finished = len(completed(study))
    while idle < PATIENCE and len(arena.candidates) < arena.problem.count:
        reseed(study, SAMPLERS[sampler], seed, finished)
        trial = study.ask()
        assignment = _suggest(trial, arena.problem)
        size = arena.problem.size(assignment)
        known = len(arena.candidates)
        if only is not None and not only.admits(size):
            trial.set_constraint("bytes", _excess(only, size))
            study.tell(trial, arena.problem.loss(assignment))
        else:
            _evaluate(study, trial, arena, assignment, only)
        idle = 0 if len(arena.candidates) > known else idle + 1
        finished += 1


def _evaluate(
    study: Study, trial: Trial, arena: Arena, assignment: Assignment, only: Budget | None
) -> None:
    candidate = arena.measure(assignment, f"trial {trial.number}")
    trial.set_user_attr("assignment", list(assignment))
    trial.set_user_attr("score", candidate.score)
    if only is not None:
        trial.set_constraint("bytes", _excess(only, candidate.size))
        study.tell(trial, candidate.extra_nats)
    else:
        study.tell(trial, [candidate.extra_nats, log2(max(candidate.size.total, 1))])


def _suggest(trial: Trial | FrozenTrial, problem: Problem) -> Assignment:
    chosen = []
    for decision in problem.decisions:
        schemes = [option.scheme for option in decision.options]
        chosen.append(schemes.index(trial.suggest_categorical(decision.name, schemes)))
    return tuple(chosen)


def _excess(budget: Budget, size: Size) -> float:
    """Bytes over the limits, as a share of them; zero or less where all fit."""
    limits = ((budget.total, size.total), (budget.weight, size.weight), (budget.state, size.state))
    return max(spent / max(limit, 1) - 1 for limit, spent in limits if limit is not None)
