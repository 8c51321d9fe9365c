"""A profile of many layers and sites: what is worst stands first, and all of it nowhere at once."""

from __future__ import annotations

from io import StringIO

import pytest
import report_documents as documents
from rich.console import Console

from sensprobe.report import charts, tables
from sensprobe.report.contents import Figure, _sensitivity
from sensprobe.report.drawing import screen
from sensprobe.report.prose import about_sensitivity
from sensprobe.report.read import read_sensitivity
from sensprobe.report.results import Sensitivity
from sensprobe.report.terminal import sensitivity_report

LAYERS = 24


@pytest.fixture
def many(monkeypatch) -> Sensitivity:
    """244 sites in 24 layers, 48 of them activations."""
    monkeypatch.setattr(documents, "LAYERS", LAYERS)
    return read_sensitivity(documents.sensitivity(by="site"))


def harm(found: Sensitivity, group: str) -> float:
    return max(-row.change.value for row in found.rows if row.group == group)


def test_a_map_of_many_groups_holds_the_worst_of_them(many) -> None:
    chart = charts.heat_map(many, most=60)
    names = [row[0].name for row in chart.cells.rows]
    others = {row.group for row in many.searched.rows} - {*names}
    assert len(names) == 60
    assert "the 60 worst of 196 weights and states" in chart.title
    assert min(harm(many, name) for name in names) >= max(harm(many, name) for name in others)
    harms = [harm(many, name) for name in names]
    assert harms == sorted(harms, reverse=True)
    few = read_sensitivity(documents.sensitivity())
    assert [row[0].name for row in charts.heat_map(few).cells.rows] == few.groups


def test_what_a_search_leaves_exact_is_not_what_hurts_most(many) -> None:
    kinds = {row.group: row.kind for row in many.rows}
    assert "activation" in {kinds[group] for group in tables.worst_first(many)[:60]}
    drawn = charts.ranking(many.searched)
    assert drawn.title == "What hurts most: the 40 worst of 196 weights and states"
    points = [point.name for series in drawn.series for point in series.points]
    assert {kinds[name] for name in points} <= {"weight", "state"}
    told = about_sensitivity(many)[-2]
    assert "of 196 weights and states lose beyond their error bar" in told
    assert "of 48 activations, which a search leaves exact" in told


def test_what_was_filtered_already_keeps_the_activations_that_it_has(many) -> None:
    for chart in (
        charts.heat_map(many, most=60, every=True), charts.ranking(many, every=True)
    ):  # fmt: skip
        assert "of 244 groups" in chart.title or "activations" in chart.title
    kinds = {row.group: row.kind for row in many.rows}
    kept, _ = tables.worst(many, most=60, every=True)
    assert "activation" in {kinds[group] for group in kept.groups}


def test_a_report_begins_with_layers_by_parts(many) -> None:
    figures = [b.chart for b in _sensitivity(many, layers=True).blocks if isinstance(b, Figure)]
    schemes = len(many.schemes)
    assert all("by layer and part" in chart.title for chart in figures[:schemes])
    assert "by site and scheme, the 60 worst" in figures[schemes].title
    assert len(figures[0].cells.rows) == LAYERS + 1
    assert max(chart.height for chart in figures) < 2000


def test_a_terminal_has_the_worst_and_says_where_the_others_are(many) -> None:
    console = Console(width=100, record=True, file=StringIO())
    console.print(sensitivity_report(many))
    text = console.export_text()
    assert len(text.splitlines()) < 90
    assert text.count("the 30 worst of 196 weights and states; all are in") == 2
    assert tables.worst_first(many.searched)[0] in text


def test_no_figure_of_many_sites_is_left_to_the_graphics_card(many) -> None:
    for chart in (charts.heat_map(many), charts.layer_map(many, many.schemes[-1])):
        assert {trace.type for trace in screen.draw(chart).data} == {"heatmap", "scatter"}
