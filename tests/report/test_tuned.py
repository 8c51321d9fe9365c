"""Tuned models in report and figures: marks of their own, with errors, that claim no noise."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import report_documents as documents
import sensprobe_app
from rich.console import Console

from sensprobe.report import charts
from sensprobe.report.charts.chart import Chart, Series
from sensprobe.report.drawing import screen, text
from sensprobe.report.fronts import FrontView, at_batch
from sensprobe.report.gather import gather
from sensprobe.report.overview import run_line
from sensprobe.report.prose import about_tuned
from sensprobe.report.read import read_search, read_tuned
from sensprobe.report.results import Search
from sensprobe.report.terminal import tuned_table
from sensprobe.report.tuned import Tuning, table, tuned_beside
from sensprobe.report.writing import write_report
from sensprobe.runs import open_run

EXAMPLE = Path(sensprobe_app.__file__).parent / "example" / "s4d-digits"


@pytest.fixture(scope="module")
def found() -> Search:
    return read_search(documents.search())


@pytest.fixture(scope="module")
def document() -> dict[str, Any]:
    return documents.tuned(documents.search())


@pytest.fixture(scope="module")
def tuning(document: dict[str, Any]) -> Tuning:
    return read_tuned(document)


def series(chart: Chart, name: str) -> Series:
    return next(s for s in chart.series if s.name == name)


def test_a_tuned_model_stands_above_its_plan(found: Search, tuning: Tuning) -> None:
    drawn = charts.frontier(found, tuned=tuning)
    marks = series(drawn, "tuned").points
    assert [point.name for point in marks] == [plan.candidate for plan in tuning.plans]
    for point, plan in zip(marks, tuning.plans, strict=True):
        candidate = found.candidate(plan.candidate)
        assert candidate is not None
        assert point.x == candidate.total_bytes
        assert point.y == pytest.approx(100 * plan.search.after.value)
        assert point.y_error == pytest.approx((1.0, 1.0))
        line = next(s for s in drawn.series if s.dash == "dot" and s.points[1].x == point.x)
        assert line.points[0].y == pytest.approx(100 * plan.search.before.value)
    symbols = {s.look.symbol for s in drawn.series if s.points and s.marks and s.name != "tuned"}
    assert series(drawn, "tuned").look.symbol not in symbols


def test_it_follows_the_batch_and_the_budget(found: Search, tuning: Tuning) -> None:
    many = at_batch(found, 16)
    alone = replace(tuning.plans[0], asked_fingerprint="another")
    beside = tuned_beside(replace(tuning, plans=(alone, tuning.plans[0])), many)
    for plan in beside:
        same = many.candidate(plan.candidate)
        assert same is not None
        assert plan.total_bytes == same.total_bytes == plan.weight_bytes + 16 * alone.state_bytes
    view = FrontView(tuning.plans[0].total_bytes, feasible=True)
    assert len(series(charts.frontier(found, view, tuning), "tuned").points) == 1


def test_what_is_lost_is_drawn_too(found: Search, tuning: Tuning) -> None:
    drawn = charts.frontier(found, FrontView(loss=True), tuning)
    assert [p.y for p in series(drawn, "tuned").points] == pytest.approx([3.2, 17.2])
    lines = [s.points[0].y for s in drawn.series if s.dash == "dot"]
    assert lines == pytest.approx([38.2, 18.2])


def test_runs_are_compared_with_their_tuned_models(found: Search, tuning: Tuning) -> None:
    drawn = charts.fronts({"a": found, "b": found}, "share", {"a": tuning, "b": None})
    assert [s.name for s in drawn.series if s.points] == ["a", "a, tuned", "b"]
    marks = series(drawn, "a, tuned").points
    assert [p.y for p in marks] == pytest.approx([-3.2, -17.2])
    shares = [100 * plan.total_bytes / found.full_bytes for plan in tuning.plans]
    assert [p.x for p in marks] == pytest.approx(shares)


def test_results_are_those_of_the_confirmation_split(tuning: Tuning) -> None:
    shown = table(tuning)
    assert list(shown["untuned accuracy (%)"]) == ["61.0 ± 1.0", "80.0 ± 1.0"]
    assert list(shown["tuned accuracy (%)"]) == ["94.0 ± 1.0", "80.5 ± 1.0"]
    assert list(shown["gained (points)"]) == ["+33.0 ± 1.0", "· +0.5 ± 1.0"]
    drawn = charts.tuned(tuning)
    assert [p.y for p in series(drawn, "untuned").points] == pytest.approx([61, 80])
    assert [p.y for p in series(drawn, "tuned").points] == pytest.approx([94, 80.5])
    assert "400 confirmation samples" in drawn.y.title


def test_what_falls_is_not_called_a_gain(document: dict[str, Any]) -> None:
    bits = read_tuned({**document, "metric": "bits_per_byte", "sign": -1})
    assert bits.quantity.sign == -1
    assert [name for name in table(bits) if "tuning" in name or "gained" in name] == [
        f"by tuning ({bits.quantity.change_unit})" if bits.quantity.change_unit else "by tuning"
    ]


def test_noise_is_not_called_a_gain(tuning: Tuning) -> None:
    _, first, second = about_tuned(tuning)
    assert "+33.0 ± 1.0 points by tuning," in first
    assert "+0.5 ± 1.0 points (within the error) by tuning" in second


def test_every_drawer_draws_it(found: Search, tuning: Tuning) -> None:
    drawn = charts.frontier(found, tuned=tuning)
    assert "tuned" in {trace.name for trace in screen.draw(drawn).data}
    assert "✚ tuned" in text.draw(drawn).plain
    console = Console(width=100, record=True)
    console.print(tuned_table(tuning))
    said = console.export_text()
    assert "gained" in said
    assert "· +0.5 ± 1.0" in said


@pytest.mark.thorough
def test_a_report_of_a_run_that_was_tuned(tmp_path: Path) -> None:
    shutil.copytree(EXAMPLE, tmp_path / "run")
    run = open_run(tmp_path / "run")
    run.write_result("tuned", documents.tuned(run.read_result("search")))
    assert gather(open_run(run.path)).tuned is not None
    assert any(" tuned: 94.0 ± 1.0 %, " in line for line in run_line(run.path, tmp_path).best)
    files = write_report(open_run(run.path))
    assert (files.folder / "tuned.png").stat().st_size > 10_000
    assert "gained (points)" in (files.folder / "tuned.csv").read_text(encoding="utf-8-sig")
    page = files.html.read_text(encoding="utf-8")
    assert "What tuning gained" in page
