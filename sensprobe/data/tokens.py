"""From text to the tokens a model reads, and back.

A tokenizer belongs to the model: data is read with it. It says of every token where in the text it
ends, so that a loss can be counted by byte whatever the tokens are.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from sensprobe.documents import DocumentError, read_json
from sensprobe.errors import DataError

FILE = "tokenizer.json"
SETTINGS = "tokenizer_config.json"
BYTE_VALUES = 256
TEXT_EDGES = ("<|endoftext|>", "<s>", "<bos>", "<|begin_of_text|>", "</s>", "<eos>")
"""What tokenizers call the token that stands between two texts, where their settings do not say."""


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

    def decode(self, tokens: Sequence[int]) -> str:
        """The text of tokens; bytes that are no character yet are shown as U+FFFD."""
        ...

    def start(self, text: str) -> tuple[int, ...]:
        """What stands before a text that nothing precedes. DataError where no token says so."""
        ...

    @property
    def end(self) -> int | None:
        """What ends a text; None where no token does."""
        ...


@dataclass(frozen=True, slots=True)
class ByteTokenizer:
    """A token is a byte. A text starts as a sentence does, after another's full stop and a space: a
    newline alone may as well stand inside one, where lines are wrapped. A text that begins with the
    space brings it. No byte ends a text."""

    name: str = "bytes"
    size: int = BYTE_VALUES
    file: None = None
    end: None = None

    def encode(self, content: bytes) -> tuple[np.ndarray, np.ndarray]:
        tokens = np.frombuffer(content, np.uint8).astype(np.int32)
        return tokens, np.arange(1, len(tokens) + 1)

    def decode(self, tokens: Sequence[int]) -> str:
        return bytes(tokens).decode("utf-8", "replace")

    def start(self, text: str) -> tuple[int, ...]:
        return tuple(b"." if text[:1].isspace() else b". ")


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

    def decode(self, tokens: Sequence[int]) -> str:
        return str(_read(self.file).decode(list(tokens), skip_special_tokens=True))

    def start(self, text: str) -> tuple[int, ...]:
        """The token that its settings call bos, else eos, else one of `TEXT_EDGES`."""
        return (self._edge("bos_token", "eos_token"),)

    @property
    def end(self) -> int:
        return self._edge("eos_token", "bos_token")

    def _edge(self, *settings: str) -> int:
        named = _settings(self.file)
        for name in (*(named[key] for key in settings if key in named), *TEXT_EDGES):
            if (token := _read(self.file).token_to_id(name)) is not None:
                return int(token)
        raise DataError(
            f"{self.file} has no token that stands between texts (looked for "
            f"{', '.join(TEXT_EDGES)}). Name it as bos_token in {SETTINGS} beside it."
        )


def _settings(file: Path) -> dict[str, str]:
    """Names of special tokens that the file beside a tokenizer gives; none where there is none."""
    beside = file.with_name(SETTINGS)
    if not beside.is_file():
        return {}
    try:
        known = read_json(beside, infinite=True)
    except DocumentError as error:
        raise DataError(f"{beside} cannot be read ({error}); copy it again") from None
    if not isinstance(known, dict):
        raise DataError(f"{beside} holds no settings (a JSON object); copy it again")
    plain = {key: v.get("content") if isinstance(v, dict) else v for key, v in known.items()}
    return {key: value for key, value in plain.items() if isinstance(value, str)}


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
