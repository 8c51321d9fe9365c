"""Status: who works on a run now, how fast, and how long it will take."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from sensprobe.runs import WORKER, Run, Writer


def status(run: Run) -> dict[str, Any]:
    """The state of a run, its evaluations, and a row for every process that writes to it.

    Rows hold command ("worker" of those that evaluate for another one), host, pid, since (UTC),
    evaluations, per_minute, and of the work title, share (0 to 1, None where nobody said) and
    seconds_left (None where that is not known yet).
    """
    writers = sorted(run.writers(), key=lambda w: (w.command == WORKER, w.since, w.pid))
    return {
        "run": str(run.path),
        "state": run.state,
        "evaluations": run.count,
        "processes": [_row(writer) for writer in writers],
    }


def _row(writer: Writer) -> dict[str, Any]:
    share = min(writer.done / writer.total, 1.0) if writer.total > 0 else None
    left = writer.seconds * (1 - share) / share if share and writer.seconds else None
    minutes = _seconds_since(writer.since) / 60
    return {
        "command": writer.command,
        "host": writer.host,
        "pid": writer.pid,
        "since": writer.since,
        "evaluations": writer.evaluations,
        "per_minute": writer.evaluations / minutes if minutes > 0 else None,
        "title": writer.title or None,
        "share": share,
        "seconds_left": left,
    }


def _seconds_since(moment: str) -> float:
    """Seconds since a time of UTC; 0 where the text is none."""
    try:
        return max((datetime.now(UTC) - datetime.fromisoformat(moment)).total_seconds(), 0.0)
    except (ValueError, TypeError):
        return 0.0
