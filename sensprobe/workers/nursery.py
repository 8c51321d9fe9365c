"""The process that workers are forked from: it opens the session once, and they share its memory.

`main` is given the descriptor of its end of a pair of sockets. On it come an `Opening`, answered by
None or by the exception that opening raised; then orders: `Fork`, with the descriptor of a worker's
socket, answered by the worker's process id, and `Wait` for a worker that ended, answered by its
status. Everything ends where the other side closes its ends: a worker after the task that it is at.

What is computed here is computed on one thread, so that a fork loses none. Both sides are processes
of one user that no file or network reaches, so messages are pickled.
"""

from __future__ import annotations

import os
import signal
import sys
import traceback
from collections.abc import Callable
from contextlib import nullcontext
from functools import partial
from multiprocessing.connection import Connection
from multiprocessing.reduction import recv_handle
from types import FrameType
from typing import Any, NamedTuple

from sensprobe.runs import WORKER
from sensprobe.session.open import open_session
from sensprobe.session.session import Opening, Session
from sensprobe.workers.task import answer, sendable, told_to


class Fork(NamedTuple):
    """Make a worker of so many threads."""

    threads: int


class Wait(NamedTuple):
    """Say how a worker that ended did so."""

    pid: int


def main(descriptor: int) -> None:
    """Open the session that is asked for, and fork workers of it until the other side closes."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the asking process, which decides
    control = Connection(descriptor)
    try:
        session = _reopened(control.recv())
        _warm(session)
    except Exception as error:
        control.send(sendable(error))
        return
    control.send(None)
    while order := _received(control):
        if isinstance(order, Wait):
            control.send(os.waitpid(order.pid, 0)[1])
            continue
        socket = recv_handle(control)
        pid = os.fork()
        if pid == 0:
            control.close()
            _live(partial(work, Connection(socket), session, order))
        os.close(socket)
        control.send(pid)


def work(connection: Connection, session: Session, order: Fork) -> None:
    """Answer tasks until the other side closes or this process is told to end (SIGTERM)."""
    import torch

    torch.set_num_threads(order.threads)
    notes, run = told_to(session), session.run
    with run.working(WORKER) if run is not None else nullcontext():
        while task := _received(connection):
            found = answer(session, task, notes)
            try:
                connection.send(found)
            except BrokenPipeError:  # the other side was killed; what is finished is kept
                return


def _reopened(opening: Opening) -> Session:
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


def _warm(session: Session) -> None:
    """Load what a first evaluation needs, so that no worker has to. On one thread none is made."""
    split = next(iter(session.dataset.splits))
    session.local.evaluator(split).outputs({}, 0, 1)


def _received(connection: Connection) -> Any:
    """The next message, None where the other side closed."""
    try:
        return connection.recv()
    except (EOFError, ConnectionResetError):
        return None


def _live(life: Callable[[], None]) -> None:
    """The whole life of a forked process: it ends without what its parent would do at its end."""
    status = 1
    try:
        signal.signal(signal.SIGTERM, _leave)
        life()
        status = 0
    except SystemExit:
        status = 0
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)


def _leave(number: int, frame: FrameType | None) -> None:
    raise SystemExit
