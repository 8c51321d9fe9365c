"""Progress of a training run on stderr."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.console import Console

from sensprobe.cli.bar import Bar
from sensprobe.units import duration

if TYPE_CHECKING:
    from sensprobe.train import Progress


class TrainingBar:
    """Called with every `Progress` of a training: a bar an epoch, a line when one ends."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._bar = Bar(console)
        self._epoch = 0

    def __call__(self, now: Progress) -> None:
        if now.epoch != self._epoch:
            if self._epoch == 0:
                plural = "s" if now.epochs > 1 else ""
                takes = f"about {duration(now.seconds_left)}"
                self._console.print(
                    f"{now.epochs} {now.unit}{plural} of {now.steps} steps: {takes}",
                    style="dim",
                )
            self._bar.begin(f"{now.unit} {now.epoch}/{now.epochs}", now.steps)
            self._epoch = now.epoch
        self._bar.advance()
        if now.validation is not None:
            self._bar.end()
            self._console.print(
                f"{now.unit} {now.epoch}/{now.epochs}  loss {now.loss:.4f}  "
                f"train {_score(now, now.score)}  "
                f"held out {_score(now, now.validation)}  {duration(now.seconds_left)} left"
            )


def _score(now: Progress, value: float) -> str:
    if now.metric == "accuracy":
        return f"{100 * value:.2f} %"
    return f"{value:.4f} {'bits a byte' if now.metric == 'bits_per_byte' else now.metric}"
