"""Arrays of the files that JAX and numpy users keep weights in: flax's msgpack, and .npz.

An array is a view of a file's bytes until one asks for its tensor; its size is checked against the
bytes that the file has before anything is made of it. No pickle is read.
"""

from __future__ import annotations

import math
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.lib import format as npy

from sensprobe.checkpoints.files import require_file
from sensprobe.checkpoints.headers import Header, bytes_a_value
from sensprobe.documents import shown
from sensprobe.errors import CheckpointError

if TYPE_CHECKING:
    from torch import Tensor

DTYPES = frozenset({
    "bool", "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64", "float16",
    "bfloat16", "float32", "float64", "complex64", "complex128",
})  # fmt: skip
MOST_AXES = 32
DEFLATE = 1032
"""Bytes that one byte of a deflated file can hold, at most."""


class ArrayError(ValueError):
    """Bytes are no array; its text says why."""


@dataclass(frozen=True, slots=True)
class Array:
    """Numbers in row-major order, little-endian, in one piece or several."""

    header: Header
    pieces: tuple[bytes | memoryview, ...]

    @classmethod
    def of(cls, shape: Sequence[Any], dtype: Any, pieces: Sequence[bytes | memoryview]) -> Array:
        """ArrayError for a shape or a type that is none, or that needs other bytes than these."""
        if not isinstance(dtype, str) or dtype not in DTYPES:
            raise ArrayError(f"an array is of type {shown(repr(dtype))}, which is not read")
        if len(shape) > MOST_AXES or not all(type(n) is int and 0 <= n < 2**63 for n in shape):
            raise ArrayError(f"an array has the shape {shown(shape, form=repr)}")
        needed, held = math.prod(shape) * bytes_a_value(dtype), sum(map(len, pieces))
        if needed != held:
            sizes = shown(tuple(shape), form=repr)
            raise ArrayError(f"an array of {dtype} with shape {sizes} has {held:,} bytes")
        return cls(Header(tuple(shape), f"torch.{dtype}"), tuple(pieces))

    def tensor(self) -> Tensor:
        """A copy of the numbers."""
        import torch

        dtype: torch.dtype = getattr(torch, self.header.dtype.removeprefix("torch."))
        content = bytearray().join(self.pieces)
        flat = torch.frombuffer(content, dtype=dtype) if content else torch.empty(0, dtype=dtype)
        return flat.reshape(self.header.shape)


def read_npz(path: Path) -> dict[str, Array]:
    """The arrays of an .npz file by name; CheckpointError for what numpy would have to unpickle."""
    require_file(path)
    try:
        with zipfile.ZipFile(path) as archive:
            members = [m for m in archive.infolist() if m.filename.endswith(".npy")]
            if sum(m.file_size for m in members) > DEFLATE * path.stat().st_size:
                raise ArrayError("its arrays are larger than a file of this size can hold")
            return {m.filename.removesuffix(".npy"): _read_npy(archive, m) for m in members}
    except Exception as error:  # damaged bytes make the readers of zip and npy raise anything
        reason = shown(str(error), 200) or type(error).__name__
        raise CheckpointError(
            f"{path} cannot be read as .npz ({reason}): it is truncated, damaged or of another "
            "kind. Copy it again, or save plain numbers with numpy.savez."
        ) from None


def _read_npy(archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> Array:
    with archive.open(member) as stream:
        version = npy.read_magic(stream)
        read = npy.read_array_header_1_0 if version == (1, 0) else npy.read_array_header_2_0
        shape, by_columns, dtype = read(stream)
        if dtype.hasobject:
            raise ArrayError(f"{member.filename} holds pickled objects, which are never loaded")
        content = stream.read()
    swapped = dtype.newbyteorder("<")
    if dtype != swapped or by_columns:
        values = np.frombuffer(content, dtype)
        values = values.reshape(shape[::-1]).T if by_columns else values.reshape(shape)
        content = values.astype(swapped).tobytes()
    return Array.of(shape, dtype.name, [content])
