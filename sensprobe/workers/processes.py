"""Workers that are processes of this machine, forked from one that has the session open.

Model and data are read once and shared by all of them. Each keeps its evaluations in the run
itself, so what is finished outlives this process. A worker that dies is replaced, and its plan
tried once more when no other is evaluated, since it is most often memory that lacked.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from multiprocessing.reduction import send_handle
from typing import Any

from sensprobe.errors import WorkerError
from sensprobe.session.executor import Arrays, Labelled, Piece
from sensprobe.session.session import Opening, Session
from sensprobe.workers.nursery import Answer, Fork, Wait
from sensprobe.workers.task import Task, keys_of, settings_of

MAIN = "import sys; from sensprobe.workers.nursery import main; main(int(sys.argv[1]))"
ONE_THREAD = dict.fromkeys(
    ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS"), "1"
)
"""A process that is forked must have no threads; a worker sets the number of its own."""
LEAVING_SECONDS = 5.0


@dataclass(slots=True, eq=False)
class _Worker:
    """A process, and what it evaluates now."""

    connection: Connection
    pid: int
    job: _Job | None = None


@dataclass(slots=True, eq=False)
class _Job:
    """A task, where its arrays go (rows and columns of the answer), and how often it was lost."""

    task: Task
    places: list[tuple[int, list[int]]]
    losses: int = 0


class Processes:
    """An `Executor` of so many worker processes, of so many threads each. `close` ends them.

    They start with the first plan that is not in the run already. WorkerError where one ends twice
    at the same plan, or where they cannot be started.
    """

    def __init__(self, session: Session, workers: int, threads: int = 1) -> None:
        if session.opening is None:
            raise WorkerError("a session that cannot be opened again has no other processes.")
        self.room = workers
        self._session, self._opening, self._threads = session, session.opening, threads
        self._nursery: _Nursery | None = None
        self._workers: list[_Worker] = []
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
            self._stop()
            raise
        if self._session.run is not None:
            self._session.run.refresh()
        return found

    def close(self) -> None:
        """End all workers after what they are at."""
        for worker in self._workers:
            worker.connection.close()
        if self._nursery is not None:
            for worker in self._workers:
                self._nursery.status_of(worker.pid)
            self._nursery.close()
        self._workers, self._nursery = [], None

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
                parts = tuple(pieces[k] for k in columns)
                jobs[wanted] = _Job(Task(plan, parts, wanted, settings), [])
            jobs[wanted].places.append((i, columns))
        return jobs.values()

    def _work(self, waiting: deque[_Job], found: list[list[Any]], lost: list[_Job]) -> None:
        """Have every job done that waits, but for those whose worker ended: they go to `lost`."""
        error: Exception | None = None
        while True:
            while waiting and error is None and (worker := self._idle(len(waiting))) is not None:
                worker.job = waiting.popleft()
                with contextlib.suppress(OSError):  # it ended: its connection says so below
                    worker.connection.send(worker.job.task)
            busy = {worker.connection: worker for worker in self._workers if worker.job}
            if not busy:
                break
            for connection in wait(list(busy)):
                worker = busy[connection]  # type: ignore[index]
                job, worker.job = worker.job, None
                assert job is not None
                try:
                    answer: Answer = worker.connection.recv()
                except (EOFError, OSError):
                    self._lose(worker, job, lost)
                    continue
                error = answer.error or error
                self._take(job, answer, found)
        if error is not None:
            raise error

    def _take(self, job: _Job, answer: Answer, found: list[list[Any]]) -> None:
        progress = self._session.progress
        for note in answer.notes:
            if note not in self._told:
                self._told.add(note)
                progress.note(note)
        for i, columns in job.places if answer.error is None else ():
            for k, arrays in zip(columns, answer.arrays, strict=True):
                found[i][k] = arrays
            progress.advance(sum(piece.stop - piece.start for piece in job.task.pieces))

    def _idle(self, wanted: int) -> _Worker | None:
        """A worker that has nothing to do, made where there is room for one more."""
        for worker in self._workers:
            if worker.job is None:
                return worker
        if len(self._workers) >= self.room:
            return None
        if self._nursery is None:
            self._nursery = _Nursery(self._opening)
        self._workers.append(self._nursery.worker(self._threads))
        return self._workers[-1]

    def _lose(self, worker: _Worker, job: _Job, lost: list[_Job]) -> None:
        """A worker ended at a job, which is tried once more."""
        worker.connection.close()
        self._workers.remove(worker)
        assert self._nursery is not None
        ending = _told(self._nursery.status_of(worker.pid))
        first, label = job.task.keys[0], job.task.plan.label or "a plan"
        job.losses += 1
        if job.losses > 1:
            raise WorkerError(
                f"the worker that evaluated {label} on the {first.split} split was ended twice, "
                f"{ending}. What was finished is kept. Give fewer --workers, or a smaller --limit."
            )
        self._session.progress.note(
            f"a worker was ended at {label}, {ending}: its plan is tried once more by itself"
        )
        lost.append(job)

    def _stop(self) -> None:
        """End all workers at once: what they evaluate now is lost, nothing else."""
        busy = [worker for worker in self._workers if worker.job is not None]
        for worker in busy:
            _send_signal(worker.pid, signal.SIGTERM)
        until = time.monotonic() + LEAVING_SECONDS
        for worker in busy:
            if not _ended(worker.connection, until):  # in compiled code that loses the signal
                _send_signal(worker.pid, signal.SIGKILL)
        self.close()


class _Nursery:
    """The process from which workers are forked."""

    def __init__(self, opening: Opening) -> None:
        mine, theirs = socket.socketpair()
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-c", MAIN, str(theirs.fileno())],
                pass_fds=[theirs.fileno()],
                env={**os.environ, **ONE_THREAD},
                stdin=subprocess.DEVNULL,
            )
        self._control = Connection(mine.detach())
        try:
            self._asked(opening)
        except BaseException:
            self.close()
            raise

    def worker(self, threads: int) -> _Worker:
        """A new worker."""
        mine, theirs = socket.socketpair()
        with theirs:
            self._control.send(Fork(threads))
            send_handle(self._control, theirs.fileno(), self._process.pid)
            pid = self._answer()
        return _Worker(Connection(mine.detach()), pid)

    def status_of(self, pid: int) -> int:
        """The exit code of a worker that ended, of a signal below zero."""
        return os.waitstatus_to_exitcode(self._asked(Wait(pid)))

    def close(self) -> None:
        """End the process."""
        self._control.close()
        self._process.wait()

    def _asked(self, message: object) -> Any:
        self._control.send(message)
        return self._answer()

    def _answer(self) -> Any:
        try:
            answer = self._control.recv()
        except (EOFError, OSError) as error:
            raise WorkerError(
                "the process that starts workers ended, "
                f"{_told(self._process.wait())}. What was finished is kept; run the command "
                "again, with fewer --workers or none."
            ) from error
        if isinstance(answer, Exception):
            raise answer
        return answer


def _told(code: int) -> str:
    """How a process ended, in words, from its exit code."""
    if code >= 0:
        return f"with the exit code {code}"
    name = signal.Signals(-code).name
    return f"by {name}" + (" (often the system, for want of memory)" if code == -9 else "")


def _send_signal(pid: int, number: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, number)


def _ended(connection: Connection, until: float) -> bool:
    """Whether the other side closes before a time; what it still sends is dropped."""
    try:
        while connection.poll(max(0.0, until - time.monotonic())):
            connection.recv()
    except (EOFError, OSError):
        return True
    return False
