"""The files that flax writes: `flax.serialization.to_bytes`, and its `checkpoint_N` before orbax.

They are msgpack (github.com/msgpack/msgpack, spec.md): maps from names to maps, numbers, texts and
three extensions of flax's.

    1   an array: msgpack of [shape, type's name, row-major bytes]
    2   a complex number: msgpack of [real, imaginary]
    3   a numpy scalar: as an array

An array above a gigabyte is a map of `__msgpack_chunked_array__`, `shape` and `chunks`, the two
latter maps from "0", "1", … Nothing else is read, and no count of a file is believed beyond the
bytes that it has.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sensprobe.checkpoints.arrays import Array, ArrayError
from sensprobe.checkpoints.files import require_file
from sensprobe.documents import shown
from sensprobe.errors import CheckpointError

DEPTH = 64
"""Maps and lists inside each other; optax's states have about 12."""
CHUNKED = "__msgpack_chunked_array__"
_CONSTANTS = {0xC0: None, 0xC2: False, 0xC3: True}
_NUMBERS = {
    0xCA: ">f", 0xCB: ">d", 0xCC: ">B", 0xCD: ">H", 0xCE: ">I", 0xCF: ">Q",
    0xD0: ">b", 0xD1: ">h", 0xD2: ">i", 0xD3: ">q",
}  # fmt: skip
_SHORT = ((0x80, 0x8F, "map"), (0x90, 0x9F, "list"), (0xA0, 0xBF, "text"))
"""First and last byte whose difference to the first is a length."""
_LONG = {
    0xC4: ("bytes", 1), 0xC5: ("bytes", 2), 0xC6: ("bytes", 4), 0xC7: ("extension", 1),
    0xC8: ("extension", 2), 0xC9: ("extension", 4), 0xD9: ("text", 1), 0xDA: ("text", 2),
    0xDB: ("text", 4), 0xDC: ("list", 2), 0xDD: ("list", 4), 0xDE: ("map", 2), 0xDF: ("map", 4),
}  # fmt: skip
"""What begins with a byte, and how many bytes its length has."""


def begins_map(start: bytes) -> bool:
    """True for the first bytes of a map and of a name in it; no pickle begins so."""
    return (
        re.match(rb"(?:[\x81-\x8f]|\xde..|\xdf.{4})(?:[\xa1-\xbf]|\xd9.)\w", start, re.DOTALL)
        is not None
    )


def read_msgpack(path: Path) -> dict[str, Any]:
    """The tree of maps in a file, whose arrays are `Array`s."""
    require_file(path)
    try:
        reader = _Reader(memoryview(path.read_bytes()))
        tree = reader.value()
        if reader.at != len(reader.content):
            raise ArrayError(f"{len(reader.content) - reader.at:,} bytes follow its end")
        if not isinstance(tree, dict):
            raise ArrayError(f"it holds a {type(tree).__name__}, not a map of names")
    except OSError as error:
        raise CheckpointError(f"{path} cannot be read: {error.strerror}.") from None
    except ArrayError as error:
        raise CheckpointError(
            f"{path} cannot be read as flax's msgpack ({error}): it is truncated, damaged or of "
            "another kind. Copy it again."
        ) from None
    return tree


class _Reader:
    """Values one after another from bytes; ArrayError for what flax does not write."""

    def __init__(self, content: memoryview) -> None:
        self.content, self.at = content, 0

    def take(self, size: int) -> memoryview:
        left = len(self.content) - self.at
        if size > left:
            raise ArrayError(f"{size:,} bytes are announced where {left:,} are left")
        self.at += size
        return self.content[self.at - size : self.at]

    def value(self, depth: int = 0) -> Any:
        if depth > DEPTH:
            raise ArrayError(f"it is nested more than {DEPTH} deep")
        code = self.take(1)[0]
        if code < 0x80 or code >= 0xE0:
            return code if code < 0x80 else code - 0x100
        if code in _CONSTANTS:
            return _CONSTANTS[code]
        if form := _NUMBERS.get(code):
            return struct.unpack(form, self.take(struct.calcsize(form)))[0]
        kind, size = self._head(code)
        match kind:
            case "map":
                return self._map(size, depth)
            case "list":
                return [self.value(depth + 1) for _ in range(self._count(size, 1))]
            case "text":
                return self._text(size)
            case "bytes":
                return self.take(size)
        number = self.take(1)[0]
        return _extension(number, self.take(size), depth + 1)

    def _head(self, code: int) -> tuple[str, int]:
        """What begins with a byte, and its length."""
        for first, last, kind in _SHORT:
            if first <= code <= last:
                return kind, code - first
        if 0xD4 <= code <= 0xD8:
            return "extension", 1 << (code - 0xD4)
        if code not in _LONG:
            raise ArrayError(f"byte {code:#x} begins no value")
        kind, width = _LONG[code]
        return kind, int.from_bytes(self.take(width), "big")

    def _count(self, size: int, least: int) -> int:
        """A number of values of at least so many bytes each, which must be there."""
        if size * least > len(self.content) - self.at:
            raise ArrayError(f"{size:,} values are announced and the file ends before them")
        return size

    def _text(self, size: int) -> str:
        try:
            return str(self.take(size), "utf-8")
        except UnicodeDecodeError:
            raise ArrayError("a text is not UTF-8") from None

    def _map(self, size: int, depth: int) -> Any:
        out: dict[str, Any] = {}
        for _ in range(self._count(size, 2)):
            name = self.value(depth + 1)
            if not isinstance(name, str) or name in out:
                raise ArrayError(
                    f"a map has the name {shown(repr(name))}, which is no text or there twice"
                )
            out[name] = self.value(depth + 1)
        return _joined(out) if CHUNKED in out else out


def _extension(number: int, content: memoryview, depth: int) -> Any:
    reader = _Reader(content)
    parts = reader.value(depth) if number in (1, 2, 3) else None
    if not isinstance(parts, list) or reader.at != len(content):
        raise ArrayError(f"extension {number} is none of flax's, or is damaged")
    match parts:
        case [list(shape), str(dtype), memoryview() as numbers] if number != 2:
            return Array.of(shape, dtype, [numbers])
        case [float(real), float(imaginary)] if number == 2:
            return complex(real, imaginary)
    raise ArrayError(f"extension {number} is damaged")


def _joined(chunked: Mapping[str, Any]) -> Array:
    """The array whose parts stand in a map."""
    shape, chunks = _listed(chunked.get("shape")), _listed(chunked.get("chunks"))
    if not chunks or not all(isinstance(chunk, Array) for chunk in chunks):
        raise ArrayError("an array in chunks lacks them")
    dtypes = {chunk.header.dtype for chunk in chunks}
    if len(dtypes) > 1:
        raise ArrayError("an array in chunks has chunks of several types")
    pieces = [piece for chunk in chunks for piece in chunk.pieces]
    return Array.of(shape, dtypes.pop().removeprefix("torch."), pieces)


def _listed(table: Any) -> list[Any]:
    """The values of "0", "1", … in a map."""
    if not isinstance(table, dict) or set(table) != {str(i) for i in range(len(table))}:
        raise ArrayError("an array in chunks is damaged")
    return [table[str(i)] for i in range(len(table))]
