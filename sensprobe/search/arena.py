"""Where candidates are really evaluated: once each, raced over the pieces, and paid for.

An evaluation's price is the share of the samples it used, whether or not a cache of the caller's
answered: a search that is resumed ends where it would have ended in one go.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

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


class Arena:
    """Every candidate so far. Not safe to share between threads; writes nothing to disk."""

    def __init__(
        self,
        problem: Problem,
        evaluate: Evaluate,
        baseline: Sequence[Sample],
        *,
        allowed: float,
        on_event: OnEvent,
        alpha: float = ALPHA,
    ) -> None:
        self.problem = problem
        self.baseline = Sample.join(list(baseline))
        self.pieces = [piece.n for piece in baseline]
        self.allowed = allowed
        self.spent = 0.0
        self.candidates: dict[Assignment, Candidate] = {}
        self._samples: dict[Assignment, Sample] = {}
        self._evaluate, self._on_event, self._alpha = evaluate, on_event, alpha

    def measure(self, assignment: Assignment, name: str, *, race: bool = True) -> Candidate:
        """The candidate for an assignment, evaluated unless it was; raises `Spent`."""
        known = self.candidates.get(assignment)
        if known is not None:
            return known
        if self.spent + 1 > self.allowed + 1e-9:
            raise Spent
        size = self.problem.size(assignment)
        rivals = self._rivals() if race else []
        pieces: list[Sample] = []
        stopped = False
        for k, samples in enumerate(self.pieces):
            pieces.append(self._evaluate(assignment, k))
            self.spent += samples / self.baseline.n
            if k + 1 < len(self.pieces):
                seen = Sample.join(pieces)
                standing = Standing(size.total, seen.score, seen.group)
                met = [Standing(b, one.first(seen.n).score, one.group) for b, one in rivals]
                looks = len(self.pieces) - 1
                stopped = beaten_by(standing, met, alpha=self._alpha, looks=looks) is not None
                if stopped:
                    break
        candidate = self._summary(assignment, name, Sample.join(pieces), stopped)
        self.candidates[assignment] = candidate
        self.tell("stopped" if stopped else "evaluated", name, candidate)
        return candidate

    def tell(self, kind: str, text: str, candidate: Candidate | None = None) -> None:
        """Report progress."""
        self._on_event(Event(kind, text, self.spent, self.allowed, candidate))

    def measure_baseline(self, assignment: Assignment, name: str) -> Candidate:
        """The same, in full, of a plan to compare with: it takes nothing from what may be spent."""
        known = self.candidates.get(assignment)
        if known is not None and not known.stopped:
            return known
        seen = 0 if known is None else known.n
        pieces = [] if known is None else [self._samples[assignment]]
        for k, samples in enumerate(self.pieces):
            if sum(self.pieces[:k]) >= seen:
                pieces.append(self._evaluate(assignment, k))
                self.spent += samples / self.baseline.n
                self.allowed += samples / self.baseline.n
        name = name if known is None else known.name
        whole = self._summary(assignment, name, Sample.join(pieces), stopped=False)
        self.candidates[assignment] = whole
        self.tell("evaluated", name, whole)
        return whole

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
