"""Progress on stderr: what runs, how long it will take, how far it is."""

from __future__ import annotations

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

from sensprobe.cli import interrupt
from sensprobe.units import duration

LONG_SECONDS = 2.0
"""From here on an estimate is said beforehand."""


class Bar:
    """Implements `sensprobe.progress.Progress`. One bar at a time; plain lines off a terminal."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._progress: Progress | None = None
        self._task: TaskID | None = None

    def begin(self, title: str, total: float, seconds: float | None = None) -> None:
        self.end()
        interrupt.check()
        if seconds is not None and seconds >= LONG_SECONDS:
            self._console.print(f"{title}: about {duration(seconds)}", style="dim")
        self._progress = Progress(
            TextColumn("{task.description}", markup=False),
            BarColumn(bar_width=30),
            TextColumn("{task.percentage:>3.0f}%"),
            TimeRemainingColumn(),
            console=self._console,
            transient=True,
            disable=not self._console.is_terminal,
        )
        self._progress.start()
        self._task = self._progress.add_task(title, total=total)

    def advance(self, units: float = 1) -> None:
        interrupt.check()
        if self._progress is not None and self._task is not None:
            self._progress.advance(self._task, units)

    def end(self) -> None:
        if self._progress is not None:
            self._progress.stop()
        self._progress = self._task = None

    def note(self, text: str) -> None:
        self._console.print(text, style="dim")
