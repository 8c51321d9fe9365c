"""From text to the tokens a model reads, and back.

A tokenizer belongs to the model: data is read with it. It tells where in the text each token ends,
so that a loss can be counted by byte for any tokenizer.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from sensprobe.data.special import SETTINGS, special_tokens
from sensprobe.errors import DataError

BYTE_VALUES = 256
TEXT_EDGES = ("<|endoftext|>", "<s>", "<bos>", "<|begin_of_text|>", "</s>", "<eos>")
"""The names of the token that stands between two texts, tried where the settings do not say."""
PROBES = ("a", "0", "the", ".")
"""Probe texts, of which at least one has tokens in any tokenizer: they show what it puts around
a text."""


class Tokenizer(Protocol):
    """Reads text as whole numbers below `size`."""

    @property
    def name(self) -> str: ...

    @property
    def size(self) -> int: ...

    @property
    def file(self) -> Path | None:
        """The file it was read from; None where it needs no file."""
        ...

    def encode(self, content: bytes) -> tuple[np.ndarray, np.ndarray]:
        """tokens (n,) int32 of UTF-8 text, and bytes of it up to the end of each (n,) int64."""
        ...

    def decode(self, tokens: Sequence[int]) -> str:
        """The text of tokens; bytes that are no character yet are shown as U+FFFD."""
        ...

    @property
    def added(self) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """The tokens that the tokenizer itself puts before and after every text; mostly none."""
        ...

    def start(self, text: str) -> tuple[int, ...]:
        """The token before a text that nothing precedes. DataError where no token says so."""
        ...

    @property
    def ends(self) -> tuple[int, ...]:
        """The tokens that end a text, any of them; empty where none does."""
        ...

    @property
    def end(self) -> int | None:
        """The first of those; None where there is none."""
        ...

    def named(self, role: str) -> tuple[int, ...]:
        """The token that its own settings name bos, eos or pad; empty where they name none."""
        ...


@dataclass(frozen=True, slots=True)
class ByteTokenizer:
    """A token is a byte. A text starts as a sentence does, after another's full stop and a space: a
    newline alone may as well stand inside one, where lines are wrapped. A text that begins with the
    space brings it. No byte ends a text."""

    name: str = "bytes"
    size: int = BYTE_VALUES
    file: None = None
    added: tuple[tuple[int, ...], tuple[int, ...]] = ((), ())
    ends: tuple[int, ...] = ()
    end: None = None

    def encode(self, content: bytes) -> tuple[np.ndarray, np.ndarray]:
        tokens = np.frombuffer(content, np.uint8).astype(np.int32)
        return tokens, np.arange(1, len(tokens) + 1)

    def decode(self, tokens: Sequence[int]) -> str:
        return bytes(tokens).decode("utf-8", "replace")

    def named(self, role: str) -> tuple[int, ...]:
        return ()

    def start(self, text: str) -> tuple[int, ...]:
        return tuple(b"." if text[:1].isspace() else b". ")


@dataclass(frozen=True, slots=True)
class FileTokenizer:
    """A Hugging Face tokenizer.json; read on first use, with the package `tokenizers`.

    Truncation and padding that the file keeps are ignored: a text is read whole, and nothing added.
    The documents beside it say which tokens start and end a text (see `special`).
    """

    file: Path

    @property
    def name(self) -> str:
        return str(self.file)

    @property
    def size(self) -> int:
        """One more than its largest id."""
        return max(_read(self.file).get_vocab(with_added_tokens=True).values()) + 1

    @property
    def added(self) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """The tokens its post-processor names; none for a class that transformers builds anew."""
        bare = special_tokens(self.file.parent).bare
        return ((), ()) if bare else _added(self.file)

    def encode(self, content: bytes) -> tuple[np.ndarray, np.ndarray]:
        """Nothing is put before or after the text. A character in several tokens ends in the first;
        what belongs to no token (spaces that a tokenizer drops) ends in the token after it."""
        text = _decoded(content)
        encoded = _read(self.file).encode(text, add_special_tokens=False)
        widths = [len(character.encode()) for character in text] if len(text) < len(content) else 1
        ends = np.cumsum(np.broadcast_to(widths, len(text)))
        last = np.array([stop for _, stop in encoded.offsets], dtype=np.int64)
        reached = np.maximum.accumulate(np.where(last > 0, ends[last - 1], 0))
        return np.array(encoded.ids, dtype=np.int32), reached.astype(np.int64)

    def decode(self, tokens: Sequence[int]) -> str:
        return str(_read(self.file).decode(list(tokens), skip_special_tokens=True))

    def start(self, text: str) -> tuple[int, ...]:
        """The token it puts before a text itself; else the token named bos, else that named eos,
        else bos or eos of generation_config.json or config.json, else one of `TEXT_EDGES`."""
        known = special_tokens(self.file.parent)
        own = self.added[0]
        found = own or self.named("bos") or self.named("eos")
        found = found or known.ids.get("bos", ())[:1] or known.ids.get("eos", ())[:1]
        if found := found or self._edge():
            return found
        raise DataError(
            f"{self.file} has no token that stands between texts (looked for "
            f"{', '.join(TEXT_EDGES)}). Name it as bos_token in {SETTINGS} beside it."
        )

    @property
    def ends(self) -> tuple[int, ...]:
        """eos of generation_config.json, else of config.json, else the token named eos, else that
        named bos, else one of `TEXT_EDGES`."""
        known = special_tokens(self.file.parent).ids.get("eos", ())
        return known or self.named("eos") or self.named("bos") or self._edge()

    @property
    def end(self) -> int | None:
        return next(iter(self.ends), None)

    def named(self, role: str) -> tuple[int, ...]:
        name = special_tokens(self.file.parent).names.get(role)
        token = None if name is None else _read(self.file).token_to_id(name)
        return () if token is None else (int(token),)

    def _edge(self) -> tuple[int, ...]:
        found = (_read(self.file).token_to_id(name) for name in TEXT_EDGES)
        return next(((int(token),) for token in found if token is not None), ())


def readable(text: str | bytes) -> str:
    """The text as UTF-8 can encode it: bytes of another encoding that a command line passed on,
    and halves of a surrogate pair, become U+FFFD."""
    if isinstance(text, bytes):
        return text.decode("utf-8", "replace")
    return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")


def require_fit(tokens: Sequence[int] | np.ndarray, known: int, name: str) -> None:
    """DataError where a token is beyond the embedding of a model of `known` tokens."""
    largest = int(np.max(tokens, initial=0))
    if largest >= known:
        raise DataError(
            f"the tokenizer of {name} does not fit: it makes tokens up to {largest}, the model "
            f"knows 0 to {known - 1}. Put the tokenizer.json of this very model into its folder, "
            "with the documents beside it."
        )


def _decoded(content: bytes) -> str:
    try:
        return content.decode("utf-8")
    except UnicodeDecodeError as error:
        raise DataError(
            f"the text is not UTF-8: byte {content[error.start]:#04x} at position {error.start:,} "
            "fits nowhere; save it as UTF-8"
        ) from None


@cache
def _read(path: Path) -> Any:
    try:
        from tokenizers import Tokenizer as Reader
    except ImportError:
        raise DataError(
            f"{path} needs the package `tokenizers`, which is not installed: pip install -e '.[lm]'"
        ) from None
    try:
        reader = Reader.from_file(str(path))
    except Exception as error:  # what the reader raises for a damaged file is a bare Exception
        raise DataError(
            f"{path} is not a tokenizer that `tokenizers` reads ({error}); copy it again"
        ) from None
    # Settings of whoever saved it, for batches of theirs.
    reader.no_truncation()
    reader.no_padding()
    return reader


@cache
def _added(path: Path) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """The tokens that a tokenizer's post-processor puts before and after a text."""
    reader = _read(path)
    if not reader.num_special_tokens_to_add(False):
        return (), ()
    for probe in PROBES:
        inner, whole = (reader.encode(probe, add_special_tokens=s).ids for s in (False, True))
        places = [k for k in range(len(whole)) if inner and whole[k : k + len(inner)] == inner]
        if places:
            return tuple(whole[: places[0]]), tuple(whole[places[0] + len(inner) :])
    return (), ()
