"""An interrupt that a callback of compiled code swallowed still stops the command."""

from __future__ import annotations

import ctypes
import signal
from collections.abc import Callable, Iterator

import pytest
from rich.console import Console

from sensprobe.cli import interrupt
from sensprobe.cli.bar import Bar


@pytest.fixture(autouse=True)
def _heard() -> Iterator[None]:
    """Python's own handler, also where a shell that runs the tests had the signal ignored."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


COMPARE = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p)


def called_back(inside: Callable[[], None]) -> None:
    """Run Python code as a callback of the C library's qsort, which knows no exceptions."""

    def compare(a: int, b: int) -> int:
        inside()
        return 0

    numbers = (ctypes.c_int * 2)(2, 1)
    ctypes.CDLL(None).qsort(numbers, 2, ctypes.sizeof(ctypes.c_int), COMPARE(compare))


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("tell", ["advance", "begin"])
def test_a_swallowed_interrupt_is_raised_where_progress_is_told(tell: str, monkeypatch) -> None:
    monkeypatch.setattr("sys.unraisablehook", lambda unraisable: None)
    bar = Bar(Console(stderr=True))
    with interrupt.remembered():
        called_back(lambda: signal.raise_signal(signal.SIGINT))  # nothing is raised here
        with pytest.raises(KeyboardInterrupt):
            bar.advance() if tell == "advance" else bar.begin("more", 1)
        bar.advance()  # once


def test_a_plain_interrupt_is_raised_at_once_and_none_outlives_the_block() -> None:
    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt), interrupt.remembered():
        signal.raise_signal(signal.SIGINT)
    interrupt.check()
    assert signal.getsignal(signal.SIGINT) is before


def test_a_handler_of_the_caller_is_left_alone() -> None:
    seen = []
    before = signal.signal(signal.SIGINT, lambda *_: seen.append(1))
    try:
        with interrupt.remembered():
            signal.raise_signal(signal.SIGINT)
            interrupt.check()
    finally:
        signal.signal(signal.SIGINT, before)
    assert seen == [1]
