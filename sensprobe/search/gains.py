"""Optuna on a dozen multipliers of the sensitivities; the solver turns each trial into a plan.

Sensitivities are measured one decision at a time, so what they miss is mostly shared by a part (the
state's error feeds back into A's) or by depth. A trial is one log-multiplier a part, a slope over
depth and a bump at both ends, and whether the sensitivities are taken as measured or made monotone
first. Scaled sensitivities decode into plans: the whole hull, and the exact solution of one budget.

Evaluations are what costs, so a `surrogate` guesses the score of every plan the proposals decode to
and of every single-option swap of the front, and the one with the most `promise` is evaluated: for
a whole front the expected growth of its hypervolume. A proposal whose plans promise less is pruned
and costs nothing. The trial is told what the plan really did: the paired extra loss on the chunks
it saw and, where bytes are no constraint, log2 of its bytes.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from math import exp, log2
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.random import Generator
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution
from optuna.samplers import TPESampler
from optuna.study import Study
from optuna.trial import Trial, TrialState, create_trial

from sensprobe.search.arena import Arena, Asked, Spent
from sensprobe.search.frontier import sweep
from sensprobe.search.knapsack import solve
from sensprobe.search.problem import UNUSED, Array, Assignment, Candidate, Problem
from sensprobe.search.promise import Aim, Known, promise
from sensprobe.search.studies import Mirror, open_study, quiet
from sensprobe.search.surrogate import Features, Surrogate

REACH = 2.0  # multipliers run over exp(-REACH)..exp(REACH)
OPENING = 12  # additive plans evaluated first, along log bytes
PROPOSALS = 6  # multiplier vectors asked for each evaluation
SWAPS = 3000  # single-option changes of the front looked at, at most
SINGLES = 64  # one-decision measurements the surrogate also learns from, at most
PATIENCE = 30  # rounds in a row without a new plan before the search ends

Params = Mapping[str, float | str]


def gains(
    arena: Arena,
    aim: Aim,
    measured: Problem,
    *,
    seed: int,
    study_name: str,
    storage: Path | None,
) -> None:
    """Fill the arena until its evaluations are spent. `measured`: sensitivities before any fit."""
    alone = len(aim.budgets) == 1 and aim.budgets[0].max_loss is None
    with quiet():
        study = open_study(alone)
        study.sampler = TPESampler(seed=seed, multivariate=True)
        mirror = Mirror(study_name, storage, alone)
        try:
            _Search(arena, aim, measured, study, mirror, seed).run()
        except Spent:
            return


@dataclass(frozen=True)
class _Proposal:
    trial: Trial
    plans: tuple[Assignment, ...]


class _Wanted(NamedTuple):
    """A plan to evaluate, its kind by name, and the trial that is told of it, if any."""

    kind: str
    plan: Assignment
    trial: Trial | None


class _Search:
    def __init__(
        self, arena: Arena, aim: Aim, measured: Problem, study: Study, mirror: Mirror, seed: int
    ) -> None:
        self.arena, self.aim, self.study, self.mirror, self.seed = arena, aim, study, mirror, seed
        self.problems = {"monotone": arena.problem, "measured": measured}
        self.surrogate = Surrogate(Features(measured))
        self.singles, self.single_scores = _singles(measured, aim.baseline)
        self.space = space(measured)
        self.round = 0

    def run(self) -> None:
        openers, room = self._openers(), self.arena.room
        for first in range(0, len(openers), room):
            wanted = []
            for assignment in openers[first : first + room]:
                self.study.enqueue_trial(still(self.arena.problem))
                wanted.append(_Wanted("additive", assignment, self.study.ask(self.space)))
            self._evaluate(wanted)
        idle = 0
        while idle < PATIENCE and len(self.arena.candidates) < self.arena.problem.count:
            idle = 0 if self._step() else idle + 1

    def _step(self) -> bool:
        """One round: propose, guess, evaluate the most promising plans, as many as there is room
        for. False where nothing was new."""
        proposals: list[_Proposal] = []
        for _ in range(self.arena.room):
            self.round += 1
            proposals += [self._propose() for _ in range(PROPOSALS)]
        new = {plan: proposal for proposal in proposals for plan in proposal.plans}
        pool = sorted({*new, *self._swaps()} - self.arena.candidates.keys())
        best = self._most_promising(pool) if pool else []
        wanted = []
        led = set[int]()  # trials of which a plan is evaluated; each is told of one plan
        for plan in best:
            if plan not in new:
                wanted.append(_Wanted("swap", plan, None))
                continue
            trial = new[plan].trial
            wanted.append(_Wanted("gains", plan, None if trial.number in led else trial))
            led.add(trial.number)
        for proposal in proposals:
            if proposal.trial.number not in led:
                self.study.tell(proposal.trial, state=TrialState.PRUNED)
        self._evaluate(wanted)
        return bool(best)

    def _propose(self) -> _Proposal:
        trial = self.study.ask(self.space)
        return _Proposal(trial, tuple(self._decode(trial.params)))

    def _decode(self, params: Params) -> Iterable[Assignment]:
        problem = self.problems[str(params["sensitivities"])]
        factors = multipliers(problem, params)
        limited = [budget for budget in self.aim.budgets if budget.limits_bytes]
        yield from sweep(problem, gains=factors).assignments()
        if limited:
            yield solve(problem, limited[self.round % len(limited)], gains=factors)

    def _openers(self) -> list[Assignment]:
        """The additive model's own answers: exact for each budget, else along the hull."""
        problem = self.arena.problem
        exact = [solve(problem, budget) for budget in self.aim.budgets if budget.limits_bytes]
        if self.aim.budgets and all(budget.limits_bytes for budget in self.aim.budgets):
            return exact
        hull = sweep(problem)
        place = np.log(np.maximum(hull.total_bytes, 1))
        wanted = np.linspace(place[0], place[-1], OPENING)
        near = sorted({int(np.abs(place - at).argmin()) for at in wanted})
        return exact + [hull.assignment(k) for k in near]

    def _swaps(self) -> list[Assignment]:
        """Plans one option away from the best ones known."""
        front = [candidate.assignment for candidate in self._leaders()]
        options = [len(decision.options) for decision in self.arena.problem.decisions]
        found = [
            (*plan[:d], k, *plan[d + 1 :])
            for plan in front
            for d, count in enumerate(options)
            for k in range(count)
            if k != plan[d]
        ]
        if len(found) <= SWAPS:
            return found
        chosen = self._rng().choice(len(found), SWAPS, replace=False)
        return [found[k] for k in chosen]

    def _leaders(self) -> list[Candidate]:
        """The front, and the best within each budget whatever limits it."""
        done = self.arena.finished()
        best = [
            max((c for c in done if budget.admits(c.size)), key=lambda c: c.score, default=None)
            for budget in self.aim.budgets
        ]
        return self.arena.front() + [candidate for candidate in best if candidate is not None]

    def _most_promising(self, pool: Sequence[Assignment]) -> list[Assignment]:
        """The most promising plans, the best first, as many as there is room for.

        To each but the first, the ones before it count as if they had the score that is guessed of
        them, so that no promise is followed twice (the kriging believer: Ginsbourger et al. 2010).
        """
        seen = list(self.arena.candidates.values())
        scores = np.array([self.aim.baseline - c.drop for c in seen])
        self.surrogate.fit(
            [c.assignment for c in seen] + self.singles,
            np.concatenate([scores, self.single_scores]),
            ends=(self.aim.baseline, self.aim.reference_score),
        )
        known = [Known(c.size, c.score) for c in self.arena.finished()]
        sizes = [self.arena.problem.size(plan) for plan in pool]
        bytes_ = np.array([(size.weight, size.state) for size in sizes], float)
        best: list[int] = []
        while len(best) < min(self.arena.room, len(pool)):
            gain = promise(self.aim, known, self.surrogate, pool, bytes_)
            gain[best] = -np.inf
            best.append(int(np.argmax(gain)))
            known.append(Known(sizes[best[-1]], self.surrogate.believe(pool[best[-1]])))
        return [pool[k] for k in best]

    def _evaluate(self, wanted: Sequence[_Wanted]) -> None:
        """Measure plans, and tell the study of those that have a trial.

        A swap has no multipliers: a single trial without parameters stops TPE's joint sampling.
        """
        known = set(self.arena.candidates)
        asked, number = [], len(known)
        for kind, plan, _ in wanted:
            asked.append(Asked(plan, f"{kind} {number}"))
            number += plan not in known
        for (kind, plan, trial), candidate in zip(wanted, self.arena.measure(asked), strict=True):
            values = [candidate.extra_nats, log2(max(candidate.size.total, 1))]
            values = values[: len(self.study.directions)]
            notes = {"assignment": list(plan), "score": candidate.score, "kind": kind}
            if trial is None:
                told = create_trial(values=values, user_attrs=notes)
            else:
                for name, note in notes.items():
                    trial.set_user_attr(name, note)
                told = self.study.tell(trial, values)
            if plan not in known:
                known.add(plan)
                self.mirror.add(told)

    def _rng(self) -> Generator:
        return np.random.default_rng([self.seed, self.round])


