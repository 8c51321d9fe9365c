"""Compiling with Numba: four decorators, and one fingerprint of all the source that goes in.

    inline     called from compiled code only, and inlined into it
    shared     the same, optimised on its own first: for what many `compiled` functions are made of
    apart      called from compiled code only, and not inlined: what is called from several places
               and works long enough not to mind the call
    compiled   called from Python; releases the interpreter's lock and is kept on disk

Numba's cache watches the one file that a function stands in, and a kernel is made of several. So
the name under which `compiled` code is kept has SOURCE in it: after any change to this package's
compiled source, old code is not found.
"""

from __future__ import annotations

from collections.abc import Callable
from hashlib import sha256
from pathlib import Path
from typing import Any

from numba import njit

from sensprobe_kernels.inlining import pipeline

_njit: Any = njit  # its own annotations leave out two options

# Wrappers for callers outside compiled code would double the time that compiling takes. Nothing
# makes an array, so nothing needs to count who holds one: counting would take longer than the work.
_inside: dict[str, Any] = {
    "nogil": True,
    "no_cpython_wrapper": True,
    "no_cfunc_wrapper": True,
    "_nrt": False,
}
_linked, _optimised = (
    {} if (found := pipeline(optimise=optimise)) is None else {"pipeline_class": found}
    for optimise in (False, True)
)
inline = _njit(forceinline=True, **_inside, **_linked)
shared = _njit(forceinline=True, **_inside, **_optimised)
# Arguments all go through memory. Not inlining is said outright: an inlined caller would inline it.
apart = _njit(forceinline=False, **_inside, **_linked)


def read_by_numba(file: Path) -> bool:
    """Whether compiled code may be made of a file: not of one that is for GPUs, which is called
    `gpu`, lies in a folder of that name, or makes launches."""
    return "gpu" not in (file.stem, file.parent.name) and file.stem not in ("launch", "launches")


def _source() -> int:
    """A hash of every file of this package that Numba may read."""
    here = Path(__file__).parent
    files = [file for file in sorted(here.rglob("*.py")) if read_by_numba(file)]
    return int(sha256(b"".join(file.read_bytes() for file in files)).hexdigest()[:15], 16)


SOURCE = _source()
"""A fingerprint of the source, 60 bits."""


def compiled(function: Callable[..., None]) -> Callable[..., None]:
    """Without the interpreter's lock; kept on disk where there is a folder for it."""
    function.__qualname__ += f".{SOURCE:x}"
    try:
        return _njit(function, cache=True, nogil=True, _nrt=False)
    except RuntimeError:  # no folder to cache in
        return _njit(function, nogil=True, _nrt=False)
