"""Arrays of the files that JAX and numpy users keep weights in: flax's msgpack, and .npz.

An array is a view of a file's bytes until one asks for its tensor; its size is checked against the
bytes that the file has before anything is made of it. No pickle is read.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from sensprobe.checkpoints.files import require_file
from sensprobe.checkpoints.headers import Header, bytes_a_value
from sensprobe.documents import DocumentError, npz, shown
from sensprobe.errors import CheckpointError

if TYPE_CHECKING:
    from torch import Tensor

DTYPES = frozenset({
    "bool", "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64", "float16",
    "bfloat16", "float32", "float64", "complex64", "complex128",
})  # fmt: skip
MOST_AXES = 32


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
        return {name: _plain(values) for name, values in npz.read_npz(path)[0].items()}
    except (ArrayError, DocumentError) as error:
        raise CheckpointError(
            f"{path} cannot be read as .npz ({error}): it is truncated, damaged or of another "
            "kind. Copy it again, or save plain numbers with numpy.savez."
        ) from None


def _plain(values: np.ndarray) -> Array:
    little = np.ascontiguousarray(values, values.dtype.newbyteorder("<"))
    return Array.of(values.shape, values.dtype.name, [little.reshape(-1).view(np.uint8).data])
