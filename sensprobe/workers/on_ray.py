"""Workers that are actors of Ray, on this machine or on a cluster.

The model and the data go into Ray's object store once and from there to every worker, so workers
need no shared folder; only sensprobe, of this version. They know no run: this process keeps what
they find. Ray's own documents are at https://docs.ray.io.
"""

from __future__ import annotations

import logging
import os
import socket
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

from sensprobe.data import Dataset
from sensprobe.errors import UnsupportedError, UsageError, WorkerError
from sensprobe.numerics import SEMANTICS
from sensprobe.session.headline import Headline
from sensprobe.session.session import Session
from sensprobe.session.source import Source
from sensprobe.workers.dispatch import Loss
from sensprobe.workers.task import Answer, Task, answer, told_to

REACHED_SECONDS = 10.0
TOKEN = Path.home() / ".ray" / "auth_token"
"""Where Ray keeps the token by which members of a cluster know each other."""


class Parts(NamedTuple):
    """What a session is made of, as it is sent to workers."""

    release: str
    semantics: int
    source: Source
    dataset: Dataset
    metric: str
    data_seed: int


@dataclass(slots=True, eq=False)
class Worker:
    """An actor, and the reference to the answer that it owes."""

    actor: Any
    owes: Any = None


class OnRay:
    """A `Pool` of Ray's actors, one a processor, or of `ray:N` N. They keep nothing themselves."""

    keeps = False

    def __init__(self, session: Session, address: str) -> None:
        ray = _ray()
        if session.headline.metric is not None:
            raise UsageError(
                "--workers ray: a metric of your own is code, which is not sent to other machines. "
                "Give a number of --workers, which are processes of this one."
            )
        self._began = not ray.is_initialized()
        if self._began:
            _connect(ray, address)
        count = address.removeprefix("ray:")
        processors = int(ray.cluster_resources().get("CPU", 1))
        self.room = int(count) if count.isdecimal() else max(1, processors)
        self._actor = ray.remote(num_cpus=1, max_restarts=0)(Actor)
        self._parts = ray.put(_parts(session))

    def start(self) -> Worker:
        """See `Pool.start`."""
        return Worker(self._actor.remote(self._parts, _release(), SEMANTICS))

    def give(self, worker: Worker, task: Task) -> None:
        """See `Pool.give`."""
        worker.owes = worker.actor.answer.remote(task)

    def finished(self, busy: Sequence[Worker]) -> Iterable[tuple[Worker, Answer | Loss]]:
        """See `Pool.finished`."""
        ray = _ray()
        owed = {worker.owes: worker for worker in busy}
        ray.wait(list(owed), num_returns=1)
        ready, _ = ray.wait(list(owed), num_returns=len(owed), timeout=0)
        for reference in ready:
            worker = owed[reference]
            worker.owes = None
            try:
                yield worker, ray.get(reference)
            except ray.exceptions.RayTaskError as error:
                raise WorkerError(f"a worker on Ray failed: {_last_line(error)}") from error
            except ray.exceptions.RayError as error:
                _kill(ray, worker)
                yield worker, Loss(f"as Ray says: {_last_line(error)}")

    def end(self, idle: Sequence[Worker], busy: Sequence[Worker]) -> None:
        """See `Pool.end`."""
        ray = _ray()
        for worker in (*idle, *busy):
            _kill(ray, worker)
        if self._began:
            ray.shutdown()


class Actor:
    """A worker, in a process of Ray's: a session made of what was sent."""

    def __init__(self, parts: Parts, release: str, semantics: int) -> None:
        import torch

        torch.set_num_threads(1)
        self._differs = (_release(), SEMANTICS) != (release, semantics)
        headline = Headline(parts.dataset, parts.metric)
        self._session = Session(parts.source, parts.dataset, headline=headline,
                                data_seed=parts.data_seed)  # fmt: skip
        self._notes = told_to(self._session)
        self._release = release

    def process(self) -> int:
        """The id of the process it lives in."""
        return os.getpid()

    def answer(self, task: Task) -> Answer:
        """What a task's evaluations give."""
        if self._differs:
            error = WorkerError(
                f"a worker has sensprobe {_release()}, and the command that asks {self._release}: "
                "install the same version on all machines of the cluster."
            )
            return Answer([], [], error)
        return answer(self._session, task, self._notes)


def _ray() -> Any:
    """Ray, with what it reads when it is imported: that it tells nobody of its use, and knows the
    members of a cluster by the token that there is."""
    if "ray" not in sys.modules:
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        if TOKEN.is_file() or {"RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"} & os.environ.keys():
            os.environ.setdefault("RAY_AUTH_MODE", "token")
    try:
        import ray
    except ImportError as error:
        raise UnsupportedError(
            "--workers ray needs Ray, which is not installed: pip install -e '.[cluster]' "
            "where you installed sensprobe from. A number of --workers needs nothing more."
        ) from error
    return ray


def _connect(ray: Any, address: str) -> None:
    """Connect to the cluster at an address; without one to that of RAY_ADDRESS, or start Ray here.
    Ray listens on this machine's address for whoever has its token."""
    quiet: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.CRITICAL}
    count = address.removeprefix("ray:")
    elsewhere = address if address.startswith("ray://") else os.environ.get("RAY_ADDRESS", "")
    try:
        if elsewhere:
            _reach(elsewhere)
            _patiently(lambda: ray.init(elsewhere, **quiet))
        else:
            ray.init(
                num_cpus=int(count) if count.isdecimal() else None,
                include_dashboard=False,
                **quiet,
            )
    except (OSError, RuntimeError, ValueError) as error:
        raise WorkerError(
            f"--workers {address}: no Ray to work with ({_last_line(error)}). Start a cluster with "
            "`ray start --head`, of the version that is installed here, or give a number of "
            "--workers, which needs none."
        ) from error


def _reach(address: str) -> None:
    """Raise an OSError where nobody listens: Ray itself would try for minutes."""
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if port.isdecimal():
        socket.create_connection((host.strip("[]"), int(port)), REACHED_SECONDS).close()


def _patiently(connect: Callable[[], object]) -> None:
    """Connect; once more where the first connection only woke the cluster's server up."""
    try:
        connect()
    except (ConnectionError, RuntimeError):
        time.sleep(1.0)
        connect()


def _parts(session: Session) -> Parts:
    """What is sent of a session."""
    return Parts(
        _release(),
        SEMANTICS,
        replace(session.source, earlier=frozenset),
        session.dataset,
        session.headline.built_in,
        session.data_seed,
    )


def _release() -> str:
    return version("sensprobe")


def _kill(ray: Any, worker: Worker) -> None:
    ray.kill(worker.actor)


def _last_line(error: BaseException) -> str:
    """The last line of what an error says, which is its reason where it quotes a traceback."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return (lines[-1] if lines else type(error).__name__)[:300]
