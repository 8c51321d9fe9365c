"""Compiling with Numba: four decorators, and one fingerprint of all the source that goes in.

    inline            called from compiled code only, and inlined into it
    inline_optimised  the same, but optimised on its own first: for parts of many `compiled`
                      functions, which then take less time to compile
    noinline          called from compiled code only, and not inlined: for work that is called from
                      several places and takes much longer than a call
    compiled          called from Python; releases the interpreter's lock and is kept on disk

Numba's cache watches the one file that a function stands in, and a kernel is made of several. So
the name under which `compiled` code is kept contains SOURCE: after any change of this package's
compiled source, code of the source before is not found.
"""

from __future__ import annotations

from collections.abc import Callable
from hashlib import sha256
from pathlib import Path
from typing import Any

from numba import njit

from sensprobe_kernels.inlining import pipeline

_njit: Any = njit  # its own annotations leave out two options

# Wrappers for callers outside compiled code would double the time that compiling takes. Kernels
# make no array, so they need not count references: counting would take longer than their work.
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
inline_optimised = _njit(forceinline=True, **_inside, **_optimised)
# Arguments all go through memory. `forceinline=False` has to be said: without it a caller that is
# itself inlined would inline this too.
noinline = _njit(forceinline=False, **_inside, **_linked)


def source_of(folder: Path) -> int:
    """60 bits of a hash of the names and texts of all files that Numba may read: every Python file
    below a folder but those for GPUs (`gpu.py`, in a folder `gpu`, or called after launches)."""
    found = sha256()
    for file in sorted(folder.rglob("*.py")):
        name = file.relative_to(folder).with_suffix("")
        if not {"gpu", "launch", "launches"}.intersection(name.parts):
            found.update(f"{name.as_posix()}\0".encode() + file.read_bytes() + b"\0")
    return int(found.hexdigest()[:15], 16)


SOURCE = source_of(Path(__file__).parent)
"""The fingerprint of this package."""


def row_reader(record: type[Any]) -> Any:
    """A compiled function (rows, i) that gives row i of a table as a record, a NamedTuple whose
    fields are the columns."""
    fields = ", ".join(f"rows[i, {k}]" for k in range(len(record._fields)))
    scope: dict[str, Any] = {"record": record, "__name__": __name__}
    exec(f"def read_{record.__name__}(rows, i):\n    return record({fields})", scope)
    return inline(scope[f"read_{record.__name__}"])


def compiled(function: Callable[..., None]) -> Callable[..., None]:
    """The function compiled, run without the interpreter's lock, and kept on disk where there is a
    folder for it."""
    function.__qualname__ += f".{SOURCE:x}"
    try:
        return _njit(function, cache=True, nogil=True, _nrt=False)
    except RuntimeError:  # no folder to cache in
        return _njit(function, nogil=True, _nrt=False)
