"""What several processes ask for at once is measured once."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from checkpoint_files import write_own

from sensprobe.models.s4d import S4DConfig
from sensprobe.plans.scheme import parse
from sensprobe.progress import Silent
from sensprobe.runs import open_run
from sensprobe.session.open import open_session
from sensprobe.session.session import Session

PLAN = {"layers.0.A": parse("int8")}
pytestmark = pytest.mark.usefixtures("reference_scan")


class Told(Silent):
    """Counts how often it was told of waiting, and calls `heard` each time."""

    def __init__(self, heard: Callable[[], None] = lambda: None) -> None:
        self.waits = 0
        self._heard = heard

    def note(self, text: str) -> None:
        if "another process measures" in text:
            self.waits += 1
            self._heard()


@pytest.fixture
def opened(tmp_path: Path) -> Callable[..., Session]:
    """Opens one run, as another process would."""
    write_own(tmp_path / "m.safetensors", S4DConfig(d_input=1, d_output=1, d_model=2, d_state=2))
    draw = np.random.default_rng(0)
    np.savez(tmp_path / "d.npz", x=draw.normal(size=(100, 4, 1)), y=draw.normal(size=100))
    named = tmp_path / "m.safetensors", f"npz:{tmp_path / 'd.npz'}"

    def open_one(progress: Any = None) -> Session:
        return open_session(*named, tmp_path / "run", progress=progress or Told())

    return open_one


def test_one_measures_and_the_others_wait(
    opened: Callable[..., Session], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first starts the others while it measures, and goes on when each says that it waits."""
    waits, found, threads = threading.Semaphore(0), [], []
    tellers = [Told(waits.release) for _ in range(3)]
    others = [opened(told) for told in tellers]
    first = opened()
    evaluator = first.local.evaluator("search")
    evaluate, calls = evaluator.evaluate, []

    def slow(*asked: Any) -> Any:
        calls.append(asked)
        for other in others:
            work = lambda it=other: found.append(it.measure(PLAN, "search", 0, 8))  # noqa: E731
            threads.append(threading.Thread(target=work))
            threads[-1].start()
        assert all(waits.acquire(timeout=60) for _ in others)
        return evaluate(*asked)

    monkeypatch.setattr(type(evaluator), "evaluate", lambda self, *asked: slow(*asked))
    arrays = first.measure(PLAN, "search", 0, 8)
    for thread in threads:
        thread.join()
    assert len(calls) == 1
    assert open_run(tmp_path / "run").count == 1
    assert len(found) == 3
    assert all(
        np.array_equal(other[first.headline.primary], arrays[first.headline.primary])
        for other in found
    )
    for other, told in zip(others, tellers, strict=True):
        other.measure(PLAN, "search", 2, 6)
        assert told.waits == 1


def interrupted(*_: Any) -> None:
    raise KeyboardInterrupt


def test_a_failed_measurement_leaves_no_lease(
    opened: Callable[..., Session], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    session = opened()
    evaluator = type(session.local.evaluator("search"))
    with monkeypatch.context() as patch:
        patch.setattr(evaluator, "evaluate", interrupted)
        with pytest.raises(KeyboardInterrupt):
            session.measure(PLAN, "search", 0, 8)
    assert list((tmp_path / "run" / "leases").iterdir()) == []
    session.measure(PLAN, "search", 0, 8)
    assert open_run(tmp_path / "run").count == 1
