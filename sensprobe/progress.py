"""Progress of long work: a protocol that the command line implements, and silence."""

from __future__ import annotations

from typing import Protocol


class Progress(Protocol):
    """Told of the work as it happens. Every method returns at once."""

    def begin(self, title: str, total: float, seconds: float | None = None) -> None:
        """A stretch of `total` units starts; it will take about `seconds` where that is known."""

    def advance(self, units: float = 1) -> None:
        """So many units are done."""

    def end(self) -> None:
        """The stretch is over."""

    def note(self, text: str) -> None:
        """Something the user should know."""


class Silent:
    """Progress that is not shown."""

    def begin(self, title: str, total: float, seconds: float | None = None) -> None: ...

    def advance(self, units: float = 1) -> None: ...

    def end(self) -> None: ...

    def note(self, text: str) -> None: ...


SILENT = Silent()
