"""Files of named arrays, written by `numpy.savez`, as data."""

from __future__ import annotations

import zipfile
from pathlib import Path

import numpy as np

from sensprobe.documents import DocumentError, npz, shown
from sensprobe.errors import DataError

NPY_MAGIC = b"\x93NUMPY"


def npz_arrays(path: Path, spec: str, names: tuple[str, ...]) -> list[np.ndarray]:
    """The arrays of these names in one .npz file; DataError where one is absent."""
    fields, found = read_npz(path, spec, names)
    if missing := [name for name in names if name not in fields]:
        held = shown(", ".join(found), 200) or "nothing"
        raise DataError(f"{spec}: {path} has no {' and no '.join(missing)}; it has {held}")
    return [fields[name] for name in names]


def read_npz(
    path: Path, spec: str, names: tuple[str, ...]
) -> tuple[dict[str, np.ndarray], list[str]]:
    """The arrays that have one of these names, and the names of all arrays in the file; DataError
    for a file that is absent, damaged or of another kind."""
    if not path.is_file():
        raise DataError(
            f"{spec}: file {path} does not exist; save one with "
            "numpy.savez(FILE, x=..., y=...), split and group are optional"
        )
    if not zipfile.is_zipfile(path):
        with path.open("rb") as stream:
            bare = stream.read(len(NPY_MAGIC)) == NPY_MAGIC
        what = "holds one bare array, not x and y" if bare else "is truncated or no npz file"
        raise DataError(f"{spec}: {path} {what}; save it with numpy.savez(FILE, x=..., y=...)")
    try:
        return npz.read_npz(path, names)
    except npz.PickledError as error:
        raise DataError(
            f"{spec}: {path} holds pickled objects, which are never loaded because loading can "
            "run code; save plain numbers, and strings as a numpy str array"
        ) from error
    except DocumentError as error:
        raise DataError(f"{spec}: {path} is damaged ({error}); save it again") from error
