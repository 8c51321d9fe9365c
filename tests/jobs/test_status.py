"""Who works on a run: commands and workers, while they do."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import pytest

from sensprobe import api
from sensprobe.runs import Followed, open_run
from sensprobe.runs.ledger import Writer
from sensprobe.runs.record import seal

SLOW = """
import time

def right(outputs, targets):
    time.sleep(0.2)
    return (outputs.argmax(-1) == targets).float()

right.unit = "fraction"
"""


def test_a_command_and_its_workers_are_told_with_rate_and_time_left(tmp_path: Path) -> None:
    (tmp_path / "slow.py").write_text(SLOW, encoding="utf-8")
    run = tmp_path / "run"
    command = [
        *(sys.executable, "-m", "sensprobe", "profile", "s4d-digits", "--data", "digits"),
        *("--run", str(run), "--limit", "32", "--metric", f"python:{tmp_path / 'slow.py'}:right"),
        *("--workers", "2"),
    ]
    found = None
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as asking:
        until = time.monotonic() + 90
        while asking.poll() is None and time.monotonic() < until:
            time.sleep(0.2)
            if (run / "run.json").exists():
                told = api.status(run)
                left = [row["seconds_left"] for row in told["processes"]]
                if (
                    len(left) == 3
                    and left[0]
                    and all(r["evaluations"] for r in told["processes"][1:])
                ):
                    found = told
        assert asking.wait() == 0
    assert found is not None
    assert found["state"] == "running"
    profile, *workers = found["processes"]
    assert (profile["command"], profile["pid"]) == ("profile", asking.pid)
    assert profile["title"].startswith("profiling 61 target-scheme pairs on 32 samples")
    assert 0 < profile["share"] < 1
    assert 0 < profile["seconds_left"] < 90
    assert [row["command"] for row in workers] == ["worker", "worker"]
    assert all(row["per_minute"] > 0 for row in workers)
    assert sum(row["evaluations"] for row in found["processes"]) == found["evaluations"]
    ended = api.status(run)
    assert (ended["state"], ended["processes"]) == ("finished", [])
    assert ended["evaluations"] == open_run(run).count > 60


@pytest.mark.parametrize("bad", [{"title": 3, "done": "x", "total": []}, {}, {"created": 5}])
def test_lines_of_others_that_make_no_sense_tell_nothing(tmp_path: Path, bad: dict) -> None:  # type: ignore[type-arg]
    api.profile("s4d-digits", "digits", tmp_path / "run", ["int8/head/asym"], limit=16)
    run = open_run(tmp_path / "run")
    with run.working("search"):
        writer = run._writer
        assert writer is not None
        with writer.lines_path.open("ab") as stream:
            stream.write(seal({"kind": "progress", **bad}))
        [row] = api.status(tmp_path / "run")["processes"]
        assert (row["share"], row["seconds_left"]) == (None, None)
    assert not open_run(tmp_path / "run").notices


def test_progress_is_handed_on_and_told_now_and_then(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    heard: list[object] = []

    class Heard:
        def begin(self, title: str, total: float, seconds: float | None = None) -> None:
            heard.append((title, total, seconds))

        def advance(self, units: float = 1) -> None:
            heard.append(units)

        def end(self) -> None:
            heard.append("end")

        def note(self, text: str) -> None:
            heard.append(text)

    api.profile("s4d-digits", "digits", tmp_path / "run", ["int8/head/asym"], limit=16)
    run = open_run(tmp_path / "run")
    followed = Followed(Heard(), run)
    monkeypatch.setattr("sensprobe.runs.followed.TOLD_SECONDS", 0.0)
    with run.working("search"):
        followed.begin("first", 10, 3.0)
        followed.advance(4)
        followed.note("words")
        [writer] = run.writers()
        assert isinstance(writer, Writer)
        assert (writer.title, writer.done, writer.total) == ("first", 4, 10)
        followed.end()
        followed.advance(1)
        followed.begin("second", 2)
        [writer] = run.writers()
        assert (writer.title, writer.done, writer.seconds) == ("second", 0, 0)
    followed.begin("nobody works", 1)
    assert heard == [
        ("first", 10, 3.0), 4, "words", "end", 1, ("second", 2, None), ("nobody works", 1, None)
    ]  # fmt: skip
