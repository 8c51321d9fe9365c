"""Bytes of a file, and JSON or TOML of bytes, within limits.

A document is a regular file: a folder, a pipe or a device in its place is refused before anything
waits for it. Its size is limited before it is read, its nesting before anything recurses into it,
and numbers to what arithmetic here can hold. A key that stands twice in one object is refused,
because readers differ in which of the two they take.
"""

from __future__ import annotations

import json
import os
import re
import stat
import tomllib
from collections.abc import Callable
from math import isfinite
from pathlib import Path
from typing import Any

import numpy as np

SMALL = 16 * 2**20
"""Bytes of a config, a manifest, a plan: what people write, or a model's list of tensors."""
LARGE = 2**30
"""Bytes of a result: a search of 10,000 plans of 1,000 sites stays below it."""
TOML = 2**20
DEPTH = 64
"""Objects and lists inside each other. The deepest document here has 8."""
DIGITS = 40
"""Digits of a whole number, at most. transformers writes 10^30 for "no limit"."""
DOTTED = 32
"""Parts of a dotted key of TOML. Its reader takes time quadratic in them."""

_STRING = re.compile(rb'"[^"\\]*(?:\\.[^"\\]*)*"', re.DOTALL)
_STEPS = np.zeros(256, np.int8)
_STEPS[list(b"[{")], _STEPS[list(b"]}")] = 1, -1
_QUOTE = ord('"')
_OTHERS = bytes(sorted({*range(256)} - {*b'[]{}"'}))
_LONG_KEY = re.compile(rf"(?:[\w\"'-]+[ \t]*\.[ \t]*){{{DOTTED}}}")


class DocumentError(ValueError):
    """A document cannot be used; its text says why and follows the name of the file."""


class AbsentError(DocumentError):
    """There is no such file."""


