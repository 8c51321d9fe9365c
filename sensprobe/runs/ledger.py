"""All segments of a run as one index: which plan was measured on which samples, and where it lies.

Only lines are read to build the index; arrays are read, and their checksums checked, when an
evaluation is asked for.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator
from datetime import datetime
from itertools import groupby
from operator import attrgetter
from pathlib import Path
from typing import NamedTuple

from sensprobe.runs.record import (
    FROM_RUN,
    Base,
    Entry,
    Evaluation,
    EvaluationKey,
    Span,
    address_of,
    entry_of,
    is_whole,
    key_from,
)
from sensprobe.runs.segment import Outcome, Place, SegmentReader

FOLDER = "evaluations"
WORKER = "worker"
"""The command of a process that evaluates for another one: how it ends is not how the work does."""


class Writer(NamedTuple):
    """A process that has this run open for writing now."""

    host: str
    pid: int
    command: str
    since: str = ""  # when it began, in UTC, ISO 8601
    evaluations: int = 0  # that it made so far
    title: str = ""  # of what it does now, with how far it is of how much
    done: float = 0.0
    total: float = 0.0
    seconds: float = 0.0  # between the first and the last word on that


class Ledger:
    """Reads the segments of one run folder. `notices` collects what had to be skipped."""

    def __init__(self, run_folder: Path) -> None:
        self.folder = run_folder / FOLDER
        self.notices: list[str] = []
        self._passed_over: set[str] = set()
        self._segments: dict[str, SegmentReader] = {}
        self._places: dict[Base, dict[Span, tuple[Place, ...]]] = {}
        self.origins: Counter[str] = Counter()  # runs that evaluations were taken from, how many

    def refresh(self) -> int:
        """Indexes what was added since the last look; how many evaluations that was."""
        return sum(self.refresh_segment(name) for name in sorted(self._segment_names()))

    def _segment_names(self) -> Iterator[str]:
        """Files of lines. What is no file itself (a link, a pipe, a folder) is none of them."""
        try:
            with os.scandir(self.folder) as entries:
                for entry in entries:
                    if not entry.name.endswith(".jsonl"):
                        continue
                    if entry.is_file(follow_symlinks=False):
                        yield entry.name
                    elif entry.name not in self._passed_over:
                        self._passed_over.add(entry.name)
                        self.notices.append(f"{FOLDER}/{entry.name} is no file; it is left out")
        except FileNotFoundError:
            return
        except OSError as error:
            if FOLDER not in self._passed_over:
                self._passed_over.add(FOLDER)
                self.notices.append(
                    f"{self.folder} cannot be read ({error.strerror}); what it holds is left out"
                )

    def refresh_segment(self, name: str) -> int:
        segment = self._segments.get(name)
        if segment is None:
            segment = self._segments[name] = SegmentReader(self.folder / name)
        count = 0
        for document, place in segment.poll(self.notices):
            base, span = address_of(document)
            spans = self._places.setdefault(base, {})
            spans[span] = (*spans.get(span, ()), place)
            if isinstance(origin := document["meta"].get(FROM_RUN), str):
                self.origins[origin] += 1
            count += 1
        return count

    def __len__(self) -> int:
        return sum(len(spans) for spans in self._places.values())

    def spans(self, base: Base) -> list[Span]:
        """Every range of samples that is measured, sorted."""
        return sorted(self._places.get(base, ()))

    def find(self, key: EvaluationKey) -> Evaluation | None:
        """The evaluation of exactly these samples. Damaged copies are dropped, with a notice."""
        spans = self._places.get(key.base, {})
        for place in spans.get(key.span, ()):
            evaluation = place.segment.read(place)
            if evaluation is not None and evaluation.key == key:
                return evaluation
            self._drop(spans, key.span, place)
        return None

    def measured_keys(self) -> list[EvaluationKey]:
        """The keys of every evaluation, from the index alone."""
        return [key_from(base, span) for base, spans in self._places.items() for span in spans]

    def entries(self) -> Iterator[Entry]:
        """Each evaluation of this moment once, without its arrays, in the order of writing."""
        return _entries(self._by_segment())

    def writers(self) -> list[Writer]:
        """The processes that write now."""
        return [_writer(segment) for segment in self._segments.values() if segment.alive()]

    def last_outcome(self) -> Outcome | None:
        """The outcome of the latest writer; None where nobody ever wrote."""
        names = sorted(self._segments, reverse=True)
        asking = (n for n in names if self._segments[n].opened.get("command") != WORKER)
        latest = next(asking, names[0] if names else None)
        return None if latest is None else self._segments[latest].outcome or "stopped"

    def _by_segment(self) -> list[tuple[SegmentReader, list[Place]]]:
        firsts = [copies[0] for spans in self._places.values() for copies in spans.values()]
        firsts.sort(key=lambda place: (place.segment.lines_path.name, place.offset))
        return [(segment, list(run)) for segment, run in groupby(firsts, attrgetter("segment"))]

    def _drop(self, spans: dict[Span, tuple[Place, ...]], span: Span, place: Place) -> None:
        rest = tuple(other for other in spans[span] if other != place)
        if rest:
            spans[span] = rest
        else:
            del spans[span]
        self.notices.append(
            f"{FOLDER}/{place.segment.bytes_path.name}: the arrays of the evaluation at byte "
            f"{place.offset} are damaged; it is dropped and will be made again when needed"
        )


def _writer(segment: SegmentReader) -> Writer:
    """Who writes a segment, as its lines say."""
    who, first, last = segment.opened, segment.told[:1], segment.told[-1:]
    writer = Writer(
        str(who.get("host")), int(_number(who.get("pid"))), str(who.get("command")),
        str(who.get("created")), segment.count,
    )  # fmt: skip
    for begun, told in zip(first, last, strict=True):
        writer = writer._replace(
            title=str(told.get("title")),
            done=_number(told.get("done")),
            total=_number(told.get("total")),
            seconds=_between(begun.get("created"), told.get("created")),
        )
    return writer


def _between(first: object, last: object) -> float:
    """Seconds between two times as lines have them; 0 where one is none."""
    try:
        took = datetime.fromisoformat(str(last)) - datetime.fromisoformat(str(first))
    except (ValueError, TypeError):
        return 0.0
    return max(took.total_seconds(), 0.0)


def _number(value: object) -> float:
    return value if isinstance(value, int | float) else 0


def _entries(by_segment: list[tuple[SegmentReader, list[Place]]]) -> Iterator[Entry]:
    for segment, places in by_segment:
        with segment.lines_path.open("rb") as lines:
            for place in places:
                document = segment.document(place, lines)
                if document is not None and is_whole(document):
                    yield entry_of(document)
