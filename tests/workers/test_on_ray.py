"""Evaluations by actors of Ray, on one that is started here.

Where Ray is not installed these tests say so and are not run; `SENSPROBE_REQUIRE_RAY=1`, which CI
sets, makes its absence a failure.
"""

from __future__ import annotations

import importlib.util
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from worker_runs import Notes, made, metric

from sensprobe import api
from sensprobe.errors import UnsupportedError, UsageError, WorkerError
from sensprobe.runs import open_run
from sensprobe.session.open import open_session
from sensprobe.session.session import Session
from sensprobe.testing.executor import PIECES, PLANS, ExecutorContract
from sensprobe.workers import on_ray, working
from sensprobe.workers.dispatch import Workers
from sensprobe.workers.on_ray import OnRay

SCHEMES = ["int8/head/asym", "int4/head/asym/dynamic"]


@pytest.fixture(scope="module", autouse=True)
def ray() -> Iterator[object]:
    """A Ray of this module, which pools find and leave."""
    if importlib.util.find_spec("ray") is None:
        missing = "not run: Ray is not installed here; pip install -e '.[cluster]'"
        if os.environ.get("SENSPROBE_REQUIRE_RAY"):
            pytest.fail(missing)
        pytest.skip(missing)
    ray = on_ray._ray()
    on_ray._connect(ray, "ray:2")
    yield ray
    ray.shutdown()


class TestOnRay(ExecutorContract):
    @pytest.fixture(autouse=True)
    def _ended(self) -> Iterator[None]:
        self.made: list[Workers] = []
        yield
        for executor in self.made:
            executor.close()

    def put(self, session: Session, open_again: Callable[[], Session]) -> None:
        session.executor = Workers(session, OnRay(session, "ray:2"))
        self.made.append(session.executor)


def test_a_profile_and_a_search_on_ray_are_those_of_one_process(tmp_path: Path) -> None:
    found = {}
    for workers in (1, "ray"):
        run = tmp_path / str(workers)
        profile = api.profile("s4d-digits", "digits", run, SCHEMES, limit=96, workers=workers)
        search = api.search(run, ["1.5KiB"], method="frontier", limit=96, workers=workers)
        found[workers] = profile, search["search"]["chosen"], search["confirmation"], made(run)
        assert open_run(run).state == "finished"
    assert found[1] == found["ray"]


def test_an_actor_that_is_killed_is_replaced_and_its_plan_tried_again(tmp_path: Path) -> None:
    notes = Notes()
    session = open_session("s4d-digits", "digits", tmp_path / "run", progress=notes)
    pool = OnRay(session, "ray:2")
    executor, give = Workers(session, pool), pool.give
    killed: list[int] = []

    def give_and_kill(worker, task):  # type: ignore[no-untyped-def]
        give(worker, task)
        if not killed:
            killed.append(on_ray._ray().get(worker.actor.process.remote()))
            give(worker, task)
            os.kill(killed[0], signal.SIGKILL)

    pool.give = give_and_kill  # type: ignore[method-assign]
    rows = executor.submit(PLANS, PIECES)
    executor.close()
    want = open_session("s4d-digits", "digits").submit(PLANS, PIECES)
    for row, wanted in zip(rows, want, strict=True):
        assert all((a["kl"] == b["kl"]).all() for a, b in zip(row, wanted, strict=True))
    assert len(made(tmp_path / "run")) == len(set(made(tmp_path / "run"))) == 10
    assert any("a worker was ended" in text for text in notes.texts), (killed, notes.texts)


def test_what_another_command_was_faster_with_is_kept_once(tmp_path: Path) -> None:
    run = tmp_path / "run"
    session = open_session("s4d-digits", "digits", run)
    pool = OnRay(session, "ray:1")
    give = pool.give

    def give_late(worker, task):  # type: ignore[no-untyped-def]
        open_session("s4d-digits", "digits", run).submit([task.plan], task.pieces)
        give(worker, task)

    pool.give = give_late  # type: ignore[method-assign]
    executor = Workers(session, pool)
    executor.submit(PLANS[:2], PIECES)
    executor.close()
    assert len(made(run)) == len(set(made(run))) == 4
    assert len(list((run / "evaluations").glob("*.jsonl"))) == 2, "two sessions wrote nothing else"


def test_a_worker_of_another_version_evaluates_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(on_ray, "_release", lambda: "9.9")
    session = open_session("s4d-digits", "digits")
    with (
        working(session, "ray:1"),
        pytest.raises(WorkerError, match=r"asks 9\.9: install the same"),
    ):
        session.submit(PLANS[:1], PIECES)


def test_code_of_the_user_is_not_sent(tmp_path: Path) -> None:
    session = open_session("s4d-digits", "digits", metric=metric(tmp_path, "pass"))
    with pytest.raises(UsageError, match="not sent to other machines"):
        OnRay(session, "ray:1")


def test_no_cluster_is_one_sentence(ray, monkeypatch: pytest.MonkeyPatch) -> None:  # type: ignore[no-untyped-def]
    def refused(*_: object, **__: object) -> None:
        raise ConnectionError("Could not read\nray client at nowhere:1 timeout")

    monkeypatch.setattr(ray, "init", refused)
    monkeypatch.setattr(on_ray, "_reach", lambda address: None)
    with pytest.raises(WorkerError, match=r"nowhere:1 timeout\). Start a cluster with `ray start"):
        on_ray._connect(ray, "ray://nowhere:1")


def test_nobody_listens_is_said_at_once() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
        with pytest.raises(WorkerError, match=rf"ray://127\.0\.0\.1:{port}: no Ray .*refused"):
            on_ray._connect(on_ray._ray(), f"ray://127.0.0.1:{port}")


def test_without_ray_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "ray", None)
    with pytest.raises(UnsupportedError, match=r"pip install -e '\.\[cluster\]'"):
        OnRay(open_session("s4d-digits", "digits"), "ray")


@pytest.fixture
def short() -> Iterator[str]:
    """A folder of so short a name that sockets can lie in it."""
    with tempfile.TemporaryDirectory(prefix="ray", dir="/tmp", ignore_cleanup_errors=True) as name:
        yield name


@pytest.mark.slow
def test_a_cluster_that_was_started_before_is_used_by_its_address(
    tmp_path: Path, short: str
) -> None:
    """By Ray's client, as from another machine. Starting a head and its client's server takes half
    a minute on a machine that does nothing else."""
    ports = []
    while len(ports) < 2:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            ports.append(free.getsockname()[1])
    head = [
        *(sys.executable, "-m", "ray.scripts.scripts", "start", "--head", "--block"),
        *(f"--port={ports[0]}", f"--ray-client-server-port={ports[1]}", "--num-cpus=2"),
        *("--include-dashboard=false", f"--temp-dir={short}"),
    ]
    command = [
        *(sys.executable, "-m", "sensprobe", "profile", "s4d-digits", "--data", "digits"),
        *("--run", str(tmp_path / "run"), "--limit", "48"),
        *("--workers", f"ray://127.0.0.1:{ports[1]}"),
    ]
    alone = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    with subprocess.Popen(head, env=alone | {"RAY_AUTH_MODE": "token"}, **quiet) as started:
        try:
            until = time.monotonic() + 90
            while subprocess.run(command, env=alone, **quiet).returncode:
                assert time.monotonic() < until
        finally:
            started.terminate()
    assert open_run(tmp_path / "run").state == "finished"
    assert len(made(tmp_path / "run")) > 20
