"""A run: the folder that holds inputs, every evaluation ever made, and results.

    run.json        the inputs it belongs to; written once
    evaluations/    one segment a writer; append-only
    results/        JSON tables, each replaced whole
    notes.json      tags and a note of a person (see `notes`), replaced whole
    benches/        how fast machines ran operations, a file a benchmark; append-only
    plans/          the plan chosen for each budget, as --plan takes it
    tuned/          models that were trained under a plan, a folder each
    leases/         what is being measured now; gone when nothing is
    optuna.db       the search's own storage

Nothing here deletes or rewrites an evaluation. Several processes may write at once.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from hashlib import sha256
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np

from sensprobe.documents import LARGE, AbsentError, DocumentError, read_json
from sensprobe.documents.files import disk_errors, require_no_link, strict_json, write_whole
from sensprobe.errors import RunError
from sensprobe.runs import benches, lease
from sensprobe.runs import manifest as manifests
from sensprobe.runs.ledger import Ledger, Writer
from sensprobe.runs.manifest import Manifest
from sensprobe.runs.record import FROM_RUN, JSON, Entry, Evaluation, EvaluationKey, Span
from sensprobe.runs.results import require_result
from sensprobe.runs.segment import Outcome, SegmentWriter

WRITTEN = ("evaluations", "results", "benches", "plans", "tuned", "leases")
"""Folders of a run that are written into."""
State = Literal["new", "running", "finished", "stopped"]
RESULT_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,199}")


class Reused(NamedTuple):
    """Another run whose evaluations are used."""

    ledger: Ledger
    model_name: str  # the model's fingerprint in its keys


class Run:
    """An open run folder; get one from `open_run`. Safe to use from several threads.

    `model_name` is the model's fingerprint in the keys of this run. `notices` collects, for the
    command line to print once, what had to be skipped while reading.
    """

    def __init__(
        self,
        path: Path,
        manifest: Manifest,
        reused: tuple[Reused, ...] = (),
        model_name: str | None = None,
    ) -> None:
        self.path = path
        self.manifest = manifest
        self.model_name = model_name or manifest.model_fingerprint
        self.notices: list[str] = []
        self._ledger = Ledger(path)
        self._reused = reused
        self._writer: SegmentWriter | None = None
        self._command = ""
        self._lock = threading.RLock()
        self.refresh()

    @property
    def optuna_path(self) -> Path:
        """The file in which the search keeps its SQLite storage."""
        return self.path / "optuna.db"

    def refresh(self) -> int:
        """Takes in what other processes added; how many evaluations that was."""
        with self._lock:
            count = self._ledger.refresh()
            for other in self._reused:
                other.ledger.refresh()
            self._collect_notices()
            return count

    def find(self, key: EvaluationKey) -> Evaluation | None:
        """The evaluation of exactly this key, its checksums checked; None where there is none.

        An evaluation found in a reused run is copied here, so that a run holds all evaluations
        behind its results; `from_run` of its `meta` says where it was found.
        """
        with self._lock:
            evaluation = self._ledger.find(key)
            for other in () if evaluation else self._reused:
                found = other.ledger.find(self._there(key, other))
                if found is not None:
                    origin = str(other.ledger.folder.parent.resolve())
                    evaluation = replace(found, key=key, meta={**found.meta, FROM_RUN: origin})
                    self.append(evaluation)
                    break
            self._collect_notices()
            return evaluation

    def missing(self, key: EvaluationKey) -> list[Span]:
        """The parts of [start, stop) that no evaluation covers, in order."""
        return _gaps(key, self._spans(key))

    def holds(self, key: EvaluationKey) -> bool:
        """True if this run's own evaluations, without any reused, cover [start, stop)."""
        with self._lock:
            return not _gaps(key, self._ledger.spans(key.base))

    def gather(self, key: EvaluationKey) -> Evaluation | None:
        """Samples [start, stop), put together from whatever evaluations cover them; None if some
        sample is missing. A sample's result does not depend on which others it was measured with.
        `meta` is that of the first piece.
        """
        pieces: list[Evaluation] = []
        position = key.start
        while position < key.stop:
            covering = [s for s in self._spans(key) if s[0] <= position < s[1]]
            if not covering:
                return None
            piece = self.find(key.over(*max(covering, key=lambda span: span[1])))
            if piece is None:  # damaged, and dropped just now
                continue
            pieces.append(_cut(piece, position, min(piece.key.stop, key.stop)))
            position = pieces[-1].key.stop
        names = [name for name in pieces[0].arrays if all(name in p.arrays for p in pieces)]
        arrays = {name: np.concatenate([p.arrays[name] for p in pieces]) for name in names}
        return Evaluation(key, arrays, pieces[0].meta, pieces[0].created)

    def append(self, evaluation: Evaluation) -> None:
        """Keeps an evaluation for good: once this returns, killing the process does not lose it."""
        with self._lock:
            writer = self._own_writer()
            writer.append(evaluation)
            self._ledger.refresh_segment(writer.lines_path.name)

    def tell_progress(self, title: str, done: float, total: float) -> None:
        """Says how far this process is with its work, where it is marked as running."""
        with self._lock:
            if self._writer is not None and self._writer.usable and self._writer.pid == os.getpid():
                self._writer.tell(title, done, total)

    @contextlib.contextmanager
    def leased(self, key: EvaluationKey, waiting: Callable[[], None]) -> Iterator[None]:
        """Nobody else works on the plan of a key meanwhile; then what others found is taken in.

        `waiting` is called once where another process works on it now, and this one waits.
        """
        self._check_writable()
        name = sha256(json.dumps(key.base).encode()).hexdigest()[:32]
        with lease.held(self.path, name, waiting):
            self.refresh()
            yield

    @property
    def origins(self) -> dict[str, int]:
        """Folder of another run -> how many of this run's evaluations were taken from there."""
        with self._lock:
            return dict(self._ledger.origins)

    def measured_keys(self) -> list[EvaluationKey]:
        """The keys of all evaluations up to now, from the index alone: no file is read."""
        with self._lock:
            return self._ledger.measured_keys()

    def entries(self) -> Iterator[Entry]:
        """All evaluations up to now, without the arrays, in the order of writing."""
        with self._lock:
            return self._ledger.entries()

    def evaluations(self) -> Iterator[Evaluation]:
        """All evaluations up to now, in the order of writing; damaged ones are left out."""
        for entry in self.entries():
            with self._lock:
                evaluation = self._ledger.find(entry.key)
                self._collect_notices()
            if evaluation is not None:
                yield evaluation

    @property
    def count(self) -> int:
        """Evaluations in this run."""
        return len(self._ledger)

    @contextlib.contextmanager
    def working(self, command: str) -> Iterator[Run]:
        """Marks the run as running while `command` works on it, and afterwards how that ended."""
        with self._lock:
            self._command = command
            self._own_writer()
        try:
            yield self
        except BaseException:
            with contextlib.suppress(RunError):
                self.close("stopped")
            raise
        self.close("finished")

    def close(self, outcome: Outcome = "finished") -> None:
        """Syncs what this process wrote and lets its segment go. Appending opens a new one."""
        with self._lock:
            writer, self._writer = self._writer, None
            if writer is not None and writer.pid == os.getpid():
                writer.close(outcome)
                lease.sweep(self.path)
            self.refresh()

    @property
    def state(self) -> State:
        """running: a process writes here now. finished or stopped: how the latest one ended."""
        self.refresh()
        if self._ledger.writers():
            return "running"
        return self._ledger.last_outcome() or "new"

    def writers(self) -> list[Writer]:
        """The processes that write here now, this one included."""
        self.refresh()
        return self._ledger.writers()

    @contextlib.contextmanager
    def benching(self, about: Mapping[str, JSON]) -> Iterator[Callable[[Mapping[str, JSON]], None]]:
        """Opens a new benchmark of this run, which says where and how it is measured; yields a
        function that keeps a case for good."""
        self._check_writable()
        with benches.writing(self.path, about) as keep:
            yield keep

    def benches(self) -> list[benches.KeptBench]:
        """Every benchmark, in the order they began."""
        return benches.kept(self.path)

    def write_result(self, name: str, data: JSON) -> None:
        """Replaces results/NAME.json as a whole. Numbers that are not finite become null."""
        self._check_writable()
        path = self._result_path(name)
        with disk_errors(path.parent, "creating"):
            path.parent.mkdir(exist_ok=True)
        write_whole(path, strict_json(data))

    def set_aside(self, name: str, new: str) -> None:
        """Gives a result another name, which must be free. Does nothing where there is no such
        result."""
        self._check_writable()
        path, target = self._result_path(name), self._result_path(new)
        if target.exists():
            raise RunError(f"{target} exists; results are not overwritten by others")
        with disk_errors(path, "renaming"):
            if path.exists():
                path.replace(target)

    def read_result(self, name: str) -> JSON | None:
        """The result that `write_result` wrote, or None where it never did. RunError where the file
        is not what this package writes under that name."""
        path = self._result_path(name)
        try:
            document = read_json(path, LARGE)
            require_result(name, document, self.manifest.sites)
            return document
        except AbsentError:
            return None
        except DocumentError as error:
            raise RunError(
                f"{path} cannot be read ({error}); delete it and run the command that made it again"
            ) from error

    def results(self) -> list[str]:
        """Names of the results there are."""
        names = (path.stem for path in (self.path / "results").glob("[!.]*.json"))
        return sorted(name for name in names if RESULT_NAME.fullmatch(name))

    def _result_path(self, name: str) -> Path:
        if not RESULT_NAME.fullmatch(name):
            raise RunError(f"{name!r} cannot name a result; use letters, digits, - _ and .")
        return self.path / "results" / f"{name}.json"

    def _spans(self, key: EvaluationKey) -> list[Span]:
        with self._lock:
            spans = set(self._ledger.spans(key.base))
            for other in self._reused:
                spans.update(other.ledger.spans(self._there(key, other).base))
            return sorted(spans)

    def _there(self, key: EvaluationKey, other: Reused) -> EvaluationKey:
        """The same evaluation as a run that is reused names it."""
        return replace(key, model=other.model_name) if key.model == self.model_name else key

    def _own_writer(self) -> SegmentWriter:
        """This process's segment; a forked child does not inherit its parent's."""
        self._check_writable()
        writer = self._writer
        if writer is None or not writer.usable or writer.pid != os.getpid():
            if writer is not None and writer.pid == os.getpid():
                with contextlib.suppress(RunError):
                    writer.close("stopped")
            writer = self._writer = SegmentWriter(self._ledger.folder, self._command)
        return writer

    def _check_writable(self) -> None:
        if self.manifest.version < manifests.VERSION:
            raise RunError(
                f"{self.path} has the older layout {self.manifest.version} and can only be read; "
                f"give --run a new folder and --reuse {self.path}, which finds what was evaluated"
            )
        for name in (*WRITTEN, self.optuna_path.name):
            require_no_link(self.path / name)

    def _collect_notices(self) -> None:
        for ledger in (self._ledger, *(other.ledger for other in self._reused)):
            name = "" if ledger is self._ledger else f"{ledger.folder.parent}/"
            self.notices += [name + notice for notice in ledger.notices]
            ledger.notices.clear()


def _gaps(key: EvaluationKey, spans: Sequence[Span]) -> list[Span]:
    """The parts of [start, stop) that sorted spans leave out."""
    gaps, position = [], key.start
    for start, stop in spans:
        if start > position:
            gaps.append((position, min(start, key.stop)))
        position = max(position, stop)
        if position >= key.stop:
            return gaps
    return [*gaps, (position, key.stop)]


def _cut(evaluation: Evaluation, start: int, stop: int) -> Evaluation:
    """Samples [start, stop) of an evaluation that covers them."""
    first = evaluation.key.start
    arrays = {name: a[start - first : stop - first] for name, a in evaluation.arrays.items()}
    return replace(evaluation, key=evaluation.key.over(start, stop), arrays=arrays)
