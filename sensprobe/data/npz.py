"""Files of named arrays, written by `numpy.savez`. Pickled (object) arrays are refused: reading one
can run code.
"""

from __future__ import annotations

import contextlib
import zipfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from sensprobe.errors import DataError

NPY_MAGIC = b"\x93NUMPY"


def npz_arrays(path: Path, spec: str, names: tuple[str, ...]) -> list[np.ndarray]:
    """The arrays of these names in one .npz file; DataError where one is absent or of objects."""
    require_npz(path, spec)
    with damage(path, spec):
        fields, found = read_npz(path, names)
        if missing := [name for name in names if name not in fields]:
            raise DataError(
                f"{spec}: {path} has no {' and no '.join(missing)}; it has {', '.join(found)}"
            )
        return [fields[name] for name in names]


def require_npz(path: Path, spec: str) -> None:
    """DataError for a path that is no .npz file."""
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


def read_npz(path: Path, names: tuple[str, ...]) -> tuple[dict[str, np.ndarray], list[str]]:
    """The arrays that have one of these names, and the names of all arrays."""
    with path.open("rb") as file, np.load(file, allow_pickle=False) as archive:
        return {n: archive[n] for n in archive.files if n in names}, list(archive.files)


@contextlib.contextmanager
def damage(path: Path, spec: str) -> Iterator[None]:
    """DataError for all that reading a damaged file can end in."""
    try:
        yield
    except DataError:
        raise
    except Exception as error:  # damaged bytes make the readers of zip and npy raise anything
        if "allow_pickle" in str(error):
            raise DataError(
                f"{spec}: {path} holds pickled objects, which are never loaded because loading "
                "can run code; save plain numbers, and strings as a numpy str array"
            ) from error
        raise DataError(
            f"{spec}: {path} is damaged ({type(error).__name__}: {error}); save it again"
        ) from error
