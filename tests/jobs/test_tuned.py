"""Tuned models of a run: where they land, the rows that the run keeps, and what is opened again."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from shipped_run import copy_searched

from sensprobe import api, zoo
from sensprobe.checkpoints.files import read_safetensors
from sensprobe.errors import RunError, UsageError
from sensprobe.jobs.tuned import folder_of
from sensprobe.report.gather import gather
from sensprobe.runs import open_run
from sensprobe.train import snapshot

FAST: dict[str, Any] = {"epochs": 1, "lr": 0.01, "ssm_lr": 0.002}
TUNED = "tuned/1.5KiB"


def copied(folder: Path) -> Path:
    """The run that ships, in a folder whose name a shell would take apart."""
    copy_searched(folder / "my run")
    return folder / "my run"


def rows(run: Path) -> list[dict[str, Any]]:
    return json.loads((run / "results" / "tuned.json").read_text())["plans"]


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run in which the plan for 1.5KiB was tuned. Read only."""
    run = copied(tmp_path_factory.mktemp("kept"))
    api.tune(None, None, "1.5KiB", run=run, **FAST)
    return run


@pytest.fixture
def run(kept: Path, tmp_path: Path) -> Path:
    shutil.copytree(kept, tmp_path / "my run")
    return tmp_path / "my run"


def test_a_tuning_lands_in_its_run(kept: Path) -> None:
    folder = kept / "tuned" / "1.5KiB"
    document = json.loads((folder / "tuned.json").read_text())
    names = {"weights.safetensors", "snapshot.safetensors", "plan.json", "tuned.json"}
    assert {path.name for path in folder.iterdir()} == names
    (row,) = rows(kept)
    search = json.loads((kept / "results" / "search.json").read_text())
    chosen = next(c["candidate"] for c in search["chosen"] if c["budget"] == "1.5KiB")
    candidate = next(c for c in search["candidates"] if c["name"] == chosen)
    assert (row["name"], row["folder"]) == ("1.5KiB", TUNED)
    assert row["candidate"] == chosen
    assert row["asked_fingerprint"] == row["plan_fingerprint"] == candidate["plan_fingerprint"]
    for key in ("weight_bytes", "state_bytes", "total_bytes"):
        assert row[key] == candidate[key]
    assert row["splits"] == document["splits"]
    assert row["splits"]["search"]["before"]["value"] == candidate["metric"]["value"]
    assert (row["epochs"], row["steps"]) == (1, document["steps"])
    assert 0 < row["seconds"] < 600


def test_a_plan_has_one_row(run: Path) -> None:
    before = rows(run)
    api.tune(None, None, "1.5KiB", run=run, restart=True, **FAST | {"seed": 3})
    (again,) = rows(run)
    assert again["plan_fingerprint"] == before[0]["plan_fingerprint"]
    assert again["weights_fingerprint"] != before[0]["weights_fingerprint"]
    api.tune(None, None, "1.75KiB", run=run, **FAST)
    assert [row["name"] for row in rows(run)] == ["1.5KiB", "1.75KiB"]


def test_a_folder_that_is_used_again_has_one_row(run: Path) -> None:
    out = run / TUNED
    api.tune(None, None, "1.75KiB", out, run=run, restart=True, **FAST)
    (row,) = rows(run)
    assert (row["name"], row["folder"]) == ("1.75KiB", TUNED)


def test_a_plan_whose_ranges_are_learned_has_one_row(run: Path, tmp_path: Path) -> None:
    """By the plan that was asked for: what is learned is another every time."""
    plan = {"*.out_proj_in": "int4", "*.C": "int3"}
    asked = {**FAST, "run": run, "ranges": "learned"}
    api.tune(None, None, plan, run / "tuned" / "a", **asked)
    before = rows(run)[1]
    document = api.tune(None, None, plan, run / "tuned" / "b", **asked | {"seed": 3})
    _, row = rows(run)
    assert row["asked_fingerprint"] == before["asked_fingerprint"] != row["plan_fingerprint"]
    assert row["plan_fingerprint"] != before["plan_fingerprint"]
    assert row["folder"] == "tuned/b"
    scored = api.evaluate(None, None, document["plan_in_run"], run=run)
    assert scored["value"] == row["splits"]["confirmation"]["after"]["value"]


def test_it_scores_and_exports_what_its_row_says(run: Path, tmp_path: Path) -> None:
    said = rows(run)[0]["splits"]["confirmation"]
    count = open_run(run).count
    scored = api.evaluate(None, None, TUNED, run=run)
    assert {key: scored[key] for key in said["after"]} == said["after"]
    made = api.export(run, TUNED, tmp_path / "out")
    again = api.evaluate(tmp_path / "out", "digits")
    assert again["value"] == said["after"]["value"] != said["before"]["value"]
    assert made["confirmed"]["gained"] == said["gained"]
    card = (tmp_path / "out" / "README.md").read_text()
    assert "trained under its plan" in card
    assert "What training under the plan changed: " in card
    assert open_run(run).count == count


def test_the_name_of_a_file_of_the_run(run: Path) -> None:
    shutil.rmtree(run / "tuned")
    document = api.tune(None, None, run / "plans" / "1.5KiB.json", run=run, **FAST)
    assert document["plan_in_run"] == TUNED
    assert [row["folder"] for row in rows(run)] == [TUNED]


def test_the_name_of_a_folder_is_safe(run: Path) -> None:
    assert folder_of(open_run(run), "loss<=0.5%") == run / "tuned" / "loss-0.5percent"
    assert folder_of(open_run(run), "../../x") == run / "tuned" / "x"


