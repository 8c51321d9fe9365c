"""Stopped at any moment, a command keeps what it finished and goes on from there."""

from __future__ import annotations

import shutil
import signal
import time
from pathlib import Path
from typing import Any

import pytest
from command_line import FAST, PROFILE, Shell, evaluations, start, without_times

from sensprobe.cli import main
from sensprobe.runs import open_run

PATIENCE_SECONDS = 300
LONG = ["profile", "s4d-smnist-16", "--data", "digits", *FAST]
STOPS = pytest.mark.parametrize(
    "stop",
    [signal.SIGINT, pytest.param(signal.SIGKILL, marks=pytest.mark.thorough)],
    ids=lambda s: s.name,
)


def stopped_after(count: int, run: Path, stop: signal.Signals, *argv: object) -> tuple[int, str]:
    """Start a command and stop it once it kept so many evaluations: exit code, stderr."""
    before = lines(run)
    process = start(count, *argv)
    deadline = time.monotonic() + PATIENCE_SECONDS
    while time.monotonic() < deadline and process.poll() is None:
        if lines(run) >= before + count:
            break
        time.sleep(0.01)
    assert process.poll() is None, "it ended before it was stopped"
    assert lines(run) == before + count
    process.send_signal(stop)
    _, err = process.communicate(timeout=PATIENCE_SECONDS)
    return process.returncode, err


def lines(run: Path) -> int:
    """Whole lines of evaluations in a run's index: cheap to ask while another process writes."""
    files = [file.read_bytes() for file in run.glob("evaluations/*.jsonl")]
    whole = [line for text in files for line in text.split(b"\n")[:-1]]
    return sum(line.startswith(b'{"kind":"evaluation"') for line in whole)


def results(run: Path) -> dict[str, Any]:
    """The documents of a run, less the times."""
    opened = open_run(run)
    return {name: without_times(opened.read_result(name)) for name in opened.results()}


@pytest.fixture(scope="module")
def long_profile(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A profile that takes a second or two, never stopped."""
    run = tmp_path_factory.mktemp("long") / "run"
    assert main([*LONG, "--run", str(run)]) == 0
    return run


@pytest.mark.thorough
@STOPS
def test_a_profile_goes_on(
    stop: signal.Signals, shell: Shell, long_profile: Path, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    asked = [*LONG, "--run", run]
    code, err = stopped_after(3, run, stop, *asked)
    if stop is signal.SIGINT:
        assert code == 130
        assert "the same command goes on from there" in err
        assert "Traceback" not in err
    kept = evaluations(run)
    assert 3 <= len(kept) < len(evaluations(long_profile))
    shell.ok(*asked)
    assert evaluations(run)[: len(kept)] == kept
    assert len(set(evaluations(run))) == len(evaluations(run))
    assert set(evaluations(run)) == set(evaluations(long_profile))
    assert results(run) == results(long_profile)


@STOPS
def test_a_search_goes_on(
    stop: signal.Signals, shell: Shell, searched: Path, profiled: Path, tmp_path: Path
) -> None:
    run = shutil.copytree(profiled, tmp_path / "run")
    asked = ["search", "--run", run, "--budget", "2KiB", "--budget", "1600", "--evaluations", 12]
    stopped_after(5, run, stop, *asked)
    kept = evaluations(run)
    shell.ok(*asked)
    again = evaluations(run)
    assert again[: len(kept)] == kept
    assert len(set(again)) == len(again)
    assert results(run) == results(searched)


@pytest.mark.parametrize("suffix", [".jsonl", ".bin"])
def test_a_torn_end_is_dropped_with_a_notice(
    suffix: str, shell: Shell, profiled: Path, tmp_path: Path
) -> None:
    run = shutil.copytree(profiled, tmp_path / "run")
    whole = evaluations(run)
    files = (run / "evaluations").glob(f"*{suffix}")
    segment = max(files, key=lambda path: path.stat().st_size)
    segment.write_bytes(segment.read_bytes()[:-7])
    done = shell.ok(*PROFILE, *FAST, "--limit", 64, "--run", run)
    assert segment.stem in done.err
    assert set(evaluations(run)) == set(whole)
    assert results(run) == results(profiled)
