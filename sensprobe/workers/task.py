"""What a worker is asked: one plan on pieces of the data, named by the keys of its evaluations.

A worker has a session of its own, of the same model and data as the one that asks. Before each task
it is set to measure as that one does now; if it then gives other keys, its model, data or code are
not the same, and it evaluates nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pickle import PicklingError, dumps, loads
from typing import NamedTuple

from sensprobe.errors import WorkerError
from sensprobe.numerics.calibrate import Wanted
from sensprobe.plans.crossbar import Crossbar
from sensprobe.runs import Evaluation, EvaluationKey
from sensprobe.session.executor import Labelled, Piece
from sensprobe.session.session import Session


class Settings(NamedTuple):
    """Of which model a session is, and how it measures at the moment."""

    model: str  # its fingerprint
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


class Answer(NamedTuple):
    """What a worker sends back: an evaluation a piece, or what was raised in their place."""

    found: list[Evaluation]
    notes: list[str]
    error: Exception | None = None


class Notes:
    """Progress of a worker: what the user should know goes with the next answer."""

    def __init__(self) -> None:
        self.texts: list[str] = []

    def begin(self, title: str, total: float, seconds: float | None = None) -> None: ...

    def advance(self, units: float = 1) -> None: ...

    def end(self) -> None: ...

    def note(self, text: str) -> None:
        self.texts.append(text)


def settings_of(session: Session) -> Settings:
    """How a session measures now."""
    return Settings(
        session.source.fingerprint,
        session.samples.ordered,
        session.divergence,
        session.predictions,
        session.applier.crossbar,
        session.calibration.expected,
    )


def keys_of(session: Session, plan: Labelled, pieces: Sequence[Piece]) -> tuple[EvaluationKey, ...]:
    """The keys of a plan's evaluations, one a piece."""
    return tuple(session.key(plan.plan, piece, plan.draw) for piece in pieces)


def told_to(session: Session) -> Notes:
    """The notes of a session from now on."""
    notes = Notes()
    session.progress = session.samples.progress = session.calibration.progress = notes
    return notes


def answer(session: Session, task: Task, notes: Notes) -> Answer:
    """What a task's evaluations give, or the error that one of them raised."""
    try:
        found, error = perform(session, task), None
    except Exception as raised:
        found, error = [], sendable(raised)
    texts = notes.texts[:]
    notes.texts.clear()
    return Answer(found, texts, error)


def perform(session: Session, task: Task) -> list[Evaluation]:
    """The evaluations of a task's plan, one a piece. They are kept in the session's run, where it
    has one.

    Raises WorkerError where the session is of another model, other data or other code.
    """
    _measure_as(session, task.settings)
    if not _is_of(session, task):
        raise WorkerError(
            "a worker found another model, other data or other code than the command that asks: "
            "the files changed while it ran. What was finished is kept; run the command again."
        )
    local = session.local
    if session.run is not None:
        rows = local.submit([task.plan], task.pieces)[0]
        return [Evaluation(key, row, {}) for key, row in zip(task.keys, rows, strict=True)]
    found = [local.evaluation(task.plan, piece) for piece in task.pieces]
    return [replace(one, key=key) for one, key in zip(found, task.keys, strict=True)]


def sendable(error: Exception) -> Exception:
    """The exception, or one of the same words where it cannot be sent."""
    try:
        loads(dumps(error))
    except (PicklingError, TypeError, AttributeError, ValueError):
        return WorkerError(f"{type(error).__name__}: {error}")
    return error


def _is_of(session: Session, task: Task) -> bool:
    """Whether a session is of the model, data and code of a task. A run may know its model by an
    earlier name, which keys then have."""
    here = keys_of(session, task.plan, task.pieces)
    named = [replace(key, model=asked.model) for key, asked in zip(here, task.keys, strict=True)]
    return session.source.fingerprint == task.settings.model and tuple(named) == task.keys


def _measure_as(session: Session, settings: Settings) -> None:
    """Set a session to measure as another one does."""
    for split in session.dataset.splits:
        session.samples.take(split, split in settings.ordered)
    session.divergence, session.predictions = settings.divergence, settings.predictions
    session.calibration.expected = settings.expected
    if session.applier.crossbar != settings.crossbar:
        session.applier.lay_on(settings.crossbar)
