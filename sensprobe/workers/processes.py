"""Workers that are processes of this machine, forked from one that has the session open.

Model and data are read once and shared by all of them. Each keeps its evaluations in the run
itself, so what is finished outlives this process.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from multiprocessing.reduction import send_handle
from typing import Any

from sensprobe.errors import WorkerError
from sensprobe.session.session import Opening, Session
from sensprobe.workers.dispatch import Loss
from sensprobe.workers.nursery import Fork, Wait
from sensprobe.workers.task import Answer, Task

MAIN = "import sys; from sensprobe.workers.nursery import main; main(int(sys.argv[1]))"
ONE_THREAD = dict.fromkeys(
    ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS"), "1"
)
"""A process that is forked must have no threads; a worker sets the number of its own."""
LEAVING_SECONDS = 5.0


@dataclass(slots=True, eq=False)
class Worker:
    """A process and this side's end of its socket."""

    connection: Connection
    pid: int


class Processes:
    """A `Pool` of so many processes, of so many threads each. They keep evaluations in the run of
    the session, which must be one that can be opened again."""

    keeps = True

    def __init__(self, session: Session, workers: int, threads: int = 1) -> None:
        if session.opening is None:
            raise WorkerError("a session that cannot be opened again has no other processes.")
        self.room = workers
        self._opening, self._threads = session.opening, threads
        self._nursery: _Nursery | None = None

    def start(self) -> Worker:
        """See `Pool.start`."""
        if self._nursery is None:
            self._nursery = _Nursery(self._opening)
        return self._nursery.worker(self._threads)

    def give(self, worker: Worker, task: Task) -> None:
        """See `Pool.give`."""
        with contextlib.suppress(OSError):  # it ended: `finished` finds that out
            worker.connection.send(task)

    def finished(self, busy: Sequence[Worker]) -> Iterable[tuple[Worker, Answer | Loss]]:
        """See `Pool.finished`."""
        by_connection = {worker.connection: worker for worker in busy}
        for connection in wait(list(by_connection)):
            worker = by_connection[connection]  # type: ignore[index]
            try:
                yield worker, worker.connection.recv()
            except (EOFError, OSError):
                worker.connection.close()
                assert self._nursery is not None
                yield worker, Loss(_told(self._nursery.status_of(worker.pid)))

    def end(self, idle: Sequence[Worker], busy: Sequence[Worker]) -> None:
        """See `Pool.end`."""
        for worker in busy:
            _send_signal(worker.pid, signal.SIGTERM)
        until = time.monotonic() + LEAVING_SECONDS
        for worker in busy:
            if not _ended(worker.connection, until):  # in compiled code that loses the signal
                _send_signal(worker.pid, signal.SIGKILL)
        for worker in (*idle, *busy):
            worker.connection.close()
        nursery, self._nursery = self._nursery, None
        if nursery is not None:
            with contextlib.suppress(WorkerError):  # it was ended itself
                for worker in (*idle, *busy):
                    nursery.status_of(worker.pid)
            nursery.close()


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

    def worker(self, threads: int) -> Worker:
        """A new worker."""
        mine, theirs = socket.socketpair()
        with theirs, mine:
            pid = self._asked(Fork(threads), theirs.fileno())
            return Worker(Connection(mine.detach()), pid)

    def status_of(self, pid: int) -> int:
        """The exit code of a worker that ended, of a signal below zero."""
        return os.waitstatus_to_exitcode(self._asked(Wait(pid)))

    def close(self) -> None:
        """End the process."""
        self._control.close()
        self._process.wait()

    def _asked(self, message: object, descriptor: int | None = None) -> Any:
        """What it answers to a message, and a descriptor that goes with it."""
        try:
            self._control.send(message)
            if descriptor is not None:
                send_handle(self._control, descriptor, self._process.pid)
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
