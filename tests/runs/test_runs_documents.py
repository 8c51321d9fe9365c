"""A run whose documents someone changed: told in one sentence, and nothing outside is written."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import sensprobe_app

from sensprobe.errors import RunError
from sensprobe.jobs.export import plan_of
from sensprobe.report.gather import sites_of
from sensprobe.report.live import search_so_far
from sensprobe.report.writing import csv_bytes, write_report
from sensprobe.runs import EvaluationKey, open_run
from sensprobe.runs.record import seal, unseal

EXAMPLE = Path(sensprobe_app.__file__).parent / "example" / "s4d-digits"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    shutil.copytree(EXAMPLE, tmp_path / "run")
    return tmp_path / "run"


def edit(path: Path, change: Callable[[Any], Any]) -> None:
    document = json.loads(path.read_text())
    change(document)
    path.write_text(json.dumps(document))


@pytest.mark.parametrize(
    ("name", "change", "says"),
    [
        ("sensitivity-measured", lambda d: d.update(method="/../../x"), "method: .*not one of"),
        ("sensitivity-measured", lambda d: d.update(method="taylor"), "its name says measured"),
        ("sensitivity-measured", lambda d: d["rows"][4]["sites"].append("no"), "no site 'no'"),
        ("sensitivity-measured", lambda d: d["schemes"].append("int99"), "no format 'int99'"),
        ("sensitivity-measured", lambda d: d["rows"][0].update(scheme="fp8"), "none of its schem"),
        ("confirmation", lambda d: d.pop("plans"), "'plans' is a required property"),
        ("search", lambda d: d.pop("chosen"), "'chosen' is a required property"),
        ("search", lambda d: d["chosen"][0].update(candidate="p"), "there is no candidate 'p'"),
        ("search", lambda d: d["candidates"][1].update(name="p63e7"), "two of them have one name"),
        ("sites", lambda d: d[0].update(part="nosuch"), "0: its part or axes"),
    ],
)
def test_a_changed_result(name: str, change: Callable[[Any], Any], says: str, folder: Path) -> None:
    edit(folder / "results" / f"{name}.json", change)
    with pytest.raises(RunError, match=rf"{name}.json cannot be read \(.*{says}.*delete it"):
        open_run(folder).read_result(name)


def test_a_damaged_result_leaves_the_others(folder: Path) -> None:
    edit(folder / "results" / "sensitivity-measured.json", lambda d: d.update(method="../../x"))
    before = {p.name for p in folder.parent.iterdir()}
    files = write_report(open_run(folder))
    assert any("sensitivity-measured.json cannot be read" in said for said in files.missing)
    assert files.html.is_file()
    assert {p.name for p in folder.parent.iterdir()} == before


def test_a_report_is_not_written_through_a_link(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (folder / "report").symlink_to(tmp_path / "mine")
    with pytest.raises(RunError, match="is a link to"):
        write_report(open_run(folder))
    assert not list((tmp_path / "mine").iterdir())


def test_results_are_not_written_through_a_link(folder: Path, tmp_path: Path) -> None:
    shutil.move(folder / "results", tmp_path / "mine")
    (folder / "results").symlink_to(tmp_path / "mine")
    with pytest.raises(RunError, match="is a link to"):
        open_run(folder).write_result("search", {})


def test_pipes_and_folders_in_place_of_evaluations(folder: Path) -> None:
    count = open_run(folder).count
    os.mkfifo(folder / "evaluations" / "20990101T000000.000000Z-1-aaaaaa.jsonl")
    (folder / "evaluations" / "20990101T000000.000000Z-1-bbbbbb.jsonl").mkdir()
    (folder / "benches").mkdir()
    os.mkfifo(folder / "benches" / "a.jsonl")
    run = open_run(folder)
    assert run.count == count
    assert "a pipe or a device" in run.benches()[0].problem


def _resealed(path: Path, change: Callable[[dict[str, Any]], Any]) -> None:
    documents = [unseal(line) for line in path.read_bytes().splitlines()]
    found = next(d for d in documents if d is not None and d["kind"] == "evaluation")
    change(found)
    path.write_bytes(b"".join(seal(d) for d in documents if d is not None))


@pytest.mark.parametrize(
    "change",
    [
        lambda d: d.update(key=[1] * 8),
        lambda d: d["key"].pop(),
        lambda d: d.update(arrays=[]),
        lambda d: next(iter(d["arrays"].values())).__setitem__(1, "|O8"),
        lambda d: next(iter(d["arrays"].values())).__setitem__(2, 10**11),
        lambda d: d.pop("meta"),
        lambda d: d.update(end=-1),
    ],
)
def test_a_line_that_says_what_none_says(change: Callable[[Any], Any], folder: Path) -> None:
    whole = open_run(folder).count
    paths = sorted((folder / "evaluations").glob("*.jsonl"))
    path = next(p for p in paths if b'"kind":"evaluation"' in p.read_bytes())
    _resealed(path, change)
    run = open_run(folder)
    assert run.count == whole - 1
    assert "skipped 1 damaged line" in run.notices[0]


def test_a_plan_that_a_line_tells_is_checked(folder: Path) -> None:
    paths = sorted((folder / "evaluations").glob("*.jsonl"))
    for path in paths:
        if b'"kind":"evaluation"' in path.read_bytes():
            _resealed(path, lambda d: d["meta"].update(plan=[["head", "int99"], 5]))
    run = open_run(folder)
    assert search_so_far(run, sites_of(run)) is not None


def test_a_plan_of_a_search_names_its_run(folder: Path) -> None:
    def change(document: Any) -> None:
        for candidate in document["candidates"]:
            candidate["plan"]["sensprobe_plan"] = 7

    edit(folder / "results" / "search.json", change)
    run = open_run(folder)
    sites = {site.name: site for site in sites_of(run)}
    with pytest.raises(Exception, match=r"run: the plan .* version 7 is newer"):
        plan_of(run, "1.5KiB", sites)


def test_evaluations_of_any_size_are_not_read(folder: Path) -> None:
    name = folder / "evaluations" / "20990101T000000.000000Z-1-aaaaaa"
    for suffix in (".jsonl", ".bin"):
        with name.with_suffix(suffix).open("wb") as file:
            file.truncate(10**13)
    key = ["m", "d", "search", "p", "", 1, 0, 10**12]
    line = {"kind": "evaluation", "key": key, "end": 10**13, "arrays": {"x": [0, "<f8", 10**12, 0]}}
    large = name.with_name("20990101T000000.000000Z-1-bbbbbb.jsonl")
    large.write_bytes(seal({**line, "meta": {}, "created": ""}))
    shutil.move(name.with_suffix(".bin"), large.with_suffix(".bin"))
    run = open_run(folder)
    assert any("at most 1,073,741,824 are read" in notice for notice in run.notices)
    assert run.find(EvaluationKey("m", "d", "search", 0, 10**12, "p", "", 1)) is None


@pytest.mark.parametrize("name", ["optuna.db", "evaluations", "plans", "leases"])
def test_a_loop_of_links_in_place_of_what_is_written(name: str, folder: Path) -> None:
    if (folder / name).is_dir():
        shutil.rmtree(folder / name)
    (folder / name).unlink(missing_ok=True)
    (folder / name).symlink_to(name)
    with pytest.raises(RunError, match="is a link to"), open_run(folder).working("search"):
        pass


def test_texts_of_csv_files_have_no_control_characters() -> None:
    written = csv_bytes(pd.DataFrame({"plan": ["\x1b[31ma\u202eb", "\t=c"]})).decode("utf-8-sig")
    assert written == "plan\n�[31ma�b\n'�=c\n"
