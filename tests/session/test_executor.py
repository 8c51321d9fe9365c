"""Executors: the local one, and one whose workers take plans from a queue."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from queue import SimpleQueue

import pytest

from sensprobe import api
from sensprobe.jobs.profile import profile
from sensprobe.jobs.search import SearchSettings, search
from sensprobe.plans.scheme import parse
from sensprobe.runs import open_run
from sensprobe.session.executor import Arrays, Labelled, Piece
from sensprobe.session.open import open_session
from sensprobe.session.session import Session
from sensprobe.testing.executor import ExecutorContract

RECORDED = json.loads((Path(__file__).parent / "recorded_searches.json").read_text())
SCHEMES = ["int8/head/asym", "int4/head/asym/dynamic"]
LIMIT = 300
FROZEN = ("encoder*", "layers.*.[BCD]", "layers.*.out_proj*", "head*")


class QueueExecutor:
    """Workers that each have a session of their own on the run, as other processes would."""

    def __init__(self, open_again: Callable[[], Session], room: int) -> None:
        self.room = room
        self._idle: SimpleQueue[Session] = SimpleQueue()
        for _ in range(room):
            self._idle.put(open_again())

    def submit(self, plans: Sequence[Labelled], pieces: Sequence[Piece]) -> list[list[Arrays]]:
        def work(plan: Labelled) -> list[Arrays]:
            worker = self._idle.get()
            try:
                return worker.local.submit([plan], pieces)[0]
            finally:
                self._idle.put(worker)

        with ThreadPoolExecutor(self.room) as pool:
            return list(pool.map(work, plans))


class TestLocal(ExecutorContract):
    def put(self, session: Session, open_again: Callable[[], Session]) -> None:
        assert session.executor is session.local


class TestQueue(ExecutorContract):
    def put(self, session: Session, open_again: Callable[[], Session]) -> None:
        session.executor = QueueExecutor(open_again, 3)


def evaluations(run: Path) -> list[list[object]]:
    """The evaluations of a run in the order they were made."""
    return [
        [e.key.plan, e.key.split, e.key.start, e.key.stop, e.meta.get("label", "")]
        for e in open_run(run).entries()
    ]


@pytest.mark.parametrize(
    "method",
    [pytest.param(m, marks=[] if m == "gains" else pytest.mark.thorough) for m in RECORDED],
)
def test_a_search_with_one_worker_makes_the_evaluations_it_always_made(
    method: str, tmp_path: Path
) -> None:
    """The same plans on the same pieces in the same order as version 0.1.0."""
    run, want = tmp_path / "run", RECORDED[method]
    api.profile("s4d-digits", "digits", run, SCHEMES, limit=LIMIT)
    found = api.search(run, ["3KiB", "5KiB"], evaluations=10, method=method, limit=LIMIT)
    assert evaluations(run) == want["evaluations"]
    assert [c["candidate"] for c in found["search"]["chosen"]] == want["chosen"]
    assert found["search"]["spent"] == want["spent"]


def test_several_workers_make_the_same_evaluations(tmp_path: Path) -> None:
    """Of a profile and an enumeration, which ask for the same plans whatever they find."""
    made = {}
    for room in (1, 3):
        run = tmp_path / str(room)
        session = open_session("s4d-digits", "digits", run)
        if room > 1:
            session.executor = QueueExecutor(
                lambda run=run: open_session("s4d-digits", "digits", run), room
            )
        profile(session, [parse(scheme) for scheme in SCHEMES], limit=40)
        settings = SearchSettings(
            method="exhaustive",
            limit=40,
            freeze=tuple((pattern, parse("fp32")) for pattern in FROZEN),
        )
        search(session, settings)
        made[room] = sorted(evaluations(run))
    assert made[1] == made[3]
