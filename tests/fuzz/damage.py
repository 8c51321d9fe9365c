"""Ways to damage a document, drawn from a seeded generator."""

from __future__ import annotations

import json
import os
import shutil
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from copy import deepcopy
from pathlib import Path
from random import Random
from typing import Any

SECONDS = 10
WAITING = 60
ODD: tuple[Any, ...] = (
    None, True, False, 0, -1, 1, 2, 7, 10**12, 10**30, -(10**30), 0.5, -0.0, 1e308, 1e-320, "", "x",
    "../../x", "/etc/passwd", "a\0b", "\x1b[31m", "<b>&amp;", "9" * 5000, "int8/head", "\ud800", [],
    {}, [[]], [None], {"a": {}}, [1, 2, 3], {"value": None, "stderr": None}, "layers.*.A", "state",
)  # fmt: skip
DEEP = ("[" * 10_000, '{"a":' * 10_000, "[" * 70 + "]" * 70)
LONG = ("9" * 5000, "-" + "9" * 400, "1e999", "NaN", "Infinity", "0." + "1" * 5000)


class TookTooLongError(BaseException):
    """Not an Exception, so that nothing on the way takes it for a damaged file."""


@contextmanager
def in_time() -> Iterator[None]:
    """Fails what computes for longer than `SECONDS`, or waits for `WAITING`: on a machine that does
    much else, what takes a second may take ten to come to its turn."""

    def stop(*_: object) -> None:
        raise TookTooLongError(f"longer than {SECONDS} s")

    timers = {
        signal.SIGPROF: (signal.ITIMER_PROF, SECONDS),
        signal.SIGALRM: (signal.ITIMER_REAL, WAITING),
    }
    before = {number: signal.signal(number, stop) for number in timers}
    for which, seconds in timers.values():
        signal.setitimer(which, seconds)
    try:
        yield
    finally:
        for number, (which, _) in timers.items():
            signal.setitimer(which, 0)
            signal.signal(number, before[number])


def require_short(error: Exception) -> None:
    """What is said of a damaged file is for a person to read, whatever the file holds."""
    if len(str(error)) >= 3000:
        raise AssertionError(f"a message of {len(str(error))} characters")


def places(document: Any) -> list[tuple[Any, Any]]:
    """Every (container, key) of a document."""
    found, waiting = [], [document]
    while waiting:
        value = waiting.pop()
        keys = list(value) if isinstance(value, dict) else range(len(value))
        for key in keys:
            found.append((value, key))
            if isinstance(value[key], dict | list):
                waiting.append(value[key])
    return found


def edited(document: Any, random: Random) -> bytes:
    """JSON of the document with one to three values replaced, dropped, doubled or renamed."""
    document = json.loads(json.dumps(document))
    for _ in range(random.choice((1, 1, 2, 3))):
        known = places(document)
        if not known:
            break
        holder, key = random.choice(known)
        match random.randrange(5):
            case 0:
                del holder[key]
            case 1 if isinstance(holder, list):
                holder.insert(random.randrange(len(holder) + 1), holder[key])
            case 2 if isinstance(holder, dict):
                holder[random.choice(("x", "", "name", key + "s"))] = holder.pop(key)
            case 3:
                other, theirs = random.choice(known)
                holder[key] = json.loads(
                    json.dumps(
                        other.get(theirs)
                        if isinstance(other, dict)
                        else other[theirs]
                        if theirs < len(other)
                        else 0
                    )
                )
            case _:
                holder[key] = deepcopy(random.choice(ODD))
    return json.dumps(document).encode("utf-8", "surrogatepass")


def scrambled(content: bytes, random: Random) -> bytes:
    """Bytes with a few flipped, cut short, or with something put in."""
    if not content:
        return b"\xff"
    at = random.randrange(len(content))
    match random.randrange(5):
        case 0:
            return content[:at]
        case 1:
            return content[:at] + random.choice(DEEP).encode() + content[at:]
        case 2:
            return content[:at] + random.choice(LONG).encode() + content[at + 1 :]
        case 3:
            return content[:at] + bytes([random.randrange(256)]) + content[at + 1 :]
        case _:
            end = min(len(content), at + random.randrange(1, 40))
            return content[:at] + content[end:]


def damage_json(path: Path, random: Random) -> None:
    content = path.read_bytes()
    done = edited(json.loads(content), random) if random.random() < 0.75 else None
    path.write_bytes(done or scrambled(content, random))


def put_in_place(path: Path, random: Random) -> None:
    """Something else where a file was: a folder, a pipe, a link, nothing, or an odd name."""
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink()
    match random.randrange(6):
        case 0:
            path.mkdir()
        case 1:
            os.mkfifo(path)
        case 2:
            path.symlink_to("/etc/passwd")
        case 3:
            path.symlink_to(path.name)
        case 4:
            (path.parent / os.fsdecode(b"\xff\xfe" + path.name.encode())).write_bytes(b"{}")
        case _:
            pass
