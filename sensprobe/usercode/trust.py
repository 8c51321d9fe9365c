"""Trust in code: what this user named on this machine may run, as it was then.

Code that a command line (or a caller of the API) names is run. Code that only a file names, as the
run.json of a run that somebody else made, is run where this user named it before or allowed it, and
nothing of it has changed since: neither the file nor what it imports from below its folder. A
function is allowed, not all of its file. That is remembered for the user, outside every run:

    $SENSPROBE_TRUST, else $XDG_STATE_HOME/sensprobe/allowed-code.json (~/.local/state/…)
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import stat
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from sensprobe.documents.files import disk_errors, strict_json, write_whole
from sensprobe.errors import CodeError, SensprobeError
from sensprobe.progress import SILENT, Progress
from sensprobe.usercode.code import PREFIX, Code, Files, files_of, parsed

VARIABLE = "SENSPROBE_TRUST"
VERSION = 1


class Gate(Protocol):
    """Asked before code runs, and told afterwards what ran: path -> what that was made of."""

    ran_files: dict[str, Files]

    def check(self, path: Path, name: str) -> Mapping[str, str] | None:
        """The files that may run for a function of a file; None for any, CodeError for none."""

    def ran(self, code: Code, name: str) -> None:
        """A function was loaded, and called where it gives data."""


@dataclass(slots=True)
class Named:
    """Lets run what the user names now. With `remember` it may run later where a file names it."""

    remember: bool = False
    progress: Progress = SILENT
    ran_files: dict[str, Files] = field(default_factory=dict)  # path -> what ran, in `Code.files`

    def check(self, path: Path, name: str) -> Mapping[str, str] | None:
        return None

    def ran(self, code: Code, name: str) -> None:
        self.ran_files[str(code.path)] = dict(code.files)
        if self.remember:
            _remember(code, name, self.progress)


@dataclass(slots=True)
class Remembered:
    """Lets run what the user named or allowed before, of the code that `origin` names.

    `allow` is the user's word for now: what runs is remembered.
    """

    origin: str
    allow: bool = False
    progress: Progress = SILENT
    ran_files: dict[str, Files] = field(default_factory=dict)

    def check(self, path: Path, name: str) -> Mapping[str, str] | None:
        if self.allow:
            return None
        known = allowed(path, name)
        try:
            regular = stat.S_ISREG(path.stat().st_mode) and path.suffix == ".py"
            now = files_of(path) if regular else Files()
        except OSError as error:
            raise self._unreadable(path, str(error.strerror)) from error
        if not now:
            raise self._unreadable(path, "it is not a Python file")
        if known is None or not now.items() <= known.items():
            raise CodeError(_refusal(self.origin, path, name, known, now))
        return known

    def _unreadable(self, path: Path, why: str) -> CodeError:
        return CodeError(
            f"{_shown(self.origin)} names code of {_shown(str(path))}, which cannot be read "
            f"({why}). Put it back where it was, or name it as it is called now, with a new run."
        )

    def ran(self, code: Code, name: str) -> None:
        self.ran_files[str(code.path)] = dict(code.files)
        if self.allow:
            _remember(code, name, self.progress)


def check_settings(settings: Mapping[str, Any], gate: Gate) -> None:
    """Asks a gate about the code that a run's settings name, before anything is loaded."""
    for key in ("data", "metric"):
        spec = settings.get(key)
        if isinstance(spec, str) and spec.startswith(PREFIX):
            gate.check(*parsed(spec))


def _refusal(
    origin: str, path: Path, name: str, known: Mapping[str, str] | None, now: Mapping[str, str]
) -> str:
    """The error's text: what would run, why it does not, and how to allow it."""
    others = [file for file in sorted(now) if file != path.name]
    beside = f", and with it {_few(others)}" if others else ""
    if known is None:
        why = "This user has not named or allowed it on this machine"
    else:
        changed = [file for file in sorted(now) if known.get(file) not in (None, now[file])]
        new = [file for file in sorted(now) if file not in known]
        said = [f"{_few(files)} {how}" for files, how in ((changed, "changed"), (new, "is new"))
                if files]  # fmt: skip
        why = f"It was allowed before, and since then {' and '.join(said)}"
    return (
        f"{_shown(origin)} names code to run: {name}() of {_shown(str(path))} "
        f"(sha256 {now[path.name][:12]}…)"
        f"{beside}. {why}, so nothing was run. Read it, and where you trust it give the same "
        "command --allow-code (in Python allow_code=True); that is remembered until it changes."
    )


def _shown(name: str) -> str:
    """A name that a stranger may have chosen: what would move a terminal's cursor is spelt out."""
    return name if name.isprintable() else ascii(name)


def _few(files: list[str]) -> str:
    return ", ".join(map(_shown, files[:5])) + (
        f" and {len(files) - 5} more" if len(files) > 5 else ""
    )


# -- what is remembered ---------------------------------------------------------------------------


def store() -> Path:
    """The file in which this user's allowed code is remembered."""
    if named := os.environ.get(VARIABLE):
        return Path(named).expanduser()
    state = os.environ.get("XDG_STATE_HOME", "")
    base = Path(state) if os.path.isabs(state) else Path("~/.local/state").expanduser()
    return base / "sensprobe" / "allowed-code.json"


def allowed(path: Path, name: str) -> Files | None:
    """The hashes of an allowed function's files; None for one that is not allowed."""
    return _read().get(f"{path}:{name}")


def allow(code: Code, name: str) -> None:
    """Remembers that a function of this code, as it is now, may run. RunError where that cannot
    be written."""
    place = store()
    with disk_errors(place, "writing"):
        place.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    with _alone(place):
        known = _read()
        key = f"{code.path}:{name}"
        if known.get(key) != code.files:
            known[key] = dict(code.files)
            write_whole(place, strict_json({"version": VERSION, "allowed": known}), mode=0o600)


def _remember(code: Code, name: str, progress: Progress) -> None:
    """Calls `allow`, but goes on without remembering where the file cannot be written."""
    try:
        allow(code, name)
    except SensprobeError as error:
        progress.note(
            f"that {code.path.name} may run is not remembered ({error}); later commands on this "
            "run need --allow-code"
        )


@contextlib.contextmanager
def _alone(place: Path) -> Iterator[None]:
    """Two commands that remember something at once both do."""
    path = place.with_name(f".{place.name}.lock")
    with disk_errors(path, "creating"):
        lock = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
    finally:
        os.close(lock)


def _read() -> dict[str, Files]:
    """All that is remembered; nothing where the file is damaged or others can write it."""
    place = store()
    try:
        with place.open("rb") as file:
            about = os.fstat(file.fileno())
            if not stat.S_ISREG(about.st_mode) or about.st_uid != os.geteuid():
                return {}
            if about.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
                return {}
            document = json.load(file)
        found = document["allowed"]
        if document["version"] != VERSION:
            return {}
        return {
            key: {str(name): str(mark) for name, mark in files.items()}
            for key, files in found.items()
        }
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return {}
