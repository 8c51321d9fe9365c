"""Files that are whole or absent, and what to tell a user when a disk refuses.

A whole file is written beside its place under a temporary name, synced, and moved into place in one
step. Nobody, at any moment, sees half of it.
"""

from __future__ import annotations

import contextlib
import errno
import json
import math
import os
import re
import secrets
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from sensprobe.errors import RunError, UsageError

TEMPORARY = ".tmp"
NAMES = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.+-]{0,199}")
"""Names that may come from a document into a file's."""
FULL = (errno.ENOSPC, errno.EDQUOT)
FORBIDDEN = (errno.EACCES, errno.EPERM, errno.EROFS)


@contextlib.contextmanager
def disk_errors(path: Path, doing: str) -> Iterator[None]:
    """Turns an `OSError` into a `RunError` that says what to do about it."""
    try:
        yield
    except OSError as error:
        reason = error.strerror or str(error)
        if error.errno in FULL:
            advice = (
                "the disk is full; free some space and run the same command again, "
                "what was finished before is kept"
            )
        elif error.errno in FORBIDDEN:
            advice = f"permission is lacking ({reason}); choose a folder you can write to"
        else:
            advice = f"{reason}; check the disk and run the same command again"
        raise RunError(f"{doing} {path} failed: {advice}") from error


def named_path(name: str | Path) -> Path:
    """The path that a user, or a document, names: ~ stands for a home where there is such a
    user. UsageError for text that cannot be a file's name."""
    try:
        path = Path(os.path.expanduser(name))
        parts = [os.fsencode(part) for part in path.parts]
    except UnicodeError:
        parts = [b"\0"]
    sizes = [len(part) + 1 for part in parts]
    if max(sizes, default=0) > 256 or sum(sizes) > 3500 or any(b"\0" in part for part in parts):
        raise UsageError(f"no file can be called {str(name)[:60]!r}: name one that there is.")
    return path


def require_no_link(path: Path) -> Path:
    """`path`, a file or folder that is written to: RunError where it is a link, whose target lies
    who knows where, as that of a run from someone else may."""
    if path.is_symlink():
        raise RunError(
            f"{path} is a link to {os.readlink(path)}, and nothing is written through links. Put "
            "the file or folder itself there, or remove the link."
        )
    return path


def write_whole(path: Path, content: bytes, mode: int = 0o666) -> None:
    """Replaces the file `path`; on a disk error it stays as it was and `RunError` is raised."""
    with disk_errors(path, "writing"), _temporary(path, content, mode) as draft:
        os.replace(draft, path)


def create_whole(path: Path, content: bytes) -> bool:
    """Creates `path`; returns False where it exists already. Safe if several processes try."""
    with disk_errors(path, "writing"), _temporary(path, content) as draft:
        try:
            os.link(draft, path)
        except FileExistsError:
            return False
        return True


def inside(folder: Path, name: str) -> Path:
    """`folder`/`name`, where a name that may come from a document stays in its folder: RunError for
    separators, a leading dot, and a link."""
    if not NAMES.fullmatch(name):
        raise RunError(
            f"{name[:80]!r} cannot name a file in {folder}: use letters, digits, - _ + ."
        )
    return require_no_link(folder / name)


@contextlib.contextmanager
def _temporary(path: Path, content: bytes, mode: int = 0o666) -> Iterator[Path]:
    """Yields a synced draft next to `path`, which is removed afterwards in any case."""
    draft = path.with_name(f".{path.name}.{os.getpid()}.{secrets.token_hex(4)}{TEMPORARY}")
    try:
        write_new(draft, content, mode)
        yield draft
    finally:
        with contextlib.suppress(FileNotFoundError):
            draft.unlink()


def write_new(path: Path, content: bytes, mode: int = 0o666) -> None:
    """A file that was not there before, synced; an `OSError` may leave part of it."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
    try:
        write_all(descriptor, content)
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_all(descriptor: int, content: bytes) -> None:
    """One `os.write` where the system takes all at once, which for a file it does."""
    view = memoryview(content)
    while view:
        view = view[os.write(descriptor, view) :]


def is_draft(path: Path) -> bool:
    """True if a file is a draft of `write_whole`, left by a process that was killed."""
    return path.name.startswith(".") and path.name.endswith(TEMPORARY)


def plain(value: Any) -> Any:
    """numpy scalars and arrays and paths as JSON values, for `json.dumps(default=...)`."""
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, np.ndarray):
        return value.tolist()
    if isinstance(value, Path):
        return str(value)
    raise TypeError(f"{type(value).__name__} has no JSON form")


def strict_json(data: Any) -> bytes:
    """JSON that every reader accepts: a number that is not finite becomes null."""
    text = json.dumps(_finite(data), indent=1, allow_nan=False, ensure_ascii=False)
    return (text + "\n").encode()


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(key): _finite(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(item) for item in value]
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if value is None or isinstance(value, (str, int)):
        return value
    return _finite(plain(value))


def between(text: str, begin: str, end: str, content: str) -> str:
    """A document with what stands between two markers made anew; ValueError where one lacks."""
    before, first, rest = text.partition(begin)
    _, last, after = rest.partition(end)
    if not (first and last):
        raise ValueError(f"the markers {begin} and {end} are not there")
    return f"{before}{begin}\n\n{content}\n\n{end}{after}"
