"""Files of named arrays, as `numpy.savez` writes them.

What a file says of its sizes is held against the bytes that it has before RAM is taken, and pickled
(object) arrays are refused, because reading one can run code.
"""

from __future__ import annotations

import zipfile
from collections.abc import Collection
from math import prod
from pathlib import Path

import numpy as np
from numpy.lib import format as npy

from sensprobe.documents.reading import DocumentError, shown

DEFLATE = 1032
"""Bytes that one byte of a deflated file can hold, at most."""


class PickledError(DocumentError):
    """An array holds pickled objects."""


def read_npz(
    path: Path, names: Collection[str] | None = None
) -> tuple[dict[str, np.ndarray], list[str]]:
    """The arrays that have one of these names (all without `names`), read-only, and the names of
    all arrays in the file. DocumentError for a file that is damaged."""
    try:
        with zipfile.ZipFile(path) as archive:
            members = [m for m in archive.infolist() if m.filename.endswith(".npy")]
            if sum(m.file_size for m in members) > DEFLATE * path.stat().st_size:
                raise DocumentError("its arrays are larger than a file of this size can hold")
            found = {m.filename.removesuffix(".npy"): m for m in members}
            wanted = [n for n in found if names is None or n in names]
            return {name: _read_npy(archive, found[name]) for name in wanted}, [*found]
    except DocumentError:
        raise
    except Exception as error:  # damaged bytes make the readers of zip and npy raise anything
        raise DocumentError(shown(str(error), 200) or type(error).__name__) from error


def _read_npy(archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> np.ndarray:
    with archive.open(member) as stream:
        version = npy.read_magic(stream)
        read = npy.read_array_header_1_0 if version == (1, 0) else npy.read_array_header_2_0
        shape, by_columns, dtype = read(stream)
        name = shown(member.filename)
        if dtype.hasobject:
            raise PickledError(f"{name} holds pickled objects, which are never loaded")
        held = member.file_size - stream.tell()
        if any(n < 0 for n in shape) or prod(shape) * dtype.itemsize != held:
            sizes = shown(shape, form=repr)
            raise DocumentError(f"{name}, {shown(dtype)} of shape {sizes}, has {held:,} bytes")
        values = np.frombuffer(stream.read(), dtype)
    return values.reshape(shape[::-1]).T if by_columns else values.reshape(shape)
