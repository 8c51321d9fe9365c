"""From text to the tokens a model reads.

A tokenizer belongs to the model: data is read with it. It says of every token where in the text it
ends, so that a loss can be counted by byte whatever the tokens are.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from sensprobe.errors import DataError

FILE = "tokenizer.json"
BYTE_VALUES = 256


class Tokenizer(Protocol):
    """Reads text as whole numbers below `size`."""

    @property
    def name(self) -> str: ...

    @property
    def size(self) -> int: ...

    @property
    def file(self) -> Path | None:
        """What it was read from; None where it needs no file."""
        ...

    def encode(self, content: bytes) -> tuple[np.ndarray, np.ndarray]:
        """tokens (n,) int32 of UTF-8 text, and bytes of it up to the end of each (n,) int64."""
        ...


@dataclass(frozen=True, slots=True)
class ByteTokenizer:
    """A token is a byte."""

    name: str = "bytes"
    size: int = BYTE_VALUES
    file: None = None

    def encode(self, content: bytes) -> tuple[np.ndarray, np.ndarray]:
        tokens = np.frombuffer(content, np.uint8).astype(np.int32)
        return tokens, np.arange(1, len(tokens) + 1)


@dataclass(frozen=True, slots=True)
class FileTokenizer:
    """A Hugging Face tokenizer.json; read on first use, with the package `tokenizers`."""

    file: Path

    @property
    def name(self) -> str:
        return str(self.file)

    @property
    def size(self) -> int:
        """One more than its largest id."""
        return max(_read(self.file).get_vocab(with_added_tokens=True).values()) + 1

    def encode(self, content: bytes) -> tuple[np.ndarray, np.ndarray]:
        """Nothing is put before or after the text. A character in several tokens ends in the first;
        what belongs to no token (spaces that a tokenizer drops) ends in the token after it."""
        text = content.decode("utf-8")
        encoded = _read(self.file).encode(text, add_special_tokens=False)
        widths = [len(character.encode()) for character in text] if len(text) < len(content) else 1
        ends = np.cumsum(np.broadcast_to(widths, len(text)))
        last = np.array([stop for _, stop in encoded.offsets], dtype=np.int64)
        reached = np.maximum.accumulate(np.where(last > 0, ends[last - 1], 0))
        return np.array(encoded.ids, dtype=np.int32), reached.astype(np.int64)


@cache
def _read(path: Path) -> Any:
    try:
        from tokenizers import Tokenizer as Reader
    except ImportError:
        raise DataError(
            f"{path} needs the package `tokenizers`, which is not installed: pip install -e '.[lm]'"
        ) from None
    try:
        return Reader.from_file(str(path))
    except Exception as error:  # what the reader raises for a damaged file is a bare Exception
        raise DataError(
            f"{path} is not a tokenizer that `tokenizers` reads ({error}); copy it again"
        ) from None
