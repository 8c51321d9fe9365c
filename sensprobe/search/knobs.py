"""The few numbers of a training, proposed by Optuna: rates and teacher, judged by short trainings.

The first proposal is what training would do without; the others are those of a TPE sampler
(Bergstra et al. 2011) with a seed. A study repeats itself as long as it is told the same, so one
that was stopped goes on by being asked again.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import optuna
from optuna.samplers import TPESampler

from sensprobe.search.studies import quiet

RATES = 1e-4, 3e-2
"""The learning rates between which one is proposed."""
SHARES = 0.05, 0.5
"""The shares of it that the rate of decays and step sizes may be."""


@dataclass(frozen=True, slots=True)
class Knobs:
    """A proposal."""

    lr: float
    ssm_lr: float
    teacher: str


def within(value: float, ends: tuple[float, float]) -> float:
    return min(max(value, ends[0]), ends[1])


def proposals(
    first: Knobs, teachers: Sequence[str], trials: int, seed: int, score: Callable[[Knobs], float]
) -> list[tuple[Knobs, float]]:
    """So many proposals with their scores, the best one first; `score` is to be large."""
    with quiet():
        study = optuna.create_study(direction="maximize", sampler=TPESampler(seed=seed))
        lr, share = within(first.lr, RATES), within(first.ssm_lr / first.lr, SHARES)
        study.enqueue_trial({"lr": lr, "share": share, "teacher": first.teacher})
        found = []
        for number in range(trials):
            trial = study.ask()
            lr = trial.suggest_float("lr", *RATES, log=True)
            share = trial.suggest_float("share", *SHARES, log=True)
            teacher = trial.suggest_categorical("teacher", list(teachers))
            knobs = Knobs(lr, lr * share, teacher) if number else first
            found.append((knobs, score(knobs)))
            study.tell(trial, found[-1][1])
    return sorted(found, key=lambda one: -one[1])
