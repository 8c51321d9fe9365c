"""The next change of a plan, what whole rows are set to, and what plans are called."""

from __future__ import annotations

from math import hypot
from pathlib import Path

import pytest
import sensprobe_app

from sensprobe.models import FAMILIES
from sensprobe.plans.cost import cost
from sensprobe.plans.presets import PRESETS, family_by_sites, presets_for
from sensprobe.report import charts
from sensprobe.report.changes import changes, saving, spending, with_paired_errors
from sensprobe.report.drawing import screen
from sensprobe.report.editing import edited, predicted, set_many
from sensprobe.report.gather import gather
from sensprobe.report.names import told_apart
from sensprobe.report.plans import resolved
from sensprobe.report.ranges import read_values
from sensprobe.runs import open_run
from sensprobe.session.outline import outline_of

EXAMPLE = Path(sensprobe_app.__file__).parent / "example" / "s4d-digits"


@pytest.fixture(scope="module")
def run():
    return open_run(EXAMPLE)


@pytest.fixture(scope="module")
def found(run):
    return gather(run)


@pytest.fixture(scope="module")
def chosen(found):
    return found.search.candidate(found.search.chosen[0].candidate).entries


@pytest.mark.parametrize("batch", [1, 64])
def test_a_change_adds_the_bytes_and_the_loss_that_the_plan_with_it_has_more(found, chosen, batch):
    sites, profile = found.sites, found.measured
    every = changes(chosen, sites, profile, batch)

    def of(entries):
        return cost(sites, resolved(entries, sites), batch=batch).total_bytes

    for change in every:
        after = edited(chosen, change.schemes, sites)
        assert of(after) - of(chosen) == change.bytes
        guess = predicted(after, sites, profile)
        assert not guess.unpriced
        lost = predicted(chosen, sites, profile).loss.value
        assert guess.loss.value - lost == pytest.approx(change.loss.value, abs=1e-12)
    assert {change.bytes < 0 for change in every} == {True, False}


def test_what_loses_least_a_byte_stands_first_and_each_group_once(found, chosen):
    every = changes(chosen, found.sites, found.measured)
    saves, wins = saving(every), spending(every)
    assert [c.rate for c in saves] == sorted(c.rate for c in saves)
    assert len({c.group for c in saves}) == len(saves) > 1
    best = min(c.loss.value / c.bytes for c in every if c.bytes > 0)
    assert wins[0].loss.value / wins[0].bytes == best
    assert all(c.loss.value < 0 for c in wins)


def test_losses_are_taken_sample_by_sample_where_both_sides_were_measured(run, found, chosen):
    every = saving(changes(chosen, found.sites, found.measured))
    rows = found.measured.grid
    for plain, paired in zip(every, with_paired_errors(every, run), strict=True):
        before, after = (rows[plain.group, text].additive for text in (plain.before, plain.after))
        assert paired.loss.value == pytest.approx(plain.loss.value)
        assert plain.loss.stderr == hypot(before.stderr, after.stderr)
        assert abs(before.stderr - after.stderr) <= paired.loss.stderr < plain.loss.stderr


def test_a_group_whose_scheme_no_profile_priced_has_no_next_change(found):
    entries = (("layers.0.A", "int3/asym"),)
    every = changes(entries, found.sites, found.measured)
    assert "layers.*.B" in {change.group for change in every}
    assert "layers.*.A" not in {change.group for change in every}


def test_rows_and_columns_are_set_to_what_fits_them(found):
    every = {site.name for site in found.sites}
    assert set(set_many("", "", "fp32", found.sites)) == every
    assert set_many("0", "A", "int4/head/asym", found.sites) == {"layers.0.A": "int4/head/asym"}
    states = set_many("", "states", "int8/dynamic", found.sites)
    assert states == {"layers.0.state": "int8/dynamic"}
    assert "layers.0.state" not in set_many("", "weights", "int8", found.sites)
    fits = set_many("", "", "int8/hadamard", found.sites)
    assert 0 < len(fits) <= len(every)
    assert edited((), fits, found.sites)


def test_cells_that_were_changed_are_framed(found, chosen):
    after = edited(chosen, {"layers.0.A": "fp16"}, found.sites)
    drawn = charts.plan_grid(after, found.sites, before=chosen)
    framed = [cell for row in drawn.cells.rows for cell in row if cell is not None and cell.framed]
    assert [(cell.name, cell.about[-1]) for cell in framed] == [
        ("layers.0.A", "before int8/head/asym")
    ]
    assert "framed" in drawn.caption[0]
    assert len(screen.draw(drawn).layout.shapes) == 1
    assert not screen.draw(charts.plan_grid(chosen, found.sites, before=chosen)).layout.shapes


def test_plans_are_called_by_bytes_and_score_and_told_apart(found):
    names = told_apart(found.search.candidates, found.search)
    assert names["pcfb6"] == "1.50 KiB · 97.0 %"
    assert names["p4d7b"] == "uniform int8/head/asym/dynamic · 2.18 KiB · 98.2 %"
    assert {names["p0bcd"], names["pff4a"]} == {
        "1.62 KiB · 96.8 % (p0bcd)",
        "1.62 KiB · 96.8 % (pff4a)",
    }


@pytest.mark.parametrize("model", ["s4d-digits", "s5-digits", "mamba-bytes", "mamba2-bytes"])
def test_the_family_is_known_by_its_sites(model):
    outline = outline_of(model)
    sites = tuple(outline.sites.values())
    assert family_by_sites(sites) == outline.family in FAMILIES
    offered = presets_for(sites)
    assert set(offered) == {n for n, p in PRESETS.items() if outline.family in p.schemes}
    assert all(plan.entries for plan in offered.values())


def test_values_are_drawn_by_octave_and_damaged_ones_are_left_out():
    row = {"site": "head", "low": -3.0, "high": 2.0, "zeros": 1, "octaves": [[-1, 2], [1, 1]]}
    odd = [7, {}, row | {"octaves": [[9999, 1]]}, row | {"octaves": [[1]]}, row | {"low": None}]
    odd += [row | {"zeros": -5, "octaves": [[0, 5]]}, row | {"high": float("inf")}]
    assert not read_values(odd)
    drawn = charts.octaves(read_values([*odd, row])["head"], "int8")
    assert [(p.x, p.y) for p in drawn.series[0].points] == [(0.5, 50), (1, 0), (2, 25), (4, 0)]
    assert drawn.caption == ("from −3.00 to 2.00, 4 seen; 25 % are zero",)
    assert drawn.rules[0][0] == 3.0
    assert screen.draw(drawn).data[0].line.shape == "hv"
