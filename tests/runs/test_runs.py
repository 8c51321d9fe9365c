"""A run folder: made, opened, refused; its results and its state."""

import errno
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sensprobe.errors import RunError
from sensprobe.runs import Evaluation, EvaluationKey, Manifest, Run, manifest, open_run

MANIFEST = Manifest(
    model="s4d-digits",
    model_fingerprint="a" * 64,
    data="digits",
    data_fingerprint="b" * 64,
    semantics=1,
    sites={"layers.0.A": (16, 32), "head": (10, 16)},
    splits={"search": {"count": 400, "fingerprint": "c" * 64}},
    settings={"seed": 0},
)


def evaluation(plan: str = "p", start: int = 0, stop: int = 4, **meta: Any) -> Evaluation:
    key = EvaluationKey("a" * 64, "c" * 64, "search", start, stop, plan, "", 1)
    losses = np.arange(start, stop, dtype=np.float32)
    return Evaluation(key, {"cross_entropy": losses, "correct": losses > 1}, meta)


def tree(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if not p.is_dir()}


def test_a_run_remembers_its_inputs(tmp_path: Path) -> None:
    made = open_run(tmp_path / "deep" / "r", MANIFEST)
    opened = open_run(tmp_path / "deep" / "r")
    assert opened.manifest == made.manifest == MANIFEST
    assert opened.state == "new"
    assert opened.notices == []
    assert list(tree(tmp_path / "deep" / "r")) == ["run.json"]


def test_the_same_inputs_open_it_again(tmp_path: Path) -> None:
    open_run(tmp_path, MANIFEST)
    later = replace(MANIFEST, created="later", settings={"seed": 1}, model="./other-name.pt")
    assert open_run(tmp_path, later).manifest == MANIFEST


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"model": "x.pt", "model_fingerprint": "d" * 64},
            r"is a run of other inputs. model: it was made with s4d-digits \[aaaaaaaaaaaa\], "
            r"asked for x.pt \[dddddddddddd\]. Give --run another folder",
        ),
        (
            {"model_fingerprint": "d" * 64},
            r"asked for s4d-digits \[dddddddddddd\] \(the name is the same, its content has chang",
        ),
        ({"data": "npz:y", "data_fingerprint": "e" * 64}, r"data: it was made with digits \[bbbb"),
        ({"semantics": 2}, "semantics: it was made with 1, this sensprobe computes with 2"),
    ],
)
def test_other_inputs_are_refused_and_named(
    tmp_path: Path, change: dict[str, Any], message: str
) -> None:
    open_run(tmp_path, MANIFEST)
    before = tree(tmp_path)
    with pytest.raises(RunError, match=message):
        open_run(tmp_path, replace(MANIFEST, **change))
    assert tree(tmp_path) == before


def test_every_difference_is_named_at_once(tmp_path: Path) -> None:
    open_run(tmp_path, MANIFEST)
    other = replace(MANIFEST, model_fingerprint="d" * 64, data_fingerprint="e" * 64, semantics=3)
    with pytest.raises(RunError, match=r"model: .*; data: .*; semantics: "):
        open_run(tmp_path, other)


def test_a_folder_of_something_else_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("years of work")
    with pytest.raises(RunError, match=r"is not a run .* it holds thesis.tex. It was left untouch"):
        open_run(tmp_path, MANIFEST)
    assert tree(tmp_path) == {"thesis.tex": b"years of work"}


def test_a_draft_left_by_a_killed_process_is_not_something_else(tmp_path: Path) -> None:
    (tmp_path / ".run.json.123.abcd.tmp").write_text("{")
    assert open_run(tmp_path, MANIFEST).manifest == MANIFEST


def test_a_file_is_not_a_run(tmp_path: Path) -> None:
    (tmp_path / "f").touch()
    with pytest.raises(RunError, match="is a file; a run is a folder"):
        open_run(tmp_path / "f", MANIFEST)


def test_no_run_names_those_near_it(tmp_path: Path) -> None:
    open_run(tmp_path / "one", MANIFEST)
    with pytest.raises(
        RunError, match=r"no run at .*two; runs near it: .*one\. Make one with `sen"
    ):
        open_run(tmp_path / "two")
    with pytest.raises(RunError, match=r"is not a run; runs near it: .*one\."):
        open_run(tmp_path)
    assert not (tmp_path / "two").exists()


def test_two_processes_may_create_it_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    link = os.link

    def late(source: Any, target: Any) -> None:
        monkeypatch.setattr(os, "link", link)
        open_run(tmp_path / "r", MANIFEST)  # the other process, between our look and our link
        link(source, target)

    monkeypatch.setattr(os, "link", late)
    other = replace(MANIFEST, data_fingerprint="e" * 64)
    with pytest.raises(RunError, match="is a run of other inputs"):
        open_run(tmp_path / "r", other)
    assert open_run(tmp_path / "r").manifest == MANIFEST


