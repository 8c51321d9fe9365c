"""An executor that hands tasks to workers of any kind, and the protocol of such a kind.

Every plan is evaluated once, however often it is asked for. A worker that ends without an answer is
replaced, and its plan tried once more when no other is evaluated, since it is most often memory
that lacked.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol

from sensprobe.errors import WorkerError
from sensprobe.session.executor import Arrays, Labelled, Piece
from sensprobe.session.session import Session
from sensprobe.workers.task import Answer, Task, keys_of, settings_of


class Loss(NamedTuple):
    """A worker ended without an answer; `how` completes "a worker was ended, …"."""

    how: str


class Pool(Protocol):
    """Workers of one kind. A worker is any object that it knows again, and has one task at most."""

    room: int
    """The most workers at a time."""
    keeps: bool
    """Whether workers keep their evaluations in the run themselves."""

    def start(self) -> object:
        """A new worker. Raises WorkerError where there can be none."""

    def give(self, worker: Any, task: Task) -> None:
        """Have a worker that does nothing work on a task."""

    def finished(self, busy: Sequence[Any]) -> Iterable[tuple[Any, Answer | Loss]]:
        """Wait until a worker of these is done or ended; all that are."""

    def end(self, idle: Sequence[Any], busy: Sequence[Any]) -> None:
        """End all workers, those that work at once: what these evaluate now may be lost."""


@dataclass(slots=True, eq=False)
class _Job:
    """A task, where its arrays go (rows and columns of the answer), and how often it was lost."""

    task: Task
    places: list[tuple[int, list[int]]] = field(default_factory=list)
    losses: int = 0


class Workers:
    """An `Executor` whose workers are those of a pool. `close` ends them.

    They start with the first plan that is not in the run already. WorkerError where one ends twice
    at the same plan, or where they cannot be started.
    """

    def __init__(self, session: Session, pool: Pool) -> None:
        self.room = pool.room
        self._session, self._pool = session, pool
        self._idle: list[Any] = []
        self._busy: dict[int, tuple[Any, _Job]] = {}
        self._told: set[str] = set()

    def submit(self, plans: Sequence[Labelled], pieces: Sequence[Piece]) -> list[list[Arrays]]:
        """See `Executor.submit`."""
        found: list[list[Any]] = [[None] * len(pieces) for _ in plans]
        waiting = deque(self._jobs(plans, pieces, found))
        lost: list[_Job] = []
        try:
            self._work(waiting, found, lost)
            for job in lost:  # each by itself: all memory is its own
                self._work(deque([job]), found, lost)
        except BaseException:
            self.close()
            raise
        if self._session.run is not None:
            self._session.run.refresh()
        return found

    def close(self) -> None:
        """End all workers. What was finished is kept; a later `submit` starts others."""
        busy = [worker for worker, _ in self._busy.values()]
        idle, self._idle, self._busy = self._idle, [], {}
        self._pool.end(idle, busy)

    def _jobs(
        self, plans: Sequence[Labelled], pieces: Sequence[Piece], found: list[list[Any]]
    ) -> Iterable[_Job]:
        """What is to be evaluated, each plan once. What the run has is filled in."""
        session, settings = self._session, settings_of(self._session)
        jobs: dict[tuple[object, ...], _Job] = {}
        for i, one in enumerate(plans):
            keys, columns = keys_of(session, one, pieces), list[int]()
            for k, (key, piece) in enumerate(zip(keys, pieces, strict=True)):
                if session.run is not None and session.run.holds(key):
                    found[i][k] = session.local.submit([one], [piece])[0][0]
                else:
                    columns.append(k)
            if not columns:
                continue
            wanted = tuple(keys[k] for k in columns)
            if wanted not in jobs:
                plan = one._replace(plan=dict(one.plan))
                jobs[wanted] = _Job(Task(plan, tuple(pieces[k] for k in columns), wanted, settings))
            jobs[wanted].places.append((i, columns))
        return jobs.values()

    def _work(self, waiting: deque[_Job], found: list[list[Any]], lost: list[_Job]) -> None:
        """Have every job done that waits, but for those whose worker ended: they go to `lost`.

        After an error no further job begins, and those that were begun are waited for.
        """
        error: Exception | None = None
        while (waiting and error is None) or self._busy:
            while waiting and error is None and (self._idle or len(self._busy) < self.room):
                worker = self._idle.pop() if self._idle else self._pool.start()
                job = waiting.popleft()
                self._busy[id(worker)] = worker, job
                self._pool.give(worker, job.task)
            for worker, answer in self._pool.finished([one for one, _ in self._busy.values()]):
                job = self._busy.pop(id(worker))[1]
                if isinstance(answer, Loss):
                    self._lose(job, answer, lost)
                    continue
                self._idle.append(worker)
                error = error or answer.error
                self._take(job, answer, found)
        if error is not None:
            raise error

    def _take(self, job: _Job, answer: Answer, found: list[list[Any]]) -> None:
        """Put what a worker found where it was asked for, and tell the progress."""
        session = self._session
        for note in answer.notes:
            self._note(note)
        if answer.error is not None:
            return
        if session.run is not None and not self._pool.keeps:
            for one in answer.found:
                with session.run.leased(one.key, lambda: None):
                    if not session.run.holds(one.key):  # another command may have been faster
                        session.run.append(one)
        for i, columns in job.places:
            for k, one in zip(columns, answer.found, strict=True):
                found[i][k] = one.arrays
            session.progress.advance(sum(piece.stop - piece.start for piece in job.task.pieces))

    def _lose(self, job: _Job, loss: Loss, lost: list[_Job]) -> None:
        """A worker ended at a job, which is tried once more."""
        label, split = job.task.plan.label or "a plan", job.task.keys[0].split
        job.losses += 1
        if job.losses > 1:
            raise WorkerError(
                f"the worker that evaluated {label} on the {split} split was ended twice, "
                f"{loss.how}. What was finished is kept. Give fewer --workers, or a smaller "
                "--limit."
            )
        self._note(f"a worker was ended at {label}, {loss.how}: its plan is tried once more alone")
        lost.append(job)

    def _note(self, text: str) -> None:
        if text not in self._told:
            self._told.add(text)
            self._session.progress.note(text)
