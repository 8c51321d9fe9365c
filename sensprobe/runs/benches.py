"""Benchmarks of a run: how fast a machine ran operations, a file each.

    benches/<utc>-<pid>-<random>.jsonl    a line of where and how, a line a case, a line of the end

Written and read as a segment of evaluations is: lines are appended in one write, each with a
checksum, by one process that holds a lock. A benchmark that was stopped keeps the cases it
finished and is not gone on with: a share of what copying reaches, and a ratio, are of one process
on one machine, so the next benchmark is another one.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from sensprobe.documents import DocumentError, content_of
from sensprobe.documents.files import disk_errors, write_all
from sensprobe.errors import RunError
from sensprobe.runs.record import JSON, now, seal, unseal
from sensprobe.runs.segment import Outcome, is_written, new_name

FOLDER = "benches"
VERSION = 1  # of a benchmark's lines; raise it when an older package could misread them


@dataclass(frozen=True, slots=True)
class KeptBench:
    """A benchmark as it lies on disk. `about` says where and how it ran; `rows` has one a case.

    `problem` says which part cannot be read, and what to do; "" where everything can.
    """

    name: str
    about: Mapping[str, JSON]
    rows: tuple[Mapping[str, JSON], ...]
    outcome: Outcome | Literal["running"]
    problem: str = ""

    @property
    def document(self) -> dict[str, JSON]:
        """The document that `sensprobe bench --json` printed."""
        return {**self.about, "rows": list(self.rows)}


@contextlib.contextmanager
def writing(
    run_folder: Path, about: Mapping[str, JSON]
) -> Iterator[Callable[[Mapping[str, JSON]], None]]:
    """Opens a new benchmark and yields a function that appends a row. Without a row no file
    stays."""
    folder = run_folder / FOLDER
    path = folder / f"{new_name()}.jsonl"
    with disk_errors(path, "creating"):
        folder.mkdir(exist_ok=True)
        lines = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND, 0o666)
    count = 0

    def keep(row: Mapping[str, JSON]) -> None:
        nonlocal count
        _append(lines, path, {"kind": "case", "row": dict(row)})
        count += 1

    try:
        fcntl.flock(lines, fcntl.LOCK_EX)
        _append(lines, path, {"kind": "bench", "version": VERSION, "about": dict(about)})
        yield keep
        _close(lines, path, "finished", empty=not count)
    except BaseException:
        with contextlib.suppress(RunError):
            _close(lines, path, "stopped", empty=not count)
        raise
    finally:
        os.close(lines)


def _append(lines: int, path: Path, document: Mapping[str, JSON]) -> None:
    """Appends one line; RunError where the disk refuses, and then no part of the line stays."""
    before = os.fstat(lines).st_size
    with disk_errors(path, "writing"):
        try:
            write_all(lines, seal(document))
        except OSError:
            with contextlib.suppress(OSError):
                os.ftruncate(lines, before)
            raise


def _close(lines: int, path: Path, outcome: Outcome, *, empty: bool) -> None:
    if empty:
        with disk_errors(path, "removing"):
            path.unlink(missing_ok=True)
        return
    _append(lines, path, {"kind": "close", "outcome": outcome, "created": now()})
    with disk_errors(path, "closing"):
        os.fsync(lines)


def kept(run_folder: Path) -> list[KeptBench]:
    """Every benchmark of a run, in the order they began; nothing is written."""
    return [_read(path) for path in sorted((run_folder / FOLDER).glob("[!.]*.jsonl"))]


def _read(path: Path) -> KeptBench:
    running = is_written(path)  # before the lines are read: one that ends now has written them all
    try:
        content = content_of(path)
    except DocumentError as error:
        said = f"{_where(path)} cannot be read: {error}. Delete it."
        return KeptBench(path.stem, {}, (), "stopped", said)
    *whole, torn = content.split(b"\n")
    found = [unseal(line, "bench") for line in whole]
    documents = [document for document in found if document is not None]
    head = next((d for d in documents if d.get("kind") == "bench"), {})
    rows = tuple(d["row"] for d in documents if d.get("kind") == "case" and "row" in d)
    closed = [d["outcome"] for d in documents if d.get("kind") == "close"]
    ended: Outcome = closed[0] if closed else "stopped"
    problem = _problem(path, head, found.count(None), 0 if running else len(torn))
    return KeptBench(
        path.stem,
        head.get("about", {}),
        rows if head.get("version", VERSION + 1) <= VERSION else (),
        "running" if running else ended,
        "" if running and not documents else problem,
    )


def _problem(path: Path, head: Mapping[str, JSON], damaged: int, torn: int) -> str:
    """A sentence on what is damaged in a file; "" where it is whole."""
    where = _where(path)
    if head.get("version", 0) > VERSION:
        return (
            f"{where} was written by a newer sensprobe (bench layout {head['version']}; this one "
            f"reads up to {VERSION}): upgrade sensprobe."
        )
    if not head:
        return (
            f"{where} does not say where it was measured: its first line is damaged. Delete it and "
            "run `sensprobe bench` again."
        )
    said = [f"skipped {damaged} damaged line(s)"] if damaged else []
    said += [f"dropped an unfinished last line of {torn} byte(s)"] if torn else []
    if not said:
        return ""
    return f"{where}: {' and '.join(said)}. Run `sensprobe bench` again for a whole one."


def _where(path: Path) -> str:
    return f"{path.parent.name}/{path.name}"