def test_an_older_layout_can_be_read_and_not_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = open_run(tmp_path, MANIFEST)
    run.append(evaluation())
    run.write_result("table", [1])
    run.close()
    before = tree(tmp_path)
    monkeypatch.setattr(manifest, "VERSION", 2)
    old = open_run(tmp_path, MANIFEST)
    assert old.find(evaluation().key) is not None
    assert old.read_result("table") == [1]
    for write in (
        lambda: old.append(evaluation("q")),
        lambda: old.write_result("t", []),
        lambda: old.working("search").__enter__(),
    ):
        with pytest.raises(RunError, match="older layout 1 and can only be read; give --run a new"):
            write()
    assert tree(tmp_path) == before


def test_a_newer_layout_is_refused(tmp_path: Path) -> None:
    open_run(tmp_path, MANIFEST)
    path = tmp_path / "run.json"
    path.write_text(json.dumps({"version": 99, "tool": "9.0", "unknown": 1}))
    with pytest.raises(RunError, match=r"newer sensprobe \(layout 99, tool 9.0\).*upgrade"):
        open_run(tmp_path)


def test_fields_this_version_does_not_know_are_ignored(tmp_path: Path) -> None:
    open_run(tmp_path, MANIFEST)
    path = tmp_path / "run.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "mood": "good"}))
    assert open_run(tmp_path).manifest == MANIFEST


@pytest.mark.parametrize("body", ["", "{", "[]", "null", '{"version": "x"}', '{"version": 1}'])
def test_a_damaged_manifest_is_told(tmp_path: Path, body: str) -> None:
    (tmp_path / "run.json").write_text(body)
    with pytest.raises(RunError, match=r"run.json (cannot be read|lacks what a run needs)"):
        open_run(tmp_path)


def test_results_are_replaced_whole(tmp_path: Path) -> None:
    run = open_run(tmp_path, MANIFEST)
    assert run.read_result("sensitivity") is None
    run.write_result("sensitivity", {"rows": [1, 2]})
    run.write_result("sensitivity", {"rows": [3]})
    assert run.read_result("sensitivity") == {"rows": [3]}
    assert run.results() == ["sensitivity"]
    assert [p.name for p in (tmp_path / "results").iterdir()] == ["sensitivity.json"]


def test_results_are_strict_json(tmp_path: Path) -> None:
    run = open_run(tmp_path, MANIFEST)
    values = {"a": np.float32(0.5), "b": np.int64(3), "c": np.nan, "d": [np.inf], 4: Path("x/y")}
    run.write_result("t", {**values, "e": np.array([[1, 2]]), "f": (True, None), "g": np.True_})
    text = (tmp_path / "results" / "t.json").read_text()
    assert json.loads(text, parse_constant=pytest.fail) == {
        "a": 0.5, "b": 3, "c": None, "d": [None], "4": "x/y",
        "e": [[1, 2]], "f": [True, None], "g": True,
    }  # fmt: skip


@pytest.mark.parametrize("name", ["", "../run", "a/b", ".hidden", "a b"])
def test_a_result_cannot_leave_its_room(tmp_path: Path, name: str) -> None:
    run = open_run(tmp_path, MANIFEST)
    with pytest.raises(RunError, match="cannot name a result"):
        run.write_result(name, 1)
    with pytest.raises(RunError, match="cannot name a result"):
        run.read_result(name)


def test_a_damaged_result_is_told(tmp_path: Path) -> None:
    run = open_run(tmp_path, MANIFEST)
    run.write_result("t", 1)
    (tmp_path / "results" / "t.json").write_text("{")
    with pytest.raises(RunError, match=r"t.json cannot be read .*; delete it and run the command"):
        run.read_result("t")


def full(*_: Any, **__: Any) -> Any:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


