"""One writer's part of the ledger: a file of lines and, beside it, a file of array bytes.

Each process that writes owns a segment of its own, `<utc>-<pid>-<random>.jsonl` and `.bin`, so
writers never wait for each other. An evaluation's array bytes are appended first, its line last and
in one write: a line that is there, with its newline, has its arrays. A process killed at any
moment loses at most the evaluation it was writing. Against the loss of power both files are synced
every `SYNC_SECONDS` and on closing; checksums catch what a disk lost in between.

A writer holds a lock (flock) on its lines while it lives. The system drops it when the process
ends, however it ends, so a reader knows whether an unfinished line is still being written. Needs
POSIX locks (Linux, macOS).
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import secrets
import socket
import stat
import time
import zlib
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import BinaryIO, Literal, NamedTuple

import numpy as np

from sensprobe.documents.files import disk_errors, require_no_link, write_all
from sensprobe.errors import RunError
from sensprobe.runs.record import (
    JSON,
    Evaluation,
    is_whole,
    key_of,
    now,
    pack,
    seal,
    unseal,
)

SYNC_SECONDS = 5.0
LARGEST = 2**30
"""Bytes of lines that are read, and of the arrays of one evaluation: a file may say any size."""
Outcome = Literal["finished", "stopped"]


def new_name() -> str:
    """A name no other writer has; names sort by when they were made."""
    stamp = datetime.now(UTC).strftime("%Y%m%dT%H%M%S.%fZ")
    return f"{stamp}-{os.getpid()}-{secrets.token_hex(3)}"


def is_plain(path: Path) -> bool:
    """True if a regular file is there: no link, no pipe, no folder."""
    try:
        return stat.S_ISREG(path.lstat().st_mode)
    except OSError:
        return False


def is_written(path: Path) -> bool:
    """True if the process that owns a file of lines still runs; False where it was removed."""
    if not path.is_file():
        return False
    try:
        with path.open("rb") as stream:
            fcntl.flock(stream, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return False
    return False


class SegmentWriter:
    """Appends to a new segment in `folder`. Not for several threads at once.

    `usable` turns False when a write failed: what that write left is cut off, and the next
    evaluation belongs in a new segment.
    """

    def __init__(self, folder: Path, command: str) -> None:
        self.pid = os.getpid()
        self.usable = True
        self.lines_path = folder / f"{new_name()}.jsonl"
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND
        who: dict[str, JSON] = {"host": socket.gethostname(), "pid": self.pid, "command": command}
        with disk_errors(self.lines_path, "creating"), contextlib.ExitStack() as undo:
            folder.mkdir(exist_ok=True)
            require_no_link(folder)
            self._lines = os.open(self.lines_path, flags, 0o666)
            undo.callback(self.lines_path.unlink)
            undo.callback(os.close, self._lines)
            fcntl.flock(self._lines, fcntl.LOCK_EX)
            self._bytes = os.open(self.lines_path.with_suffix(".bin"), flags, 0o666)
            undo.callback(self.lines_path.with_suffix(".bin").unlink)
            undo.callback(os.close, self._bytes)
            self._append_line(seal({"kind": "open", **who, "created": now()}))
            undo.pop_all()
        self._synced = time.monotonic()

    def append(self, evaluation: Evaluation) -> None:
        """Appends an evaluation; `RunError` where the disk refuses, and then no part of it
        stays."""
        with disk_errors(self.lines_path, "writing"):
            before = os.fstat(self._bytes).st_size
            content, line = pack(evaluation, before)
            with self._whole(self._bytes):
                write_all(self._bytes, content)
            try:
                self._append_line(line)
            except OSError:
                self._cut(self._bytes, before)
                raise
            if time.monotonic() - self._synced > SYNC_SECONDS:
                self._sync()

    def tell(self, title: str, done: float, total: float) -> None:
        """Says how far the work is, in units of its own."""
        with disk_errors(self.lines_path, "writing"):
            told: dict[str, JSON] = {"title": title, "done": done, "total": total}
            self._append_line(seal({"kind": "progress", **told, "created": now()}))

    def close(self, outcome: Outcome) -> None:
        """Says how the work ended, syncs, and lets the lock go."""
        try:
            with disk_errors(self.lines_path, "closing"):
                if self.usable:
                    self._append_line(seal({"kind": "close", "outcome": outcome, "created": now()}))
                self._sync()
        finally:
            self.usable = False
            os.close(self._bytes)
            os.close(self._lines)

    def _append_line(self, line: bytes) -> None:
        with self._whole(self._lines):
            write_all(self._lines, line)

    @contextlib.contextmanager
    def _whole(self, descriptor: int) -> Iterator[None]:
        """Cuts off what a refused write left. After an interrupt nothing is cut: the write may be
        whole, and readers recognise one that is not.
        """
        before = os.fstat(descriptor).st_size
        try:
            yield
        except BaseException as error:
            self.usable = False
            if isinstance(error, OSError):
                self._cut(descriptor, before)
            raise

    def _cut(self, descriptor: int, size: int) -> None:
        with contextlib.suppress(OSError):
            os.ftruncate(descriptor, size)

    def _sync(self) -> None:
        os.fsync(self._bytes)
        os.fsync(self._lines)
        self._synced = time.monotonic()


class Place(NamedTuple):
    """The place of a line in its segment."""

    segment: SegmentReader
    offset: int
    length: int


class SegmentReader:
    """Reads what has been added to a segment since it last looked; never writes."""

    def __init__(self, lines_path: Path) -> None:
        self.lines_path = lines_path
        self.bytes_path = lines_path.with_suffix(".bin")
        self.opened: dict[str, JSON] = {}  # the line of the writer: host, pid, command, created
        self.outcome: Outcome | None = None
        self.told: list[dict[str, JSON]] = []  # the first and last lines on how far the work is
        self.count = 0  # evaluations that can be used
        self._offset = 0
        self._torn_at = -1
        self._unreadable = False

    @property
    def _name(self) -> str:
        return f"{self.lines_path.parent.name}/{self.lines_path.name}"

    def poll(self, notices: list[str]) -> Iterator[tuple[dict[str, JSON], Place]]:
        """New evaluations, whole ones only. Each one skipped is reported in `notices` once."""
        try:
            size = self.lines_path.stat().st_size
            if size <= self._offset:
                return
            if size > LARGEST:
                raise OSError(errno.EFBIG, f"it has {size:,} bytes, at most {LARGEST:,} are read")
            with self.lines_path.open("rb") as stream:
                stream.seek(self._offset)
                fresh = stream.read(size - self._offset)
            has = self.bytes_path.lstat().st_size if is_plain(self.bytes_path) else 0
        except OSError as error:
            if not self._unreadable:
                self._unreadable = True
                notices.append(f"{self._name} cannot be read ({error.strerror}); it is left out")
            return
        end = fresh.rfind(b"\n") + 1
        damaged: list[int] = []
        start = self._offset
        for line in fresh[:end].splitlines(keepends=True):
            document = unseal(line[:-1])
            if document is None or not self._take(document, has):
                damaged.append(start)
            elif document.get("kind") == "evaluation":
                self.count += 1
                yield document, Place(self, start, len(line))
            start += len(line)
        self._offset += end
        self._tell(damaged, len(fresh) - end, notices)

    def _take(self, document: dict[str, JSON], has: int) -> bool:
        """True if a line can be used; notes who wrote the segment and how it ended."""
        kind = document.get("kind")
        if kind == "evaluation":
            return is_whole(document) and bool(document["end"] <= has)
        if kind == "open":
            self.opened = document
        elif kind == "progress":
            same = self.told and self.told[0].get("title") == document.get("title")
            self.told = [self.told[0], document] if same else [document]
        elif kind == "close":
            self.outcome = "finished" if document.get("outcome") == "finished" else "stopped"
        return True

    def _tell(self, damaged: list[int], torn: int, notices: list[str]) -> None:
        where = self._name
        if damaged:
            notices.append(
                f"{where}: skipped {len(damaged)} damaged line(s), the first at byte {damaged[0]}; "
                "their evaluations will be made again when needed"
            )
        if torn and self._torn_at != self._offset and self._abandoned(torn):
            self._torn_at = self._offset
            notices.append(
                f"{where}: dropped an unfinished last line of {torn} byte(s), left by a process "
                "that was stopped; that evaluation will be made again when needed"
            )

    def _abandoned(self, torn: int) -> bool:
        """True if the writer is gone and the last line was not finished since it was read."""
        return not self.alive() and self.lines_path.stat().st_size == self._offset + torn

    def alive(self) -> bool:
        """True if the process that owns this segment still runs."""
        return is_written(self.lines_path)

    def document(self, place: Place, lines: BinaryIO) -> dict[str, JSON] | None:
        lines.seek(place.offset)
        return unseal(lines.read(place.length)[:-1])

    def read(self, place: Place) -> Evaluation | None:
        """The evaluation at a place; None where its bytes are missing or a checksum is off."""
        if not is_plain(self.bytes_path):
            return None
        try:
            with self.lines_path.open("rb") as lines, self.bytes_path.open("rb") as content:
                document = self.document(place, lines)
                return None if document is None else _evaluation(document, content)
        except (OSError, RunError):
            return None


def _evaluation(document: dict[str, JSON], content: BinaryIO) -> Evaluation | None:
    arrays = {}
    if not is_whole(document) or document["end"] - _start(document) > LARGEST:
        return None
    for name, (offset, dtype, count, checksum) in document["arrays"].items():
        content.seek(offset)
        raw = content.read(count * np.dtype(dtype).itemsize)
        if zlib.crc32(raw) != checksum:
            return None
        arrays[name] = np.frombuffer(raw, dtype=dtype)
    return Evaluation(key_of(document), arrays, document["meta"], document["created"])


def _start(document: dict[str, JSON]) -> int:
    """The byte at which the arrays of an evaluation's line begin."""
    return min((row[0] for row in document["arrays"].values()), default=document["end"])
