"""Benches of a run: kept case by case, whatever ends them; what is damaged is told."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import pytest

from sensprobe.documents.files import write_all
from sensprobe.errors import RunError
from sensprobe.runs import Manifest, Run, benches, open_run
from sensprobe.runs.record import seal

ABOUT = {"machine": "one", "device": "cpu", "batch": 1}
ROWS = [{"operation": "linear", "seconds": 0.5 * k} for k in (1, 2, 3)]


@pytest.fixture
def run(tmp_path: Path) -> Run:
    return open_run(tmp_path / "run", Manifest("m", "a", "d", "b", 1))


def fill(run: Run, rows: list[dict[str, object]] = ROWS) -> Path:
    with run.benching(ABOUT) as keep:
        for row in rows:
            keep(row)
    return sorted((run.path / "benches").iterdir())[-1]


def test_what_is_kept_is_read_in_the_order_it_was_made(run: Run) -> None:
    fill(run)
    fill(run, ROWS[:1])
    first, second = run.benches()
    assert first.document == {**ABOUT, "rows": ROWS}
    assert second.rows == tuple(ROWS[:1])
    assert (first.outcome, first.problem) == ("finished", "")
    assert open_run(run.path).benches() == [first, second]


def test_a_run_without_benches_has_none(run: Run) -> None:
    assert run.benches() == []
    assert not (run.path / "benches").exists()


def test_a_bench_without_a_case_leaves_nothing(run: Run) -> None:
    with pytest.raises(KeyboardInterrupt), run.benching(ABOUT):
        raise KeyboardInterrupt
    assert run.benches() == []


def test_what_was_timed_before_a_stop_is_kept(run: Run) -> None:
    def stopped() -> None:
        with run.benching(ABOUT) as keep:
            keep(ROWS[0])
            assert run.benches()[0].outcome == "running"
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        stopped()
    (found,) = run.benches()
    assert (found.rows, found.outcome, found.problem) == (tuple(ROWS[:1]), "stopped", "")


def test_a_killed_bench_keeps_what_it_reported(run: Run) -> None:
    child = os.fork()
    if child == 0:
        with run.benching(ABOUT) as keep:
            keep(ROWS[0])
            keep(ROWS[1])
            time.sleep(60)
        os._exit(1)
    until = time.monotonic() + 120
    while not (run.benches() and len(run.benches()[0].rows) == 2) and time.monotonic() < until:
        time.sleep(0.01)
    assert run.benches()[0].outcome == "running"
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    (found,) = run.benches()
    assert (found.rows, found.outcome, found.problem) == (tuple(ROWS[:2]), "stopped", "")


@pytest.mark.parametrize("cut", [1, 20, 60])
def test_a_torn_line_is_dropped_and_told(run: Run, cut: int) -> None:
    path = fill(run)
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join(lines[:3]) + lines[3][:-cut])
    (found,) = run.benches()
    assert found.rows == tuple(ROWS[:2])
    torn = len(lines[3]) - cut
    assert f"dropped an unfinished last line of {torn} byte(s)" in found.problem
    assert "Run `sensprobe bench` again" in found.problem


def test_a_damaged_line_is_skipped_alone(run: Run) -> None:
    path = fill(run)
    content = bytearray(path.read_bytes())
    content[content.index(b'"seconds":1.0') + 11] ^= 1
    path.write_bytes(content)
    (found,) = run.benches()
    assert found.rows == (ROWS[0], ROWS[2])
    assert f"benches/{path.name}: skipped 1 damaged line(s)" in found.problem


def test_a_bench_that_does_not_say_of_what_is_told(run: Run) -> None:
    path = fill(run)
    path.write_bytes(b"".join(path.read_bytes().splitlines(keepends=True)[1:]))
    fill(run)
    damaged, whole = run.benches()
    assert damaged.rows == ()
    assert "does not say where it was measured" in damaged.problem
    assert whole.rows == tuple(ROWS)


def test_a_bench_of_a_newer_version_is_not_misread(run: Run) -> None:
    path = fill(run)
    lines = path.read_bytes().splitlines(keepends=True)
    newer = seal({"kind": "bench", "version": 99, "about": ABOUT})
    path.write_bytes(newer + b"".join(lines[1:]))
    (found,) = run.benches()
    assert found.rows == ()
    assert "newer sensprobe (bench layout 99; this one reads up to 1): upgrade" in found.problem


def test_a_run_of_an_older_layout_takes_no_bench(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sensprobe.runs.manifest.VERSION", 2)
    with pytest.raises(RunError, match="older layout 1 and can only be read"), run.benching(ABOUT):
        pass
    assert open_run(run.path).benches() == []


def test_a_full_disk_leaves_no_half_a_line(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def half(descriptor: int, content: bytes) -> None:
        write_all(descriptor, content[: len(content) // 2])
        raise OSError(28, "No space left on device")

    def filled() -> None:
        with run.benching(ABOUT) as keep:
            keep(ROWS[0])
            monkeypatch.setattr(benches, "write_all", half)
            keep(ROWS[1])

    with pytest.raises(RunError, match="the disk is full"):
        filled()
    (found,) = run.benches()
    assert (found.rows, found.outcome, found.problem) == (tuple(ROWS[:1]), "stopped", "")