@pytest.mark.parametrize("call", ["write", "replace", "fsync"])
def test_a_full_disk_keeps_the_old_result(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    run = open_run(tmp_path, MANIFEST)
    run.write_result("t", "old")
    before = tree(tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr(os, call, full)
        with pytest.raises(RunError, match="the disk is full; free some space and run the same"):
            run.write_result("t", "new")
    assert tree(tmp_path) == before


@pytest.mark.parametrize("call", ["write", "link", "mkdir"])
def test_a_full_disk_makes_no_half_a_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(os, call, full)
        with pytest.raises(RunError, match="the disk is full"):
            open_run(tmp_path / "deep" / "r", MANIFEST)
    assert list(tmp_path.iterdir()) == []


def test_forbidden_is_not_called_full(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def forbidden(*_: Any) -> None:
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(os, "replace", forbidden)
    with pytest.raises(
        RunError, match=r"permission is lacking .* choose a folder you can write to"
    ):
        open_run(tmp_path, MANIFEST).write_result("t", 1)


def interrupt_after(run: Run) -> None:
    run.append(evaluation())
    raise KeyboardInterrupt


def test_state_follows_the_work(tmp_path: Path) -> None:
    run, watcher = open_run(tmp_path, MANIFEST), open_run(tmp_path)
    with run.working("profile"):
        assert run.state == watcher.state == "running"
        assert [(w.pid, w.command) for w in watcher.writers()] == [(os.getpid(), "profile")]
    assert run.state == watcher.state == "finished"
    with pytest.raises(KeyboardInterrupt), run.working("search"):
        interrupt_after(run)
    assert run.state == watcher.state == "stopped"
    assert watcher.find(evaluation().key) is not None
    with run.working("search"):
        pass
    assert watcher.state == "finished"


WORKER = """
import sys
from sensprobe.runs import open_run
with open_run(sys.argv[1]).working("search"):
    print("ready", flush=True)
    sys.stdin.read()
"""


def test_a_killed_process_is_stopped_and_a_living_one_running(tmp_path: Path) -> None:
    run = open_run(tmp_path, MANIFEST)
    command = [sys.executable, "-c", WORKER, str(tmp_path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as worker:
        assert worker.stdout is not None
        assert worker.stdout.readline() == b"ready\n"
        assert run.state == "running"
        assert [w.pid for w in run.writers()] == [worker.pid]
        worker.send_signal(signal.SIGKILL)
    assert run.state == "stopped"
    assert run.writers() == []


def reused_pair(tmp_path: Path, change: dict[str, Any]) -> tuple[Run, Callable[[], Run]]:
    first = open_run(tmp_path / "first", replace(MANIFEST, **change))
    first.append(evaluation(label="mine"))
    first.close()
    return first, lambda: open_run(tmp_path / "second", MANIFEST, reuse=[tmp_path / "first"])


def test_a_run_that_is_named_is_used_and_copied(tmp_path: Path) -> None:
    first, open_second = reused_pair(tmp_path, {"settings": {"seed": 9}})
    before = tree(first.path)
    second = open_second()
    assert not second.holds(evaluation().key)
    found = second.find(evaluation().key)
    assert found is not None
    assert found.meta == {"label": "mine", "from_run": str(first.path.resolve())}
    assert tree(first.path) == before
    assert second.origins == open_run(tmp_path / "second").origins == {str(first.path): 1}
    assert second.holds(evaluation().key)
    alone = open_run(tmp_path / "second").find(evaluation().key)
    assert alone is not None
    assert np.array_equal(alone.arrays["cross_entropy"], found.arrays["cross_entropy"])


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"model_fingerprint": "x"}, "model"),
        ({"data_fingerprint": "x", "semantics": 2}, "data, another semantics"),
    ],
)
def test_a_named_run_of_other_inputs_is_refused(
    tmp_path: Path, change: dict[str, Any], named: str
) -> None:
    _, open_second = reused_pair(tmp_path, change)
    with pytest.raises(RunError, match=f"--reuse .*first: that run is of another {named}, so"):
        open_second()


def test_a_named_run_of_an_older_version_is_used_where_its_name_is_proved(tmp_path: Path) -> None:
    first, _ = reused_pair(tmp_path, {})
    asked = replace(MANIFEST, model_fingerprint="2-" + "a" * 62)
    key = replace(evaluation().key, model=asked.model_fingerprint)
    second = open_run(tmp_path / "second", asked, earlier=lambda: {"a" * 64}, reuse=[first.path])
    found = second.gather(key)
    assert found is not None
    assert found.key == key
    assert open_run(tmp_path / "second").holds(key)
    with pytest.raises(RunError, match="made by an older sensprobe, whose name for the model"):
        open_run(tmp_path / "third", asked, reuse=[first.path])


def test_a_run_beside_is_not_looked_at(tmp_path: Path) -> None:
    """Checksums tell damage and not who wrote a ledger, so a folder that lies there is not
    believed; and its damage is nobody's trouble."""
    first, _ = reused_pair(tmp_path, {})
    assert open_run(tmp_path / "second", MANIFEST).find(evaluation().key) is None
    (first.path / "run.json").write_text("{")
    second = open_run(tmp_path / "second", MANIFEST)
    assert second.find(evaluation().key) is None
    assert second.notices == []


def test_a_named_run_that_cannot_be_read_is_an_error(tmp_path: Path) -> None:
    first, open_second = reused_pair(tmp_path, {})
    (first.path / "run.json").write_text("{")
    with pytest.raises(RunError, match=r"first.run.json cannot be read"):
        open_second()
    with pytest.raises(RunError, match=r"--reuse .*none: there is no run"):
        open_run(tmp_path / "second", MANIFEST, reuse=[tmp_path / "none"])


def test_a_run_that_names_itself_is_itself(tmp_path: Path) -> None:
    run = open_run(tmp_path, MANIFEST, reuse=[tmp_path])
    run.append(evaluation())
    assert run.find(evaluation().key) is not None
    assert run.origins == {}


@pytest.mark.parametrize("room", ["evaluations", "results", "leases"])
def test_nothing_is_written_through_a_link(tmp_path: Path, room: str) -> None:
    run, elsewhere = open_run(tmp_path / "r", MANIFEST), tmp_path / "elsewhere"
    elsewhere.mkdir()
    (run.path / room).symlink_to(elsewhere)
    writes = {
        "evaluations": lambda: run.append(evaluation()),
        "results": lambda: run.write_result("t", 1),
        "leases": lambda: run.leased(evaluation().key, pytest.fail).__enter__(),
    }
    with pytest.raises(RunError, match=f"{room} is a link to .*elsewhere, and nothing is written"):
        writes[room]()
    assert list(elsewhere.iterdir()) == []
