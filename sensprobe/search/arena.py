"""Evaluation of candidates: once each, raced over the pieces, and paid for.

Where there is room for several plans at a time they are evaluated together, on one piece after the
other. What is known when they are asked for decides: they do not race one another.

An evaluation's price is the share of the samples it used, whether or not a cache of the caller's
answered: a search that is resumed ends where it would have ended in one go.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import islice
from typing import NamedTuple

import numpy as np

from sensprobe.scores.pareto import nondominated
from sensprobe.scores.score import either, signed_rank
from sensprobe.search.problem import (
    Assignment,
    Candidate,
    Evaluate,
    Event,
    Problem,
    Sample,
)
from sensprobe.search.race import Standing, beaten_by, mean_and_stderr

ALPHA = 0.05  # chance that the race drops a candidate that is truly no worse

OnEvent = Callable[[Event], None]


class Spent(Exception):  # noqa: N818 - a signal between rooms of the search, not a failure
    """The evaluations allowed are used up."""


class Asked(NamedTuple):
    """A plan to evaluate, and what to call its candidate."""

    assignment: Assignment
    name: str


class Arena:
    """Every candidate so far. `room` is the number of plans that are evaluated at a time.

    Not safe to share between threads; writes nothing to disk.
    """

    def __init__(
        self,
        problem: Problem,
        evaluate: Evaluate,
        baseline: Sequence[Sample],
        *,
        allowed: float,
        on_event: OnEvent,
        alpha: float = ALPHA,
        room: int = 1,
    ) -> None:
        self.problem = problem
        self.baseline = Sample.join(list(baseline))
        self.pieces = [piece.n for piece in baseline]
        self.allowed = allowed
        self.room = max(room, 1)
        self.spent = 0.0
        self.candidates: dict[Assignment, Candidate] = {}
        self._samples: dict[Assignment, Sample] = {}
        self._evaluate, self._on_event, self._alpha = evaluate, on_event, alpha

    def measure(self, asked: Sequence[Asked], *, race: bool = True) -> Iterator[Candidate]:
        """The candidate for each plan asked for, in order; plans are evaluated unless they were.

        They are evaluated together, each racing against the front as it is now. Raises `Spent` in
        place of the first candidate that the evaluations allowed do not reach to.
        """
        new = {one.assignment: one.name for one in asked if one.assignment not in self.candidates}
        within = [
            (plan, name)
            for k, (plan, name) in enumerate(new.items())
            if self.spent + k + 1 <= self.allowed + 1e-9
        ]
        self._evaluate_together(dict(within), self._rivals() if race else [])
        for one in asked:
            if one.assignment not in self.candidates:
                raise Spent
            yield self.candidates[one.assignment]

    def measure_each(self, asked: Iterable[Asked], *, race: bool = True) -> None:
        """Measure plans that do not depend on one another's results, `room` of them at a time."""
        asked = (one for one in asked if one.assignment not in self.candidates)
        while group := list(islice(asked, self.room)):
            for _ in self.measure(group, race=race):
                pass

    def _evaluate_together(
        self, plans: Mapping[Assignment, str], rivals: Sequence[tuple[int, Sample]]
    ) -> None:
        """Evaluate plans piece by piece; one that a rival beats is stopped there."""
        seen: dict[Assignment, Sample] = {}
        racing, last = list(plans), len(self.pieces) - 1
        for k, samples in enumerate(self.pieces):
            if not racing:
                break
            for plan, piece in zip(racing, self._evaluate(racing, k), strict=True):
                seen[plan] = Sample.join([seen[plan], piece]) if plan in seen else piece
                self.spent += samples / self.baseline.n
            if k < last:
                racing = [plan for plan in racing if not self._beaten(plan, seen[plan], rivals)]
        for plan, name in plans.items():
            stopped = plan not in racing
            candidate = self._summary(plan, name, seen[plan], stopped)
            self.candidates[plan] = candidate
            self.tell("stopped" if stopped else "evaluated", name, candidate)

    def _beaten(self, plan: Assignment, seen: Sample, rivals: Sequence[tuple[int, Sample]]) -> bool:
        """True if a rival beats what was seen of a plan by more than chance explains."""
        standing = Standing(self.problem.size(plan).total, seen.score, seen.group)
        met = [Standing(b, one.first(seen.n).score, one.group) for b, one in rivals]
        looks = len(self.pieces) - 1
        return beaten_by(standing, met, alpha=self._alpha, looks=looks) is not None

    def tell(self, kind: str, text: str, candidate: Candidate | None = None) -> None:
        """Report progress."""
        self._on_event(Event(kind, text, self.spent, self.allowed, candidate))

    def complete(self, asked: Sequence[Asked]) -> list[Candidate]:
        """Candidates that are compared with the others, measured in full whether or not they were
        stopped; they take nothing from what may be spent. Returns them in order."""
        pending = {
            one.assignment: one.name
            for one in asked
            if one.assignment not in self.candidates or self.candidates[one.assignment].stopped
        }
        seen = {plan: self._samples[plan] for plan in pending if plan in self._samples}
        for k, samples in enumerate(self.pieces):
            start = sum(self.pieces[:k])
            lacking = [plan for plan in pending if plan not in seen or seen[plan].n <= start]
            for plan, piece in zip(
                lacking, self._evaluate(lacking, k) if lacking else (), strict=True
            ):
                seen[plan] = Sample.join([seen[plan], piece]) if plan in seen else piece
                self.spent += samples / self.baseline.n
                self.allowed += samples / self.baseline.n
        for plan, name in pending.items():
            known = self.candidates.get(plan)
            name = name if known is None else known.name
            self.candidates[plan] = self._summary(plan, name, seen[plan], stopped=False)
            self.tell("evaluated", name, self.candidates[plan])
        return [self.candidates[one.assignment] for one in asked]

    def finished(self) -> list[Candidate]:
        """Candidates that saw every sample, in the order they were evaluated."""
        return [candidate for candidate in self.candidates.values() if not candidate.stopped]

    def front(self) -> list[Candidate]:
        """Finished candidates no other beats on measured score and bytes, in growing bytes."""
        done = self.finished()
        kept = nondominated([c.size.total for c in done], [c.score for c in done])
        return [done[k] for k in kept]

    def _rivals(self) -> list[tuple[int, Sample]]:
        """Bytes and samples of the front."""
        return [(c.size.total, self._samples[c.assignment]) for c in self.front()]

    def _summary(self, assignment: Assignment, name: str, seen: Sample, stopped: bool) -> Candidate:
        self._samples[assignment] = seen
        base, n = self.baseline.first(seen.n), seen.n
        score, stderr = mean_and_stderr(seen.score, seen.group)
        lost = base.score - seen.score
        drop, drop_stderr = mean_and_stderr(lost, seen.group)
        return Candidate(
            name=name,
            assignment=assignment,
            size=self.problem.size(assignment),
            predicted=self.problem.loss(assignment),
            score=score,
            stderr=stderr,
            drop=drop,
            drop_stderr=drop_stderr,
            extra_nats=float(np.mean(seen.loss - base.loss)),
            n=n,
            stopped=stopped,
            drop_p=either(drop, drop_stderr, signed_rank(lost, seen.group)),
        )
