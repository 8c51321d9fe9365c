"""One training a folder: two at once would write their snapshots and weights over each other's."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from sensprobe.documents.files import disk_errors
from sensprobe.errors import RunError
from sensprobe.runs import lease


@contextmanager
def alone_in(out: Path) -> Iterator[None]:
    """Nobody else trains into OUT meanwhile; RunError where another process does."""

    def refuse() -> None:
        raise RunError(
            f"another process trains into {out}: wait until it is done, or name another folder."
        )

    with disk_errors(out, "creating"):
        out.mkdir(parents=True, exist_ok=True)
    try:
        with lease.held(out, "training", refuse):
            yield
    finally:
        lease.sweep(out)
