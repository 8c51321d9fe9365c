"""The options of a spec, which follow what it names: `text:FILE,length=512,part=train`."""

from __future__ import annotations

from collections.abc import Mapping
from difflib import get_close_matches
from typing import NamedTuple

from sensprobe.documents import shown
from sensprobe.documents.files import named_path
from sensprobe.errors import UsageError

DIGITS = 9
"""The most digits that a whole number may have."""


class Options(NamedTuple):
    """The options that a spec gives: those that are words, and those that are whole numbers."""

    words: dict[str, str]
    numbers: dict[str, int]


def split_options(rest: str) -> tuple[str, str]:
    """`FILE,length=512` -> (FILE, ",length=512"). If the whole text is a path that exists, there
    are no options."""
    path = rest
    while "=" in path.rpartition(",")[2] and "," in path and not named_path(path).exists():
        path = path.rpartition(",")[0]
    return path, rest[len(path) :]


def read_options(
    text: str,
    spec: str,
    *,
    words: Mapping[str, tuple[str, ...]] | None = None,
    numbers: tuple[str, ...] = (),
) -> Options:
    """`,length=512,part=train`, checked: `words` has what each word may be. UsageError for an
    option or a word that there is not."""
    found = Options({}, {})
    known = (*numbers, *(words := words or {}))
    for item in text.split(",")[1:]:
        key, _, value = item.partition("=")
        if key not in known:
            near = get_close_matches(key, known, n=1)
            hint = f"did you mean {near[0]}? " if near else ""
            raise UsageError(f"{spec}: no option {item!r}; {hint}Its options: {', '.join(known)}.")
        if key in words:
            if value not in words[key]:
                raise UsageError(f"{spec}: {item}: there are {', '.join(words[key])}.")
            found.words[key] = value
        elif value.isdecimal() and len(value) <= DIGITS:
            found.numbers[key] = int(value)
        else:
            raise UsageError(
                f"{shown(spec)}: {shown(item)}: give a whole number of at most {DIGITS} digits."
            )
    return found
