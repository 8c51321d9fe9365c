"""The one door to Optuna: a study that resumes by name, says nothing, and repeats itself.

The sampler is seeded anew for every trial from (seed, trials finished), so a study that was killed
and resumed proposes what it would have proposed in one go. A trial that was running when the
process died is closed as failed; samplers ignore it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from hashlib import sha256
from pathlib import Path
from typing import Literal

import optuna
from optuna.samplers import BaseSampler
from optuna.study import Study
from optuna.trial import FrozenTrial, TrialState

from sensprobe.search.problem import Budget, Problem

Direction = Literal["minimize", "maximize"]
MakeSampler = Callable[[int], BaseSampler]


def fingerprint(problem: Problem, budgets: Sequence[Budget]) -> str:
    """Eight hex digits that change when the question does."""
    return sha256(repr((problem, tuple(budgets))).encode()).hexdigest()[:8]


@contextmanager
def quiet() -> Iterator[None]:
    """Optuna's logging at warning level inside, as it was outside."""
    level = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    try:
        yield
    finally:
        optuna.logging.set_verbosity(level)


def open_study(name: str, storage: Path | None, directions: Sequence[Direction]) -> Study:
    """A new study, or the one of that name in the SQLite file, with dead trials closed."""
    url = None if storage is None else f"sqlite:///{storage}"
    study = optuna.create_study(
        study_name=name, storage=url, directions=list(directions), load_if_exists=True
    )
    for trial in study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
        study.tell(trial.number, state=TrialState.FAIL)
    return study


def completed(study: Study) -> list[FrozenTrial]:
    """Trials that have values, in order."""
    return study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))


def reseed(study: Study, make: MakeSampler, seed: int, finished: int) -> None:
    """Give the study a sampler whose randomness is this trial's own."""
    study.sampler = make((seed * 1_000_003 + finished) % 2**32)