def multipliers(problem: Problem, params: Params) -> list[float]:
    """One factor a decision: its part's, a slope over depth, and a bump at both ends."""
    return [
        exp(
            float(params[f"part {d.part}"])
            + float(params.get("depth slope", 0.0)) * (d.depth - 0.5)
            + float(params.get("depth ends", 0.0)) * (2 * abs(d.depth - 0.5) - 0.5)
        )
        for d in problem.decisions
    ]


def space(problem: Problem) -> dict[str, BaseDistribution]:
    """The names and ranges of a trial's parameters."""
    names = sorted({f"part {decision.part}" for decision in problem.decisions})
    if len({decision.depth for decision in problem.decisions}) > 1:
        names += ["depth slope", "depth ends"]
    ranges: dict[str, BaseDistribution] = {n: FloatDistribution(-REACH, REACH) for n in names}
    return ranges | {"sensitivities": CategoricalDistribution(["monotone", "measured"])}


def still(problem: Problem) -> dict[str, float | str]:
    """The parameters that change nothing: the additive model itself."""
    zero: dict[str, float | str] = {name: 0.0 for name in space(problem)}
    return zero | {"sensitivities": "monotone"}


def _singles(problem: Problem, baseline: float) -> tuple[list[Assignment], Array]:
    """Plans of one decision each, as the profile measured them, where it kept the score."""
    found = [
        (d, k, baseline - option.drop)
        for d, decision in enumerate(problem.decisions)
        for k, option in enumerate(decision.options)
        if np.isfinite(option.drop)
    ]
    count = len(problem.decisions)
    found = found if len(found) <= SINGLES else []
    plans = [tuple(k if d == e else UNUSED for e in range(count)) for d, k, _ in found]
    return plans, np.array([score for _, _, score in found])
