"""Several evaluations at a time: a session's executor is one of workers while a job runs.

WORKERS, as a user names them: a number of processes of this machine; `ray` or `ray:N`, which start
Ray here; or `ray://HOST:PORT`, a Ray cluster.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager

from sensprobe.errors import UsageError
from sensprobe.session.session import Session
from sensprobe.workers.dispatch import Pool, Workers

MOST = 1024
ON_RAY = re.compile(r"ray(?::(?P<count>\d+)|://[A-Za-z0-9.\-\[\]:_]+)?")


def check_workers(workers: int | str) -> None:
    """Raise UsageError for workers that cannot be."""
    text = str(workers)
    on_ray = ON_RAY.fullmatch(text)
    count = on_ray["count"] if on_ray else text
    if count is not None and not (count.isdecimal() and 1 <= int(count) <= MOST):
        raise UsageError(
            f"--workers {text}: give a number of processes from 1 to {MOST:,}, or ray, ray:N or "
            "ray://HOST:PORT."
        )


@contextmanager
def working(session: Session, workers: int | str) -> Iterator[None]:
    """Inside, workers evaluate what the session's jobs ask for; with one process it is this one.

    Processes have as many threads together as this one would use, at least one each; on Ray each
    has one. A session of a model that only this process has, such as one that is trained just now,
    has this process alone, and its progress is told.
    """
    check_workers(workers)
    if str(workers) == "1":
        yield
        return
    if session.opening is None:
        session.progress.note("this model is evaluated by one process: --workers is not used")
        yield
        return
    executor = Workers(session, _pool(session, str(workers)))
    session.executor = executor
    try:
        yield
    finally:
        session.executor = session.local
        executor.close()


def _pool(session: Session, workers: str) -> Pool:
    if workers.isdecimal():
        import torch

        from sensprobe.workers.processes import Processes

        return Processes(session, int(workers), max(1, torch.get_num_threads() // int(workers)))
    from sensprobe.workers.on_ray import OnRay

    return OnRay(session, workers)


__all__ = ["check_workers", "working"]
