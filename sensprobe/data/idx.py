"""The IDX format: two zero bytes, a type, the number of dimensions, their sizes, then the values.

Sizes are big-endian int32. Only unsigned bytes (type 8) are read: images have 3 dimensions, labels
1. A file may be compressed with gzip, whatever its name says.
"""

from __future__ import annotations

import gzip
import struct
import zlib
from math import prod
from pathlib import Path
from typing import IO, Literal, cast

import numpy as np

from sensprobe.errors import DataError

Kind = Literal["images", "labels"]
DIMENSIONS: dict[Kind, int] = {"images": 3, "labels": 1}
UNSIGNED_BYTE = 8
GZIP_MAGIC = b"\x1f\x8b"


def read_shape(path: Path, kind: Kind) -> tuple[int, ...]:
    """Sizes of the dimensions, from the header alone."""
    try:
        with _open(path) as stream:
            return _header(stream, path, kind)
    except (OSError, EOFError, zlib.error) as error:
        raise _unreadable(path, error) from error


def read_values(path: Path, kind: Kind) -> np.ndarray:
    """The whole file as uint8: (n, rows, columns) images or (n,) labels."""
    try:
        with _open(path) as stream:
            shape = _header(stream, path, kind)
            body = stream.read()
    except (OSError, EOFError, zlib.error) as error:
        raise _unreadable(path, error) from error
    expected = prod(shape)
    if len(body) != expected:
        what = "truncated" if len(body) < expected else "longer than its header says"
        raise DataError(
            f"{path} is {what}: its header promises {expected:,} values for shape {shape}, "
            f"it holds {len(body):,}; get the file again"
        )
    return np.frombuffer(body, dtype=np.uint8).reshape(shape)


def _open(path: Path) -> IO[bytes]:
    with path.open("rb") as stream:
        compressed = stream.read(2) == GZIP_MAGIC
    return cast("IO[bytes]", gzip.open(path, "rb")) if compressed else path.open("rb")


def _header(stream: IO[bytes], path: Path, kind: Kind) -> tuple[int, ...]:
    magic = stream.read(4)
    if not magic:
        raise DataError(f"{path} is empty; get the file again")
    wanted = bytes((0, 0, UNSIGNED_BYTE, DIMENSIONS[kind]))
    if magic != wanted:
        raise DataError(_wrong_magic(path, kind, magic, wanted))
    sizes = stream.read(4 * DIMENSIONS[kind])
    if len(sizes) < 4 * DIMENSIONS[kind]:
        raise DataError(f"{path} is truncated inside its header; get the file again")
    return struct.unpack(f">{DIMENSIONS[kind]}I", sizes)


def _wrong_magic(path: Path, kind: Kind, magic: bytes, wanted: bytes) -> str:
    found = f"it starts with 0x{magic.hex()}, IDX {kind} start with 0x{wanted.hex()}"
    for other, dimensions in DIMENSIONS.items():
        if magic == bytes((0, 0, UNSIGNED_BYTE, dimensions)):
            return (
                f"{path} holds {other} where {kind} are expected: {found}; "
                "check whether two files were swapped"
            )
    return f"{path} is not an IDX file of {kind}: {found}; get the file again"


def _unreadable(path: Path, error: Exception) -> DataError:
    if isinstance(error, (EOFError, zlib.error, gzip.BadGzipFile)):
        return DataError(f"{path} is truncated or damaged ({error}); get the file again")
    return DataError(f"{path} cannot be read: {error}; check the file and its permissions")
