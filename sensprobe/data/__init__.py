"""Real data, from files or the user's own code, cut into splits that no step shares.

    digits                    scikit-learn's handwritten digits, on every machine
    mnist:FOLDER              the four MNIST IDX files, packed with gzip or not
    npz:FILE                  arrays x, y, optionally split and group
    python:FILE.py:FUNCTION   the user's own code, which returns such arrays; run only when named

Every error is a `DataError` (the data is at fault) or a `UsageError` (the request is).
"""

from __future__ import annotations

import difflib
from collections.abc import Callable
from pathlib import Path

from sensprobe.data import arrays, digits, mnist
from sensprobe.data.dataset import (
    SPLIT_NAMES,
    Dataset,
    Split,
    Splits,
    Taken,
    Task,
    check_fits,
    take,
)
from sensprobe.data.user import load_function
from sensprobe.errors import UsageError

__all__ = [
    "SPLIT_NAMES",
    "Dataset",
    "Split",
    "Splits",
    "Taken",
    "Task",
    "check_fits",
    "load_data",
    "load_function",
    "take",
]

FORMS = "digits, mnist:FOLDER, npz:FILE, python:FILE.py:FUNCTION"


def load_data(spec: str, *, seed: int = 0) -> Dataset:
    """The data `spec` names; `seed` shuffles data that comes without splits of its own.

    The splits are disjoint. Splits that are costly to read are read on first access.
    """
    if not 0 <= seed < 2**63:
        raise UsageError(f"--data-seed {seed}: give a whole number from 0 on.")
    kind, colon, rest = spec.partition(":")
    if kind == "digits" and not colon:
        return digits.load()
    reader = READERS.get(kind)
    if reader is None:
        raise UsageError(_unknown(spec, kind))
    if not rest:
        raise UsageError(f"data {spec!r} names nothing after {kind}:; the forms are {FORMS}")
    return reader(spec, rest, seed)


def _mnist(spec: str, rest: str, seed: int) -> Dataset:
    return mnist.load(Path(rest).expanduser(), spec)


def _npz(spec: str, rest: str, seed: int) -> Dataset:
    return arrays.load_npz(Path(rest).expanduser(), spec, seed)


def _python(spec: str, rest: str, seed: int) -> Dataset:
    return arrays.from_mapping(load_function(spec)(), spec, seed)


READERS: dict[str, Callable[[str, str, int], Dataset]] = {
    "mnist": _mnist,
    "npz": _npz,
    "python": _python,
}


def _unknown(spec: str, kind: str) -> str:
    if Path(spec).suffix == ".npz":
        hint = f"did you mean npz:{spec}? "
    elif spec and Path(spec).is_dir():
        hint = f"did you mean mnist:{spec}? "
    else:
        near = difflib.get_close_matches(kind, ["digits", *READERS], n=1)
        hint = f"did you mean {near[0]}? " if near else ""
    return f"unknown data {spec!r}; {hint}The forms are {FORMS}"