def test_it_goes_on_where_it_stopped(
    kept: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = {**FAST, "epochs": 2}
    whole = api.tune(None, None, "1.5KiB", tmp_path / "whole", run=copied(tmp_path), **asked)
    (tmp_path / "again").mkdir()
    run, write = copied(tmp_path / "again"), snapshot.write_snapshot

    def stop(*values: Any) -> None:
        write(*values)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("sensprobe.train.loop.write_snapshot", stop)
        with pytest.raises(KeyboardInterrupt):
            api.tune(None, None, "1.5KiB", run=run, **asked)
    assert not (run / "results" / "tuned.json").exists()
    first = read_safetensors(run / TUNED / "snapshot.safetensors")[1]["seconds"]
    document = api.tune(None, None, "1.5KiB", run=run, **asked)
    assert document["weights_fingerprint"] == whole["weights_fingerprint"]
    assert document["seconds"] > first > 0
    (row,) = rows(run)
    assert row["splits"] == whole["splits"]


def test_a_restart_that_is_stopped_leaves_no_document_of_the_one_before(
    run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(*values: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("sensprobe.train.loop.write_snapshot", stop)
    with pytest.raises(KeyboardInterrupt):
        api.tune(None, None, "1.5KiB", run=run, restart=True, **FAST | {"seed": 3})
    assert [path.name for path in (run / TUNED).iterdir()] == ["weights.safetensors"]
    with pytest.raises(RunError, match="is not the model that was tuned as"):
        api.evaluate(None, None, TUNED, run=run)


def test_a_tuning_elsewhere_is_kept_and_not_followed(run: Path, tmp_path: Path) -> None:
    out = tmp_path / "elsewhere"
    api.tune(None, None, "1.75KiB", out, run=run, **FAST)
    row = rows(run)[1]
    assert row["folder"] == str(out)
    with pytest.raises(RunError, match=r"outside of .*Move that folder to .*1\.75KiB"):
        api.export(run, "tuned/1.75KiB", tmp_path / "out")
    shutil.move(out, run / "tuned" / "1.75KiB")
    api.tune(None, None, "1.75KiB", run=run, **FAST)
    assert rows(run)[1] == row | {"folder": "tuned/1.75KiB"}
    api.export(run, "tuned/1.75KiB", tmp_path / "out")


def test_a_tuned_model_that_there_is_not(run: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"no tuned model 'tuned/9KiB'.*tuned/1\.5KiB"):
        api.export(run, "tuned/9KiB", tmp_path / "out")
    shutil.rmtree(run / "tuned")
    with pytest.raises(RunError, match="is gone"):
        api.export(run, TUNED, tmp_path / "out")
    with pytest.raises(UsageError, match="--out, or a run with --run"):
        api.tune("s4d-digits", "digits", {"*.out_proj": "int3"})


@pytest.mark.parametrize("folder", ["a" * 300, "tuned/it\ns", "tuned/.hidden"])
def test_a_folder_that_cannot_be_one(folder: str, run: Path, tmp_path: Path) -> None:
    path = run / "results" / "tuned.json"
    document = json.loads(path.read_text())
    document["plans"][0]["folder"] = folder
    path.write_text(json.dumps(document))
    with pytest.raises(RunError, match="cannot name a file in"):
        api.export(run, TUNED, tmp_path / "out")


@pytest.mark.parametrize("inner", ["tuned", TUNED, f"{TUNED}/weights.safetensors"])
def test_links_are_not_followed(inner: str, run: Path, tmp_path: Path) -> None:
    shutil.move(run / inner, tmp_path / "theirs")
    (run / inner).symlink_to(tmp_path / "theirs")
    with pytest.raises(RunError, match="is a link"):
        api.export(run, TUNED, tmp_path / "out")


def test_nothing_is_tuned_into_a_link(run: Path, tmp_path: Path) -> None:
    shutil.move(run / "tuned", tmp_path / "theirs")
    (run / "tuned").symlink_to(tmp_path / "theirs")
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "theirs").rglob("*")}
    with pytest.raises(RunError, match="is a link"):
        api.tune(None, None, "1.75KiB", run=run, **FAST)
    assert {p: p.stat().st_mtime_ns for p in (tmp_path / "theirs").rglob("*")} == before


CHANGES: dict[str, Callable[[dict[str, Any]], Any]] = {
    "leads elsewhere": lambda d: d["plans"][0].update(folder="tuned/../../x"),
    "two rows are of one plan": lambda d: d["plans"].append(d["plans"][0]),
    "no format 'int99'": lambda d: d["plans"][0]["plan"]["schemes"].append(["head", "int99"]),
    "'splits' is a required property": lambda d: d["plans"][0].pop("splits"),
    "splits/search/after": lambda d: d["plans"][0]["splits"]["search"].update(after=None),
}


@pytest.mark.parametrize("says", CHANGES)
def test_a_damaged_result_is_told_before_anything_is_trained(says: str, run: Path) -> None:
    path = run / "results" / "tuned.json"
    document = json.loads(path.read_text())
    CHANGES[says](document)
    path.write_text(json.dumps(document))
    with pytest.raises(RunError, match=rf"tuned.json cannot be read \(.*{says}.*delete it"):
        api.tune(None, None, "1.75KiB", run=run, **FAST)
    assert not (run / "tuned" / "1.75KiB").exists()
    assert any("tuned.json cannot be read" in said for said in gather(open_run(run)).missing)


def test_other_weights_under_the_name_of_a_tuned_model(run: Path, tmp_path: Path) -> None:
    shutil.copy(zoo.shipped()["s4d-digits"], run / TUNED / "weights.safetensors")
    with pytest.raises(RunError, match="is not the model that was tuned as"):
        api.export(run, TUNED, tmp_path / "out")
