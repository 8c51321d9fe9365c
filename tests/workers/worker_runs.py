"""What tests of workers share: a metric that does something in workers, and what a run holds."""

from __future__ import annotations

import os
from pathlib import Path

from sensprobe.runs.record import key_of, unseal

METRIC = """
import os, signal, time
from pathlib import Path

HERE = Path(__file__).parent
ASKING = int((HERE / "asking").read_text())


def right(outputs, targets):
    if os.getpid() != ASKING:
        {}
    return (outputs.argmax(-1) == targets).float()


right.unit, right.higher_is_better = "fraction", True
"""
"""A metric that does something in workers, and nothing in the process that asks."""


class Notes:
    """Progress that keeps what it is told."""

    def __init__(self) -> None:
        self.texts: list[str] = []
        self.units = 0.0

    def begin(self, title: str, total: float, seconds: float | None = None) -> None: ...

    def end(self) -> None: ...

    def advance(self, units: float = 1) -> None:
        self.units += units

    def note(self, text: str) -> None:
        self.texts.append(text)


def metric(folder: Path, does: str) -> str:
    """A METRIC whose function runs a line of Python in workers."""
    (folder / "asking").write_text(str(os.getpid()))
    (folder / "metric.py").write_text(METRIC.format(does))
    return f"python:{folder / 'metric.py'}:right"


def made(run: Path) -> list[tuple[str, str, int, int]]:
    """Every evaluation of a run, as often as it is written there."""
    files = sorted((run / "evaluations").glob("*.jsonl"))
    lines = [unseal(line) for file in files for line in file.read_bytes().splitlines()]
    keys = [key_of(line) for line in lines if line and line["kind"] == "evaluation"]
    return sorted((key.plan, key.split, key.start, key.stop) for key in keys)
