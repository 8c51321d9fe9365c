"""Progress that others can follow: what a command is told of its work, its run is told as well."""

from __future__ import annotations

import time

from sensprobe.progress import Progress
from sensprobe.runs.run import Run

TOLD_SECONDS = 2.0
"""The least time between two lines on how far the work is."""


class Followed:
    """A `Progress` that hands all on to another one, and tells a run now and then."""

    def __init__(self, progress: Progress, run: Run) -> None:
        self._progress, self._run = progress, run
        self._title, self._done, self._total, self._told = "", 0.0, 0.0, 0.0

    def begin(self, title: str, total: float, seconds: float | None = None) -> None:
        """See `Progress.begin`."""
        self._progress.begin(title, total, seconds)
        self._title, self._done, self._total = title, 0.0, total
        self._tell()

    def advance(self, units: float = 1) -> None:
        """See `Progress.advance`."""
        self._progress.advance(units)
        self._done += units
        if self._title and time.monotonic() - self._told > TOLD_SECONDS:
            self._tell()

    def end(self) -> None:
        """See `Progress.end`."""
        self._progress.end()
        self._title = ""

    def note(self, text: str) -> None:
        """See `Progress.note`."""
        self._progress.note(text)

    def _tell(self) -> None:
        self._told = time.monotonic()
        self._run.tell_progress(self._title, self._done, self._total)
