"""Executors run evaluations: a job asks one, and does not know what works for it.

An evaluation is named by fingerprints: of the model, the data, the plan and a piece of the data
(`Session.key`). A job submits plans and pieces and gets the per-sample arrays; where they were
computed, by how many workers, or whether the ledger had them, it cannot tell.
`sensprobe.testing.executor` has the suite that every executor passes.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, NamedTuple, Protocol, TypeAlias

import numpy as np

from sensprobe.evaluate import Evaluator, TextEvaluator
from sensprobe.plans.noise import Draw
from sensprobe.plans.plan import Resolved
from sensprobe.plans.scheme import Rounding, Scheme
from sensprobe.runs import Evaluation, EvaluationKey, Run
from sensprobe.scores.classes import POOLED

if TYPE_CHECKING:
    from sensprobe.session.session import Session

Arrays: TypeAlias = Mapping[str, np.ndarray]
"""Array name -> one value a sample (n,)."""


class Piece(NamedTuple):
    """Samples [start, stop) of a split, in the order in which the session uses it."""

    split: str
    start: int
    stop: int


class Labelled(NamedTuple):
    """A resolved plan, what the ledger shall call its evaluation, and the noise it is run under."""

    plan: Resolved
    label: str = ""
    draw: Draw | None = None


class Executor(Protocol):
    """Evaluates plans on pieces of the data of one session.

    Calls come from one thread at a time. A KeyboardInterrupt or an error of an evaluation is raised
    from `submit`; what was finished before is kept in the run of the session, where it has one.
    """

    @property
    def room(self) -> int:
        """The number of plans it works on at a time, at least 1: a job that can submit that many at
        once keeps it busy. It takes more as well, and works on them in turn."""

    def submit(self, plans: Sequence[Labelled], pieces: Sequence[Piece]) -> list[list[Arrays]]:
        """Evaluate every plan on every piece and wait for all; [i][k] is of plan i on piece k.

        With a room of 1 plans are evaluated in the order given, each on its pieces in their order.
        Results do not depend on the room, nor on what else is submitted.
        """


@dataclass(slots=True)
class LocalExecutor:
    """Evaluates in this process, one plan after the other.

    An evaluation that the session's run has is read from there; one that is made is kept there.
    Where several processes ask for the same plan at once, one measures it and the others wait.
    """

    session: Session
    room: int = 1
    _evaluators: dict[str, Evaluator | TextEvaluator] = field(default_factory=dict)
    _waited: bool = False

    def submit(self, plans: Sequence[Labelled], pieces: Sequence[Piece]) -> list[list[Arrays]]:
        """See `Executor.submit`."""
        return [[self._evaluate(one, piece) for piece in pieces] for one in plans]

    def evaluator(self, split: str) -> Evaluator | TextEvaluator:
        """The evaluator of a split, in the order in which the session uses the split now."""
        session, samples = self.session, self.session.samples.split(split)
        known = self._evaluators.get(split)
        if known is None or known.split is not samples:
            known = self._evaluators[split] = session.new_evaluator(samples)
        known.divergence, known.more = session.divergence, session.more_arrays
        return known

    def _evaluate(self, one: Labelled, piece: Piece) -> Arrays:
        run, key = self.session.run, self.session.key(one.plan, piece, one.draw)
        if run is None:
            return self._measured(one, piece)
        known = self._known(run, key, one) if run.holds(key) else None
        if known is None:
            with run.leased(key, self._waiting):
                known = self._known(run, key, one)
                if known is None:
                    found = self.evaluation(one, piece)
                    run.append(found)
                    return found.arrays
        self.session.progress.advance(piece.stop - piece.start)
        return known.arrays

    def evaluation(self, one: Labelled, piece: Piece) -> Evaluation:
        """A plan evaluated on a piece now, whatever a run has; it is kept in none."""
        began = time.perf_counter()
        arrays = self._measured(one, piece)
        meta = {
            "label": one.label,
            "plan": [[name, str(scheme)] for name, scheme in one.plan.items()],
            "seconds": time.perf_counter() - began,
            "radius": self.session.applier.spectral_radius(one.plan),
        }
        return Evaluation(self.session.key(one.plan, piece, one.draw), arrays, meta)

    def _measured(self, one: Labelled, piece: Piece) -> Arrays:
        self.session.calibration.ready(one.plan, one.draw)
        evaluator = self.evaluator(piece.split)
        return evaluator.evaluate(one.plan, piece.start, piece.stop, one.draw)

    def _known(self, run: Run, key: EvaluationKey, one: Labelled) -> Evaluation | None:
        """The evaluation in the ledger, if it has the arrays that are scored."""
        known = run.gather(key) or self._from_whole(run, key, one)
        primary = self.session.headline.primary
        if known is None or not (primary in POOLED or primary in known.arrays):
            return None
        return known

    def _from_whole(self, run: Run, key: EvaluationKey, one: Labelled) -> Evaluation | None:
        """An evaluation in the seeded order out of one of the whole split as it lies, kept under
        its own key. None where there is none, or where numbers are drawn by a sample's position."""
        samples = self.session.samples
        order = samples.order(key.split)
        if order is None or one.draw is not None or any(map(_draws, one.plan.values())):
            return None
        data = samples.dataset.splits.fingerprint(key.split)
        known = run.gather(replace(key.over(0, len(order)), data=data))
        if known is None:
            return None
        here = order[key.start : key.stop]
        arrays = {name: np.asarray(values)[here] for name, values in known.arrays.items()}
        found = Evaluation(key, arrays, {**known.meta, "label": one.label})
        run.append(found)
        return found

    def _waiting(self) -> None:
        """Tell the user, once, that another process measures what is asked for here."""
        if not self._waited:
            self.session.progress.note(
                "another process measures a plan of this run that is asked for here: waiting for "
                "it, so that nothing is measured twice"
            )
        self._waited = True


def _draws(scheme: Scheme) -> bool:
    return scheme.rounding is Rounding.STOCHASTIC
