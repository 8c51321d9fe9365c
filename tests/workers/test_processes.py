"""Evaluations by worker processes of this machine, and what is left when one of them ends."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from shutil import copyfile
from typing import Any

import pytest
from worker_runs import Notes, made, metric

from sensprobe import api, zoo
from sensprobe.errors import RunError, SensprobeError, UsageError, WorkerError
from sensprobe.plans.scheme import parse
from sensprobe.runs import open_run
from sensprobe.session.executor import Labelled, Piece
from sensprobe.session.open import open_session
from sensprobe.session.session import Session
from sensprobe.testing.executor import PIECES, PLANS, ExecutorContract
from sensprobe.workers import working
from sensprobe.workers.dispatch import Workers
from sensprobe.workers.processes import Processes
from sensprobe.workers.task import Task, keys_of, settings_of

SCHEMES = ["int8/head/asym", "int4/head/asym/dynamic"]


class TestProcesses(ExecutorContract):
    @pytest.fixture(autouse=True)
    def _ended(self) -> Iterator[None]:
        self.made: list[Workers] = []
        yield
        for executor in self.made:
            executor.close()

    def put(self, session: Session, open_again: Callable[[], Session]) -> None:
        session.executor = Workers(session, Processes(session, 2))
        self.made.append(session.executor)


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def until(true: Callable[[], Any], seconds: float = 60) -> bool:
    end = time.monotonic() + seconds
    while not (found := bool(true())) and time.monotonic() < end:
        time.sleep(0.05)
    return found


def test_a_profile_and_a_search_of_two_workers_are_those_of_one(tmp_path: Path) -> None:
    """All plans of a search that proposes none by what others scored; so all evaluations, too."""
    found = {}
    for workers in (1, 2):
        run = tmp_path / str(workers)
        profile = api.profile("s4d-digits", "digits", run, SCHEMES, limit=96, workers=workers)
        search = api.search(run, ["1.5KiB"], method="frontier", limit=96, workers=workers)
        found[workers] = profile, search["search"]["chosen"], search["confirmation"], made(run)
        assert open_run(run).state == "finished"
    assert found[1] == found[2]


def test_a_search_of_two_workers_finds_as_good_a_plan(tmp_path: Path) -> None:
    api.profile("s4d-digits", "digits", tmp_path / "run", SCHEMES, limit=96, workers=2)
    found = api.search(tmp_path / "run", ["1.5KiB"], evaluations=12, limit=96, workers=2)
    candidates = {one["name"]: one for one in found["search"]["candidates"]}
    [chosen] = found["search"]["chosen"]
    assert found["search"]["spent"] <= 12
    score = {name: one["metric"]["value"] for name, one in candidates.items() if one["metric"]}
    assert score[chosen["candidate"]] >= score[chosen["uniform"]]


def test_a_worker_that_is_killed_is_replaced_and_its_plan_tried_again(tmp_path: Path) -> None:
    once = 'mark = HERE / "killed"; mark.exists() or (mark.touch(), os.kill(os.getpid(), 9))'
    notes = Notes()
    run, name = tmp_path / "run", metric(tmp_path, once)
    session = open_session("s4d-digits", "digits", run, metric=name, progress=notes)
    with working(session, 2):
        rows = session.submit(PLANS, PIECES)
    local = open_session("s4d-digits", "digits", metric=name).submit(PLANS, PIECES)
    for row, want in zip(rows, local, strict=True):
        assert all((a["custom"] == b["custom"]).all() for a, b in zip(row, want, strict=True))
    assert len(made(run)) == len(set(made(run))) == len(PLANS) * len(PIECES)
    [told] = [text for text in notes.texts if "a worker was ended" in text]
    assert "SIGKILL" in told
    assert notes.units == len(PLANS) * sum(piece.stop - piece.start for piece in PIECES)


def test_a_plan_that_ends_every_worker_is_an_error_and_the_rest_is_kept(tmp_path: Path) -> None:
    name = metric(tmp_path, "os.kill(os.getpid(), 9)")
    session = open_session("s4d-digits", "digits", tmp_path / "run", metric=name)
    with working(session, 2), pytest.raises(WorkerError, match=r"ended twice, by SIGKILL.*--work"):
        session.submit(PLANS[:1], PIECES)
    with working(open_session(run=tmp_path / "run"), 2):
        pass
    assert open_run(tmp_path / "run").count == 0


def test_what_an_interrupt_leaves_is_kept_and_no_worker_stays(tmp_path: Path) -> None:
    """A command that is interrupted, and one that is killed."""
    for number in (signal.SIGINT, signal.SIGKILL):
        run = tmp_path / number.name
        name = metric(tmp_path, f'(HERE / f"{number.name}-{{os.getpid()}}").touch(); time.sleep(1)')
        command = [
            sys.executable, "-m", "sensprobe", "profile", "s4d-digits", "--data", "digits",
            "--run", str(run), "--metric", name, "--limit", "32", "--workers", "2",
        ]  # fmt: skip
        asking = subprocess.Popen(
            command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, start_new_session=True,
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
        )  # fmt: skip
        (tmp_path / "asking").write_text(str(asking.pid))
        assert until(lambda run=run: (run / "run.json").exists() and open_run(run).count > 2)
        workers = [int(p.name.split("-")[1]) for p in tmp_path.glob(f"{number.name}-*")]
        os.kill(asking.pid, number)
        _, errors = asking.communicate(timeout=60)
        assert asking.returncode == (130 if number is signal.SIGINT else -9)
        assert "Traceback" not in errors.decode()
        assert len(workers) == 2
        assert until(lambda workers=workers: not any(map(alive, workers)))
        kept = open_run(run)
        assert kept.state == "stopped"
        assert 2 < kept.count == len(list(kept.evaluations()))


def test_an_interrupt_ends_a_worker_that_does_not_hear_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sensprobe.workers.processes.LEAVING_SECONDS", 0.2)
    deaf = (
        'signal.signal(15, signal.SIG_IGN); (HERE / f"pid-{os.getpid()}").touch(); time.sleep(99)'
    )
    session = open_session("s4d-digits", "digits", metric=metric(tmp_path, deaf))
    pool = Processes(session, 1)
    worker = pool.start()
    [plan], pieces = PLANS[:1], tuple(PIECES)
    pool.give(worker, Task(plan, pieces, keys_of(session, plan, pieces), settings_of(session)))
    assert until(lambda: list(tmp_path.glob("pid-*")))
    pool.end([], [worker])
    assert not alive(worker.pid)


def test_that_the_process_which_starts_workers_was_killed_is_one_sentence(tmp_path: Path) -> None:
    pool = Processes(open_session("s4d-digits", "digits"), 2)
    worker, other = pool.start(), pool.start()
    assert pool._nursery is not None
    pool._nursery._process.kill()
    os.kill(worker.pid, signal.SIGKILL)
    said = "the process that starts workers ended, by SIGKILL.*run the command again"
    with pytest.raises(WorkerError, match=said):
        list(pool.finished([worker]))
    with pytest.raises(WorkerError, match=said):
        pool.start()
    pool.end([other], [])
    assert until(lambda: not alive(other.pid))


def test_an_error_of_a_plan_is_raised_here_and_workers_go_on(tmp_path: Path) -> None:
    name = metric(tmp_path, 'raise ValueError("no such thing")')
    session = open_session("s4d-digits", "digits", metric=name)
    with working(session, 2):
        for _ in range(2):
            with pytest.raises(SensprobeError, match="no such thing"):
                session.submit(PLANS[:3], PIECES)


def test_a_model_that_changed_while_a_command_runs_is_not_evaluated(tmp_path: Path) -> None:
    weights = tmp_path / "model.safetensors"
    copyfile(zoo.shipped()["s4d-digits"], weights)
    session = open_session(weights, "digits", tmp_path / "run")
    local = open_session(weights, "digits")
    copyfile(zoo.shipped()["s5-digits"], weights)
    with working(session, 2), pytest.raises(RunError, match="its content has changed"):
        session.submit(PLANS[:1], PIECES)
    with working(local, 2), pytest.raises(WorkerError, match="files changed while it ran"):
        local.submit(PLANS[:1], PIECES)
    assert open_run(tmp_path / "run").count == 0


def test_a_session_in_another_order_with_more_arrays_is_measured_alike(tmp_path: Path) -> None:
    here, there = (open_session("s4d-digits", "digits", metric="f1") for _ in range(2))
    for session in (here, there):
        session.samples.use("search", 40)
        session.predictions = True
        session.divergence = False
    plan = Labelled({"layers.0.state": parse("int4/head/dynamic/stochastic")}, "drawn")
    with working(there, 2):
        found, want = (s.submit([plan], [Piece("search", 3, 40)])[0][0] for s in (there, here))
    assert found.keys() == want.keys()
    assert all((found[name] == want[name]).all() for name in want)


def test_a_number_of_workers_that_cannot_be_is_refused(tmp_path: Path) -> None:
    for workers in (0, 1025, "ray:0", "rays", "ray://", "ray://a/b", "x"):
        with pytest.raises(UsageError, match=f"--workers {workers}: give a number"):
            api.profile("s4d-digits", "digits", tmp_path / "run", workers=workers)
    assert not (tmp_path / "run").exists()
