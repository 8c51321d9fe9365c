"""Replays searches on the enumerated plans: what each found of the true front, evaluation by
evaluation.

Everything measured is paid for: the baseline by every method, one evaluation a sensitivity by those
that use them. A plan asked for twice is paid for once, for every method. A candidate the race
stopped costs the share of the samples it saw and never counts as found.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from math import log2

import numpy as np
from enumeration import Enumeration
from optuna.samplers import BaseSampler, NSGAIISampler, RandomSampler, TPESampler
from optuna.study import create_study

from sensprobe.scores.pareto import hypervolume
from sensprobe.search import Assignment, Event, search
from sensprobe.search.studies import quiet

BASELINE = 1  # evaluations full precision costs
ASKED = 20  # proposals for each evaluation allowed, before a sampler that repeats itself is stopped

Curve = np.ndarray
"""(evaluations + 1,): fraction of the true hypervolume known after 0, 1, 2, … evaluations."""


@dataclass(frozen=True, eq=False)
class Yardstick:
    """The true front's hypervolume and what a replay is measured with."""

    truth: Enumeration
    evaluations: int

    @property
    def reference(self) -> dict[str, float]:
        return {"reference_bytes": self.truth.full_bytes, "reference_score": self.truth.chance}

    def true_hypervolume(self) -> float:
        return hypervolume(self.truth.total_bytes, self.truth.accuracy, **self.reference)

    def curve(self, found: list[tuple[float, Assignment]]) -> Curve:
        """From (evaluations spent when it was known, plan)."""
        problem, truth = self.truth.problem, self.true_hypervolume()
        spent = np.array([at for at, _ in found])
        size = np.array([problem.size(plan).total for _, plan in found])
        score = self.truth.accuracy[[self.truth.row(plan) for _, plan in found]]
        out = np.zeros(self.evaluations + 1)
        for k in range(self.evaluations + 1):
            known = spent <= k + 1e-9
            out[k] = hypervolume(size[known], score[known], **self.reference) / truth
        return out


def product(yardstick: Yardstick, method: str, seed: int, workers: int = 1) -> Curve:
    """A method of the product: uniform plans first, racing, sensitivities where it uses them. So
    many workers evaluate as many plans before it knows what any of them scored."""
    truth = yardstick.truth
    paid = BASELINE + (0 if method == "direct" else truth.sensitivities)
    found: list[tuple[float, Assignment]] = []

    def keep(event: Event) -> None:
        if event.candidate is not None and not event.candidate.stopped:
            found.append((paid + event.spent, event.candidate.assignment))

    search(
        truth.problem,
        (),
        lambda plans, piece: [truth.sample(plan, piece) for plan in plans],
        baseline=truth.baseline(),
        method=method,  # type: ignore[arg-type]
        evaluations=yardstick.evaluations - paid,
        seed=seed,
        uniform=truth.uniform(),
        on_event=keep,
        full_bytes=truth.full_bytes,
        chance=truth.chance,
        room=workers,
    )
    return yardstick.curve(found)


SAMPLERS = {
    "tpe": lambda seed: TPESampler(seed=seed),
    "nsga2": lambda seed: NSGAIISampler(seed=seed, population_size=10),
    "random": lambda seed: RandomSampler(seed=seed),
}


def raw(yardstick: Yardstick, sampler: str, seed: int) -> Curve:
    """Optuna as it comes: a categorical a part; accuracy up, log2 of the bytes down."""
    with quiet():
        first = dict.fromkeys(_asked(yardstick, SAMPLERS[sampler](seed)))
    return yardstick.curve([(BASELINE + k + 1.0, plan) for k, plan in enumerate(first)])


def _asked(yardstick: Yardstick, sampler: BaseSampler) -> Iterator[Assignment]:
    """Plans in the order they are asked for, until so many different ones are known."""
    truth, allowed = yardstick.truth, yardstick.evaluations - BASELINE
    accuracy, known = truth.accuracy, set()
    study = create_study(directions=["maximize", "minimize"], sampler=sampler)
    for _ in range(ASKED * allowed):
        trial = study.ask()
        plan = tuple(
            trial.suggest_categorical(d.name, tuple(range(len(d.options))))
            for d in truth.problem.decisions
        )
        known.add(plan)
        yield plan
        study.tell(trial, [accuracy[truth.row(plan)], log2(truth.problem.size(plan).total)])
        if len(known) == allowed:
            return


METHODS = {
    "gains": lambda yardstick, seed: product(yardstick, "gains", seed),
    "gains, 8 workers": lambda yardstick, seed: product(yardstick, "gains", seed, 8),
    "direct": lambda yardstick, seed: product(yardstick, "direct", seed),
    "tpe": lambda yardstick, seed: raw(yardstick, "tpe", seed),
    "nsga2": lambda yardstick, seed: raw(yardstick, "nsga2", seed),
    "random": lambda yardstick, seed: raw(yardstick, "random", seed),
}
"""Name -> (yardstick, seed) -> curve."""


def replay(yardstick: Yardstick, seeds: int) -> Mapping[str, np.ndarray]:
    """Curves (seeds, evaluations + 1) of every method."""
    return {
        name: np.array([run(yardstick, seed) for seed in range(seeds)])
        for name, run in METHODS.items()
    }
