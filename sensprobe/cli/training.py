"""Progress of a training run on stderr."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.console import Console

from sensprobe.cli.bar import Bar
from sensprobe.units import duration

if TYPE_CHECKING:
    from sensprobe.train import Progress


class TrainingBar:
    """Called with every `Progress` of a fit: a bar an epoch, a line when one ends."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._bar = Bar(console)
        self._epoch = 0

    def __call__(self, now: Progress) -> None:
        if now.epoch != self._epoch:
            if self._epoch == 0:
                self._console.print(
                    f"{now.epochs} epochs of {now.steps} steps: about {duration(now.seconds_left)}",
                    style="dim",
                )
            self._bar.begin(f"epoch {now.epoch}/{now.epochs}", now.steps)
            self._epoch = now.epoch
        self._bar.advance()
        if now.validation is not None:
            self._bar.end()
            self._console.print(
                f"epoch {now.epoch}/{now.epochs}  loss {now.loss:.4f}  "
                f"train {100 * now.accuracy:.2f} %  "
                f"held out {100 * now.validation:.2f} %  {duration(now.seconds_left)} left"
            )
