"""RUN/notes.json: tags and a note that a person gave a run.

A run may come from someone else, so what is read is bounded and is text: no control characters, and
never more than is written here.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from sensprobe.documents import AbsentError, DocumentError, printable, read_json
from sensprobe.documents.files import require_no_link, strict_json, write_whole
from sensprobe.errors import RunError, UsageError

NAME = "notes.json"
MOST_TAGS, TAG, TEXT = 12, 40, 2000
"""Tags of a run, and characters of a tag and of a note, at most."""
LARGEST = 2**16
"""Bytes of the file, at most."""


@dataclass(frozen=True, slots=True)
class Notes:
    """What a person says of a run."""

    tags: tuple[str, ...] = ()
    text: str = ""


def tags_of(text: str) -> tuple[str, ...]:
    """Tags that commas or lines part, each once, in order."""
    named = (" ".join(printable(tag).split()) for tag in re.split(r"[,\n]", text))
    return tuple(dict.fromkeys(tag for tag in named if tag))


def read_notes(folder: Path) -> Notes:
    """What is kept of a run; empty where nothing is. RunError where the file is no such document,
    or holds more than may be written."""
    path = folder / NAME
    try:
        document = read_json(path, LARGEST)
        tags, text = document["tags"], document["text"]
        if not isinstance(text, str) or not all(isinstance(tag, str) for tag in tags):
            raise DocumentError("its tags and its text are no texts")
        if problem := _too_much(tags, text):
            raise DocumentError(problem)
    except AbsentError:
        return Notes()
    except (DocumentError, KeyError, TypeError) as error:
        raise RunError(f"{path} cannot be read ({error}); delete it or write it anew") from error
    return Notes(tags_of("\n".join(tags)), printable(text))


def write_notes(folder: Path, notes: Notes) -> None:
    """Replaces what is kept of a run, as a whole. UsageError where it is too much; RunError where
    the file is a link or the disk refuses."""
    if problem := _too_much(notes.tags, notes.text):
        raise UsageError(problem)
    path = require_no_link(folder / NAME)
    write_whole(path, strict_json({"tags": list(notes.tags), "text": printable(notes.text)}))


def _too_much(tags: Sequence[str], text: str) -> str:
    if len(tags) > MOST_TAGS or any(len(tag) > TAG for tag in tags):
        return f"a run has at most {MOST_TAGS} tags of at most {TAG} characters"
    if len(text) > TEXT:
        return f"a note has at most {TEXT:,} characters, not {len(text):,}"
    return ""
