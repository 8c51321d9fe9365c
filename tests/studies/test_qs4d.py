"""Study 010: cells that are what they are named, and tables of what was measured."""

from __future__ import annotations

import qs4d_cells
import qs4d_tables as tables

from sensprobe.plans.plan import Plan, parse_setting
from sensprobe.session.source import open_model


def test_every_cell_rounds_what_it_names() -> None:
    sites = open_model("s4d-smnist-64").model.sites
    names = [cell.name for cell in qs4d_cells.cells()]
    assert len(names) == len(set(names))
    for cell in qs4d_cells.cells():
        resolved = Plan(tuple(map(parse_setting, cell.schemes))).resolve(sites.values())
        assert bool(resolved) == bool(cell.schemes), cell.name
        bits = {str(scheme).removeprefix("int").partition("/")[0] for scheme in resolved.values()}
        assert bits <= set(cell.name.split("-")), cell.name
    whole = next(cell for cell in qs4d_cells.cells() if cell.name == "everything-8")
    left = set(sites) - set(Plan(tuple(map(parse_setting, whole.schemes))).resolve(sites.values()))
    assert all(name.endswith("bias") for name in left)


def test_tables_are_those_of_what_was_measured() -> None:
    text = tables.README.read_text(encoding="utf-8")
    for table in tables.TABLES:
        assert table() in text, table.__name__


def test_full_precision_is_reached_where_nothing_is_lost_beyond_the_error() -> None:
    assert tables.reached({"value": -0.19, "stderr": 0.1}, 2000)
    assert not tables.reached({"value": -0.21, "stderr": 0.1}, 2000)
    assert tables.reached({"value": 0.5, "stderr": 0.1}, 2000)


def test_a_margin_is_over_chance(monkeypatch) -> None:
    rows = [{"noise": [{"value": 90.0, "stderr": 1.0}, {"value": 50.0, "stderr": 1.0}]}]
    monkeypatch.setattr(tables, "found_of", lambda cell: rows)
    assert [row[1] for row in tables._margins("noise")] == ["100%", "50%"]
