"""The suite that every executor passes. Inherit it, and put your executor in the session:

    class TestMine(ExecutorContract):
        def put(self, session, open_again):
            session.executor = MyExecutor(...)

The session is of a small model that ships on data that every machine has, with a run of its own.
`open_again()` opens another session on the same run, as a worker in another process would.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from sensprobe.plans.scheme import parse
from sensprobe.runs import open_run
from sensprobe.session.executor import Labelled, Piece
from sensprobe.session.open import open_session
from sensprobe.session.session import Session

MODEL, DATA, SPLIT = "s4d-digits", "digits", "search"
PLANS = [
    Labelled({}, "baseline"),
    Labelled({"layers.0.A": parse("int4/head/asym")}, "A"),
    Labelled({"layers.0.state": parse("int8/head/asym/dynamic")}, "state"),
    Labelled({"layers.0.state": parse("int6/head/asym")}, "calibrated"),
    Labelled({"layers.0.A": parse("int3/head/asym"), "encoder": parse("int4")}, "two sites"),
]
PIECES = [Piece(SPLIT, 0, 3), Piece(SPLIT, 3, 8)]


class ExecutorContract(ABC):
    """Holds for every executor, whatever its room."""

    @abstractmethod
    def put(self, session: Session, open_again: Callable[[], Session]) -> None:
        """Give the session the executor to test."""

    @pytest.fixture
    def run(self, tmp_path: Path) -> Path:
        return tmp_path / "run"

    @pytest.fixture
    def session(self, run: Path) -> Session:
        session = open_session(MODEL, DATA, run)
        self.put(session, lambda: open_session(MODEL, DATA, run))
        return session

    @pytest.fixture
    def local(self) -> Session:
        """The same inputs without a run, evaluated in this process."""
        return open_session(MODEL, DATA)

    def test_it_has_room_for_a_plan(self, session: Session) -> None:
        assert session.executor.room >= 1

    def test_results_are_those_of_this_process_in_the_order_asked(
        self, session: Session, local: Session
    ) -> None:
        asked = PLANS[::-1] * (1 + session.executor.room // len(PLANS))  # more than it has room for
        found, want = session.submit(asked, PIECES), local.submit(asked, PIECES)
        assert [len(row) for row in found] == [len(PIECES)] * len(asked)
        for row, wanted in zip(found, want, strict=True):
            for arrays, expected in zip(row, wanted, strict=True):
                primary = session.headline.primary
                assert np.array_equal(arrays[primary], expected[primary])
                assert np.array_equal(arrays["kl"], expected["kl"])

    def test_pieces_are_parts_of_the_whole(self, session: Session, local: Session) -> None:
        for row, plan in zip(session.submit(PLANS, PIECES), PLANS, strict=True):
            whole = local.measure(plan.plan, SPLIT, 0, 8)["correct"]
            assert np.array_equal(np.concatenate([piece["correct"] for piece in row]), whole)

    def test_the_run_keeps_every_evaluation_under_its_label(
        self, session: Session, run: Path
    ) -> None:
        session.submit(PLANS, PIECES)
        assert session.run is not None
        session.run.refresh()
        assert all(session.run.holds(session.key(p.plan, k)) for p in PLANS for k in PIECES)
        kept = sorted(entry.meta["label"] for entry in open_run(run).entries())
        assert kept == sorted(plan.label for plan in PLANS for _ in PIECES)

    def test_nothing_is_evaluated_twice(self, session: Session, run: Path) -> None:
        first = session.submit(PLANS, PIECES)
        count = open_run(run).count
        again = session.submit(PLANS[::-1], PIECES)[::-1]
        assert open_run(run).count == count
        for row, other in zip(first, again, strict=True):
            assert all(np.array_equal(a["kl"], b["kl"]) for a, b in zip(row, other, strict=True))

    def test_with_room_for_one_evaluations_are_made_in_order(
        self, session: Session, run: Path
    ) -> None:
        if session.executor.room > 1:
            pytest.skip("it works on several plans at a time")
        session.submit(PLANS, PIECES)
        made = [(e.meta["label"], e.key.start) for e in open_run(run).entries()]
        assert made == [(plan.label, piece.start) for plan in PLANS for piece in PIECES]

    def test_nothing_asked_is_nothing_done(self, session: Session, run: Path) -> None:
        assert session.submit([], PIECES) == []
        assert session.submit(PLANS[:2], []) == [[], []]
        assert open_run(run).count == 0

    def test_an_error_is_raised_and_what_was_finished_is_kept(
        self, session: Session, run: Path
    ) -> None:
        session.submit(PLANS[:1], PIECES)
        with pytest.raises(KeyError, match="no such site"):
            session.submit([Labelled({"no such site": parse("int8")})], PIECES)
        assert open_run(run).count == len(PIECES)
        assert len(session.submit(PLANS[:2], PIECES)) == 2
