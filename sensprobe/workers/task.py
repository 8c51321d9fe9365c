"""What a worker is asked: one plan on pieces of the data, named by the keys of its evaluations.

A worker has a session of its own, opened as the one that asks was. Before each task it is set to
measure as that one does now; if it then gives other keys, its model, data or code are not the same,
and it evaluates nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from sensprobe.errors import WorkerError
from sensprobe.numerics.calibrate import Wanted
from sensprobe.plans.crossbar import Crossbar
from sensprobe.runs import EvaluationKey
from sensprobe.session.executor import Arrays, Labelled, Piece
from sensprobe.session.open import open_session
from sensprobe.session.session import Opening, Session


class Settings(NamedTuple):
    """How a session measures at the moment."""

    ordered: frozenset[str]  # the splits that are used in the seeded order
    divergence: bool
    predictions: bool
    crossbar: Crossbar | None
    expected: Wanted  # what the first calibration shall serve


class Task(NamedTuple):
    """A plan to evaluate on pieces; `keys` are the evaluations', one a piece."""

    plan: Labelled
    pieces: tuple[Piece, ...]
    keys: tuple[EvaluationKey, ...]
    settings: Settings


def settings_of(session: Session) -> Settings:
    """How a session measures now."""
    return Settings(
        session.samples.ordered,
        session.divergence,
        session.predictions,
        session.applier.crossbar,
        session.calibration.expected,
    )


def keys_of(session: Session, plan: Labelled, pieces: Sequence[Piece]) -> tuple[EvaluationKey, ...]:
    """The keys of a plan's evaluations, one a piece."""
    return tuple(session.key(plan.plan, piece, plan.draw) for piece in pieces)


def reopened(opening: Opening) -> Session:
    """The session that another process opened, opened here."""
    return open_session(
        opening.model,
        opening.data,
        opening.run,
        norm=opening.norm,
        metric=opening.metric,
        data_seed=opening.data_seed,
        reuse=opening.reuse,
    )


def perform(session: Session, task: Task) -> list[Arrays]:
    """The per-sample arrays of a task's plan on each of its pieces. They are kept in the session's
    run, where it has one.

    Raises WorkerError where the session is of another model, other data or other code.
    """
    _measure_as(session, task.settings)
    if keys_of(session, task.plan, task.pieces) != task.keys:
        raise WorkerError(
            "a worker found another model, other data or other code than the command that asks: "
            "the files changed while it ran. What was finished is kept; run the command again."
        )
    return session.local.submit([task.plan], task.pieces)[0]


def _measure_as(session: Session, settings: Settings) -> None:
    """Set a session to measure as another one does."""
    for split in session.dataset.splits:
        session.samples.take(split, split in settings.ordered)
    session.divergence, session.predictions = settings.divergence, settings.predictions
    session.calibration.expected = settings.expected
    if session.applier.crossbar != settings.crossbar:
        session.applier.lay_on(settings.crossbar)