def content_of(path: Path, limit: int = SMALL) -> bytes:
    """The bytes of a regular file of at most `limit` bytes."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except (FileNotFoundError, NotADirectoryError) as error:
        raise AbsentError("there is no such file") from error
    except (OSError, ValueError) as error:  # ValueError: a name that no file can have
        raise DocumentError(_reason(error)) from None
    try:
        about = os.fstat(descriptor)
        if not stat.S_ISREG(about.st_mode):
            kind = "a folder" if stat.S_ISDIR(about.st_mode) else "a pipe or a device"
            raise DocumentError(f"it is {kind}, not a file")
        if about.st_size > limit:
            raise DocumentError(f"it has {about.st_size:,} bytes, and at most {limit:,} are read")
        with os.fdopen(os.dup(descriptor), "rb") as file:
            content = file.read(limit + 1)
    except OSError as error:
        raise DocumentError(_reason(error)) from None
    finally:
        os.close(descriptor)
    if len(content) > limit:
        raise DocumentError(f"it grew past {limit:,} bytes, and no more are read")
    return content


def _reason(error: Exception) -> str:
    return getattr(error, "strerror", None) or str(error)


def read_json(path: Path, limit: int = SMALL, *, infinite: bool = False) -> Any:
    """The value that a JSON file holds; see `json_of`."""
    return json_of(content_of(path, limit), infinite=infinite)


def json_of(content: bytes | str, *, infinite: bool = False) -> Any:
    """The value that JSON text stands for; `infinite` also takes NaN and Infinity, as Python
    writes them."""
    raw = content.encode("utf-8", "surrogatepass") if isinstance(content, str) else content
    _require_shallow(raw)
    try:
        text = raw.decode("utf-8-sig")
        return (_LENIENT if infinite else _STRICT).decode(text)
    except UnicodeDecodeError as error:
        raise DocumentError(f"it is not UTF-8 text (byte {error.start})") from None
    except json.JSONDecodeError as error:
        where = f"line {error.lineno}, column {error.colno}"
        raise DocumentError(f"it is not JSON ({error.msg}, {where})") from None
    except RecursionError:
        raise DocumentError(_TOO_DEEP) from None


_TOO_DEEP = f"it is nested deeper than {DEPTH}"


def _require_shallow(raw: bytes) -> None:
    """Refuses nesting before a reader recurses. Brackets inside texts do not count."""
    if raw.count(b"[") + raw.count(b"{") <= DEPTH:
        return
    if b"\\" in raw:  # a quote after one ends no text
        raw = _STRING.sub(b"", raw)
    marks = np.frombuffer(raw.translate(None, _OTHERS), np.uint8)
    outside = np.cumsum(marks == _QUOTE, dtype=np.uint8) % 2 == 0
    if np.cumsum(_STEPS[marks[outside]], dtype=np.int64).max(initial=0) > DEPTH:
        raise DocumentError(_TOO_DEEP)


def _whole(text: str) -> int:
    if len(text) > DIGITS:
        raise DocumentError(f"it has a number of {len(text):,} digits")
    return int(text)


def _real(text: str) -> float:
    value = float(text)
    if not isfinite(value):
        raise DocumentError(f"it has the number {text[:24]}, which no float holds")
    return value


def _constant(text: str) -> float:
    raise DocumentError(f"it has {text}, which JSON does not know")


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        seen: set[str] = set()
        twice = next(key for key, _ in pairs if key in seen or seen.add(key))  # type: ignore[func-returns-value]
        raise DocumentError(f"it has the key {shown(twice)} twice in one object")
    return found


_STRICT = json.JSONDecoder(
    parse_int=_whole, parse_float=_real, parse_constant=_constant, object_pairs_hook=_object
)
_LENIENT = json.JSONDecoder(parse_int=_whole, object_pairs_hook=_object)


def read_toml(path: Path) -> dict[str, Any]:
    """The tables that a TOML file holds."""
    content = content_of(path, TOML)
    try:
        text = content.decode("utf-8-sig")
        if _LONG_KEY.search(text):
            raise DocumentError(f"it has a key of more than {DOTTED} parts")
        document = tomllib.loads(text, parse_float=_real_of_toml)
    except UnicodeDecodeError as error:
        raise DocumentError(f"it is not UTF-8 text (byte {error.start})") from None
    except RecursionError:
        raise DocumentError(_TOO_DEEP) from None
    except DocumentError:
        raise
    except ValueError as error:  # tomllib's own, and Python's of a number of thousands of digits
        raise DocumentError(shown(error, 200)) from None
    _require_plain(document)
    return document


def _real_of_toml(text: str) -> float:
    """A float; `inf` and `nan`, which TOML has words for, stay what they are."""
    value = float(text)
    return value if text.strip("+-") in ("inf", "nan") else _real(text)


def _require_plain(document: Any) -> None:
    """Refuses nesting and whole numbers beyond what this package holds."""
    level, values = 0, [document]
    while values:
        level += 1
        if level > DEPTH:
            raise DocumentError(_TOO_DEEP)
        if any(type(v) is int and abs(v) >= 10**DIGITS for v in values):
            raise DocumentError(f"it has a number of more than {DIGITS} digits")
        values = [inner for value in values for inner in _inside(value)]


def _inside(value: Any) -> list[Any]:
    if isinstance(value, dict):
        return list(value.values())
    return value if isinstance(value, list) else []


_OBEYED = re.compile(
    "[\x00-\x09\x0b-\x1f\x7f-\x9f\u061c\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff\ud800-\udfff]"
)


def printable(text: str) -> str:
    """Text without what a terminal would act on: control characters other than the end of a line,
    and signs that turn the direction of writing."""
    return _OBEYED.sub("�", text)


def shown(value: object, most: int = 80, form: Callable[[object], str] = str) -> str:
    """Text of a document as a message may show it: short, in one line, no control characters."""
    text = value if isinstance(value, str) else form(value)
    kept = "".join(c if c.isprintable() else "�" for c in text[: most + 1])
    return kept if len(kept) <= most else kept[: most - 1] + "…"
