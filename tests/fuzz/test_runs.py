"""Damaged runs: what can be read is shown, the rest is an error of ours; no write leaves them.

Everything happens in this process, on a run of a small model and a few samples, so that hundreds
of runs take minutes: what draws pictures with Matplotlib or reads Optuna's file takes seconds, and
is done for some of them.
"""

from __future__ import annotations

import json
import shutil
import traceback
from collections.abc import Callable
from pathlib import Path
from random import Random

import pytest
import report_documents as documents
import sensprobe_app
from damage import damage_json, edited, in_time, put_in_place, require_short, scrambled

from sensprobe.cli import main
from sensprobe.errors import SensprobeError
from sensprobe.jobs.export import plan_of
from sensprobe.jobs.problem import build_space
from sensprobe.jobs.search import sensitivity_of
from sensprobe.jobs.tuned import tuned_rows
from sensprobe.report.course import going
from sensprobe.report.gather import gather, sites_of
from sensprobe.report.live import search_so_far
from sensprobe.report.overview import overview
from sensprobe.report.page import render
from sensprobe.report.writing import write_report
from sensprobe.runs import Run, open_run
from sensprobe.runs.record import seal, unseal

EXAMPLE = Path(sensprobe_app.__file__).parent / "example" / "s4d-digits"


def spoil(run: Path, random: Random) -> None:
    """Damage one to three files."""
    for _ in range(random.choice((1, 1, 2, 3))):
        files = sorted(p for p in run.rglob("*") if p.is_file() and p.name != "notes")
        if not files:
            return
        path = random.choice(files)
        if random.random() < 0.15:
            put_in_place(random.choice((path, path.parent)) if path.parent != run else path, random)
        elif path.suffix == ".json" and path.read_bytes()[:1] in (b"{", b"["):
            try:
                damage_json(path, random)
            except (ValueError, RecursionError):  # it was damaged before
                path.write_bytes(scrambled(path.read_bytes(), random))
        elif path.suffix == ".jsonl" and random.random() < 0.6:
            resealed(path, random)
        else:
            path.write_bytes(scrambled(path.read_bytes(), random))


def resealed(path: Path, random: Random) -> None:
    """A line of evaluations that says something else and has a checksum that fits."""
    lines = path.read_bytes().splitlines()
    k = random.randrange(len(lines))
    document = unseal(lines[k])
    if document is not None:
        changed = json.loads(edited(document, random))
        if isinstance(changed, dict):
            lines[k] = seal(changed)[:-1]
    path.write_bytes(b"\n".join(lines) + b"\n")


def read_all(run: Run) -> None:
    run.refresh()
    _ = run.state, run.count, run.notices
    for _ in run.evaluations():
        pass


def searched(run: Run) -> None:
    """What a search and an export do before they need the model."""
    sites = {site.name: site for site in sites_of(run)}
    document = sensitivity_of(run)
    if sites and all(s in sites for row in document["rows"] for s in row["sites"]):
        build_space(sites, document)


def exported(run: Run) -> None:
    sites = {site.name: site for site in sites_of(run)}
    plan, _, _ = plan_of(run, "1.5KiB", sites)
    plan.resolve(sites.values())


def told(run: Run) -> None:
    """The convergence of a search, which asks Optuna's file."""
    if (search := gather(run).search) is not None:
        going(run, search)


def command(*words: str) -> Callable[[Run], object]:
    """One of the command line. With --debug, main takes no exception for one of ours."""
    return lambda run: main([words[0], "--run", str(run.path), *words[1:], "--debug"])


READS: tuple[Callable[[Run], object], ...] = (
    read_all,
    lambda run: render(gather(run)),
    lambda run: search_so_far(run, sites_of(run)),
    searched,
    exported,
    tuned_rows,
    lambda run: run.benches(),
)
COMMANDS: tuple[Callable[[Run], object], ...] = (
    command("eval", "--set", "*=int8", "--limit", "8", "--split", "search"),
    command("export", "--plan", "1.5KiB", "--out", "out", "--overwrite"),
    command("search", "--budget", "2000B", "--evaluations", "1", "--no-confirm", "--limit", "16"),
)
SLOW: tuple[Callable[[Run], object], ...] = (told, write_report)


def content(folder: Path) -> dict[str, bytes]:
    return {str(p): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


@pytest.mark.parametrize("count", [3, pytest.param(300, marks=pytest.mark.slow)])
def test_damaged_runs(count: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    random, runs = Random(17), tmp_path / "runs"
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("SENSPROBE_TRUST", str(tmp_path / "allowed"))
    shutil.copytree(EXAMPLE, runs / "whole")
    whole = open_run(runs / "whole")
    whole.write_result("tuned", documents.tuned(whole.read_result("search")))
    kept = content(runs / "whole")
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    if count > 3:
        warm(runs / "damaged")
    for k in range(count):
        run = runs / "damaged"
        shutil.copytree(runs / "whole", run)
        spoil(run, random)
        uses = (*READS, *(COMMANDS if count > 3 else ()), *(SLOW if k % 25 == 24 else ()))
        problem = used(run, uses, {line.name: line.problem for line in overview(runs)})
        assert problem == "", f"damaged run {k}: {problem}"
        assert {p.name for p in tmp_path.iterdir()} <= {"runs", "here", "allowed"}
        assert {p.name for p in (tmp_path / "here").iterdir()} <= {"out"}
        assert sorted(p.name for p in runs.iterdir()) == ["damaged", "whole"]
        assert content(runs / "whole") == kept
        shutil.rmtree(run)


def warm(folder: Path) -> None:
    """Imports and compiling are no part of what a damaged run takes."""
    shutil.copytree(EXAMPLE, folder)
    for use in (*READS, *COMMANDS, *SLOW):
        use(open_run(folder))
    shutil.rmtree(folder)


def used(folder: Path, uses: tuple[Callable[[Run], object], ...], seen: dict[str, str]) -> str:
    """What went wrong with a damaged run, "" for nothing."""
    if seen["whole"]:
        return f"the whole run beside it: {seen['whole']}"
    try:
        with in_time():
            opened = open_run(folder)
    except SensprobeError as error:
        require_short(error)
        return ""
    for number, use in enumerate(uses):
        try:
            with in_time():
                use(opened)
        except SensprobeError as error:
            require_short(error)
        except Exception as error:
            traceback.print_exc()
            return f"use {number}: {type(error).__name__}: {error}"
    return ""
