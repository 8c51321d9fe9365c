"""Runs commands as a shell would, inside the test's process or beside it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from sensprobe.cli import main
from sensprobe.runs import open_run

FAST = ["--scheme", "fp16", "--scheme", "int8/head/asym/dynamic", "--scheme", "int4/head/asym"]
PROFILE = ["profile", "s4d-digits", "--data", "digits"]


@dataclass(frozen=True)
class Done:
    """What a command left behind."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        """Stdout as one document: fails where anything else was printed there."""
        return json.loads(self.out)


class Shell:
    """Calls `main` and captures both streams."""

    def __init__(self, capture: pytest.CaptureFixture[str]) -> None:
        self._capture = capture

    def __call__(self, *argv: object) -> Done:
        self._capture.readouterr()
        try:
            code = main([str(word) for word in argv])
        except SystemExit as stop:  # argparse
            code = int(stop.code or 0)
        seen = self._capture.readouterr()
        return Done(code, seen.out, seen.err)

    def ok(self, *argv: object) -> Done:
        done = self(*argv)
        assert done.code == 0, done.err
        return done


HELD = """
import sys, time
from sensprobe.cli import main
from sensprobe.runs import Run
append, left = Run.append, int(sys.argv[1])
def held(run, evaluation):
    global left
    append(run, evaluation)
    left -= 1
    while left <= 0:
        time.sleep(0.05)
Run.append = held
sys.exit(main(sys.argv[2:]))
"""


def start(count: int, *argv: object) -> subprocess.Popen[str]:
    """The command as a process of its own, which Ctrl-C reaches even if a shell that runs the tests
    in the background had it ignored. Once it kept `count` evaluations it goes no further, so that
    whoever is to stop it may be slow."""
    return subprocess.Popen(
        [sys.executable, "-c", HELD, str(count), *map(str, argv)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"OMP_NUM_THREADS": "1", "NUMBA_NUM_THREADS": "1"},
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )


def evaluations(run: Path) -> list[tuple[Any, ...]]:
    """The key of every evaluation of a run, in the order they were made."""
    return [
        (e.key.plan, e.key.split, e.key.start, e.key.stop, e.key.calibration)
        for e in open_run(run).entries()
    ]


def without_times(document: Any) -> Any:
    """A result document less what depends on when it was made."""
    if isinstance(document, dict):
        return {k: without_times(v) for k, v in document.items() if k not in ("seconds", "created")}
    return [without_times(v) for v in document] if isinstance(document, list) else document
