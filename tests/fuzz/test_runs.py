"""Damaged runs: what can be read is shown, the rest is an error of ours; no write leaves them."""

from __future__ import annotations

import contextlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from random import Random

import pytest
import sensprobe_app
from damage import damage_json, edited, in_time, put_in_place, require_short, scrambled

from sensprobe.errors import SensprobeError
from sensprobe.report.gather import gather, sites_of
from sensprobe.report.live import search_so_far
from sensprobe.report.overview import overview
from sensprobe.report.page import render
from sensprobe.report.writing import write_report
from sensprobe.runs import Run, open_run
from sensprobe.runs.record import seal, unseal
from sensprobe.steps.exporting import plan_of
from sensprobe.steps.problem import build_space
from sensprobe.steps.searching import sensitivity_of

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
    plan, _, _ = plan_of(run, "1.5KiB")
    plan.resolve(sites_of(run))


USES: tuple[Callable[[Run], object], ...] = (
    read_all,
    lambda run: render(gather(run)),
    lambda run: search_so_far(run, sites_of(run)),
    searched,
    exported,
    lambda run: run.benches(),
)


@pytest.mark.parametrize("count", [3, pytest.param(300, marks=pytest.mark.slow)])
def test_damaged_runs(count: int, tmp_path: Path) -> None:
    random = Random(17)
    whole = tmp_path / "runs" / "whole"
    shutil.copytree(EXAMPLE, whole)
    for k in range(count):
        run = tmp_path / "runs" / "damaged"
        shutil.copytree(EXAMPLE, run)
        spoil(run, random)
        with in_time():
            assert {line.name: line.problem for line in overview(tmp_path / "runs")}["whole"] == ""
        try:
            with in_time():
                opened = open_run(run)
        except SensprobeError as error:
            require_short(error)
        else:
            for use in USES:
                with in_time():
                    try:
                        use(opened)
                    except SensprobeError as error:
                        require_short(error)
            if k % 10 == 0:
                with contextlib.suppress(SensprobeError):
                    write_report(opened)
        assert sorted(p.name for p in tmp_path.iterdir()) == ["runs"]
        assert sorted(p.name for p in (tmp_path / "runs").iterdir()) == ["damaged", "whole"]
        shutil.rmtree(run)
