"""Several evaluations at a time: a session's executor is one of workers while a job runs."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from sensprobe.errors import UsageError
from sensprobe.session.session import Session

MOST = 1024


def check_workers(workers: int) -> None:
    """Raise UsageError for a number of workers that cannot be."""
    if not 1 <= workers <= MOST:
        raise UsageError(f"--workers {workers}: give a whole number from 1 to {MOST:,}.")


@contextmanager
def working(session: Session, workers: int) -> Iterator[None]:
    """Inside, so many processes of this machine evaluate what the session's jobs ask for; with 1 it
    is this one. Together they have as many threads as this process would use, at least one each.

    A session that cannot be opened again, such as of a model that is trained just now, has this
    process alone; its progress is told.
    """
    check_workers(workers)
    if workers == 1:
        yield
        return
    if session.opening is None:
        session.progress.note("this model is evaluated by one process: --workers is not used")
        yield
        return
    import torch

    from sensprobe.workers.processes import Processes

    executor = Processes(session, workers, max(1, torch.get_num_threads() // workers))
    session.executor = executor
    try:
        yield
    finally:
        session.executor = session.local
        executor.close()


__all__ = ["check_workers", "working"]
