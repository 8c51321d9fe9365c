"""The tokens that start, end and fill up a text, from the documents beside a tokenizer.json.

As transformers 5 reads them:

    names   bos_token, eos_token, pad_token of tokenizer_config.json; special_tokens_map.json
            overrides them unless the former lists its `added_tokens_decoder`
    ids     bos_token_id, eos_token_id (one or a list), pad_token_id of generation_config.json, else
            of config.json

`add_bos_token` and `add_eos_token` are not read: beside a tokenizer.json its own post-processor
says what it puts around a text.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from sensprobe.documents import DocumentError, read_json
from sensprobe.errors import DataError

SETTINGS = "tokenizer_config.json"
NAMES = "special_tokens_map.json"
ADDED = "added_tokens.json"
GENERATION = "generation_config.json"
MODEL = "config.json"
TRAVELLING = (SETTINGS, NAMES, ADDED, GENERATION)
"""The documents that an export takes along with the tokenizer.json."""
ROLES = ("bos", "eos", "pad")
IDS = tuple(f"{role}_token_id" for role in ROLES)
REBUILT = "GPTNeoXTokenizer"
"""A tokenizer class of transformers that adds no tokens around a text, even if the
tokenizer.json does."""

Ids = Mapping[str, tuple[int, ...]]


@dataclass(frozen=True, slots=True)
class Special:
    """Special tokens by role (bos, eos, pad): `names` as text, `ids` in the order given.

    `bare` means that no tokens are put around a text although the tokenizer.json names some.
    """

    names: Mapping[str, str]
    ids: Ids
    bare: bool = False


def special_tokens(folder: Path) -> Special:
    """The special tokens that the documents in a folder name; DataError names a damaged one."""
    return _read(folder, tuple(_mark(folder / name) for name in (*TRAVELLING, MODEL)))


@lru_cache(maxsize=64)
def _read(folder: Path, marks: tuple[Any, ...]) -> Special:
    """`marks` tell one state of the files from another."""
    settings, names = (_document(folder / name) or {} for name in (SETTINGS, NAMES))
    named = _names(settings)
    if "added_tokens_decoder" not in settings:
        named |= _names(names)
    ids: dict[str, tuple[int, ...]] = {}
    for file in (folder / GENERATION, folder / MODEL):
        for role, found in token_ids(file).items():
            ids.setdefault(role, found)
    kind = settings.get("tokenizer_class")
    return Special(named, ids, isinstance(kind, str) and kind.startswith(REBUILT))


def token_ids(file: Path) -> dict[str, tuple[int, ...]]:
    """Role -> ids in a config.json or generation_config.json; roles it says nothing of are absent.

    DataError for one that is no whole number. A negative one stands for none.
    """
    document = _document(file) or {}
    out = {}
    for role in ROLES:
        value = document.get(f"{role}_token_id")
        several = value if isinstance(value, list) else [] if value is None else [value]
        if wrong := [one for one in several if type(one) is not int]:
            raise DataError(
                f"{file}: {role}_token_id is {str(value)[:60]}, and {str(wrong[0])[:60]} is no "
                "token's number; correct it, or copy the file again"
            )
        if kept := tuple(one for one in several if one >= 0):
            out[role] = kept
    return out


def travelling(folder: Path) -> dict[str, bytes]:
    """Content of the documents that go with a tokenizer.json, of those that are there, as they
    stand."""
    present = (folder / name for name in TRAVELLING)
    return {file.name: file.read_bytes() for file in present if _document(file) is not None}


def generation_document(folder: Path) -> bytes | None:
    """A generation_config.json with the ids of a folder's own and of its config.json; None where
    neither has any. An exported folder, which has no such config.json, starts and stops texts by
    it."""
    known, own = token_ids(folder / MODEL), token_ids(folder / GENERATION)
    missing = {f"{role}_token_id": as_written(known[role]) for role in known if role not in own}
    document = (_document(folder / GENERATION) or {}) | missing
    return (json.dumps(document, indent=1) + "\n").encode() if document else None


def model_ids(folder: Path) -> dict[str, Any] | None:
    """bos_token_id, eos_token_id and pad_token_id as a config.json of transformers has them, of
    those it has; None where there is no such file."""
    document = _document(folder / MODEL)
    if document is None or not isinstance(document.get("model_type"), str):
        return None
    token_ids(folder / MODEL)
    return {key: document[key] for key in IDS if key in document}


def as_written(ids: tuple[int, ...]) -> int | list[int]:
    """One id, or the list of several."""
    return ids[0] if len(ids) == 1 else list(ids)


def _names(document: Mapping[str, Any]) -> dict[str, str]:
    found = {role: document.get(f"{role}_token") for role in ROLES}
    plain = {role: v.get("content") if isinstance(v, dict) else v for role, v in found.items()}
    return {role: value for role, value in plain.items() if isinstance(value, str)}


def _document(file: Path) -> dict[str, Any] | None:
    """The JSON object in a file, None where there is no file; DataError where it is none."""
    if not file.is_file():
        return None
    try:
        found = read_json(file, infinite=True)
    except DocumentError as error:
        raise DataError(f"{file} cannot be read ({error}); copy it again") from None
    if not isinstance(found, dict):
        raise DataError(f"{file} holds no settings (a JSON object); copy it again")
    return found


def _mark(file: Path) -> tuple[int, int] | None:
    try:
        found = file.stat()
    except OSError:
        return None
    return found.st_mtime_ns, found.st_size
