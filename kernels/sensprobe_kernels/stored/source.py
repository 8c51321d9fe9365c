"""Compiling what may change: Numba's cache hears when a source did."""

from __future__ import annotations

from collections.abc import Callable
from hashlib import sha256
from pathlib import Path
from typing import Any

from numba import njit

_njit: Any = njit  # its own annotations leave out an option


def fingerprint(folder: Path) -> int:
    """Of the source compiled from a folder beside this one: Numba watches one file, a scan is made
    of several."""
    here = Path(__file__).parent
    words = [here.parent / name for name in ("vector.py", "octets.py", "pairs.py")]
    read = [*sorted(folder.glob("*.py")), *sorted(here.glob("*.py")), *words]
    files = [file for file in read if file.name != "cpu.py"]  # calls what is compiled
    return int(sha256(b"".join(file.read_bytes() for file in files)).hexdigest()[:15], 16)


def compiled(function: Callable[..., int]) -> Callable[..., int]:
    """Without the interpreter's lock; kept on disk where there is a folder for it.

    The function returns its source's fingerprint, so that it stands in the closure, hence in the
    key under which Numba caches.
    """
    try:
        return _njit(function, cache=True, nogil=True, _nrt=False)
    except RuntimeError:  # no folder to cache in
        return _njit(function, nogil=True, _nrt=False)
