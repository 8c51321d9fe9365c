"""Ctrl-C, also where Python loses it.

An interrupt that arrives while compiled code runs is raised at the next line of Python. If that is
in a function which the compiled code calls back (a compiler asking for its cache), the exception
has no one to go to: it is printed and forgotten, and the command goes on to its end. So the signal
is remembered, and raised again where progress is told.
"""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from threading import current_thread, main_thread
from types import FrameType

_asked = False


@contextmanager
def remembered() -> Iterator[None]:
    """Inside, an interrupt is remembered until it is raised by `check`, or the block ends."""
    global _asked
    before = signal.getsignal(signal.SIGINT)
    if current_thread() is not main_thread() or before is not signal.default_int_handler:
        yield
        return
    _asked = False
    signal.signal(signal.SIGINT, _ask)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
        _asked = False


def check() -> None:
    """Raise KeyboardInterrupt, once, if one was asked for."""
    global _asked
    if _asked:
        _asked = False
        raise KeyboardInterrupt


def _ask(number: int, frame: FrameType | None) -> None:
    global _asked
    _asked = True
    raise KeyboardInterrupt
