"""Plans as grids, changes to them, and what those would cost."""

from __future__ import annotations

from pathlib import Path

import pytest
import sensprobe_app

from sensprobe.errors import SchemeError
from sensprobe.report.editing import (
    edited,
    grid,
    options,
    predicted,
    priced_schemes,
    site_name,
)
from sensprobe.report.gather import gather
from sensprobe.report.plans import OUTSIDE, place_of, resolved
from sensprobe.runs import open_run

EXAMPLE = Path(sensprobe_app.__file__).parent / "example" / "s4d-digits"


@pytest.fixture(scope="module")
def found():
    return gather(open_run(EXAMPLE))


@pytest.fixture(scope="module")
def chosen(found):
    return found.search.candidate(found.search.chosen[0].candidate)


def test_places_and_names_are_inverse(found):
    for site in found.sites:
        assert site_name(*place_of(site.name)) == site.name


def test_the_grid_holds_every_site(found, chosen):
    cells = grid(chosen.entries, found.sites)
    assert sum(map(len, cells.values())) == len(found.sites)
    assert cells[OUTSIDE]["head"].startswith("int")
    assert cells["0"]["x"] == "fp32"


def test_a_change_touches_what_it_names_alone(found, chosen):
    entries = edited(chosen.entries, {"layers.0.A": "fp16", "head": "fp32"}, found.sites)
    schemes, before = dict(entries), resolved(chosen.entries, found.sites)
    assert schemes["layers.0.A"] == "fp16"
    assert "head" not in schemes
    rest = before.keys() - {"layers.0.A", "head"}
    assert {n: schemes[n] for n in rest} == {n: str(before[n]) for n in rest}


def test_a_change_is_fitted_as_profiles_do(found):
    entries = edited((), {"head.bias": "int4/head/asym/dynamic"}, found.sites)
    assert entries == (("head.bias", "int4/asym"),)
    with pytest.raises(SchemeError, match="int99"):
        edited((), {"head": "int99"}, found.sites)


def test_the_prediction_is_the_sum_of_what_was_found_alone(found):
    profile = found.measured
    scheme = profile.schemes[-1]
    one, other = (profile.grid[target, scheme] for target in ("layers.*.B", "layers.*.C"))
    entries = tuple((site, one.applied[0]) for site in (*one.sites, *other.sites))
    guess = predicted(entries, found.sites, profile)
    assert guess.priced == 2
    assert not guess.unpriced
    assert guess.loss.value == pytest.approx(one.additive.value + other.additive.value)
    assert guess.loss.stderr**2 == pytest.approx(one.additive.stderr**2 + other.additive.stderr**2)


def test_what_no_profile_priced_is_named_not_guessed(found):
    biases = tuple((site.name, "int3/asym") for site in found.sites if site.name.endswith(".bias"))
    guess = predicted(biases, found.sites, found.measured)
    assert guess.priced == 0
    assert guess.unpriced == {"*.bias": "int3/asym"}  # which a profile in that scheme would price
    guess = predicted(biases[:-1], found.sites, found.measured)
    assert guess.unpriced == {"*.bias": None}  # which none would


def test_what_a_profile_priced_is_known_by_site(found):
    priced = priced_schemes(found.measured, found.sites)
    scheme = found.measured.schemes[-1]
    row = found.measured.grid["layers.*.A", scheme]
    assert {"fp32", *row.applied} <= priced["layers.0.A"]
    assert "int3/head/asym" not in priced["layers.0.A"]
    assert priced.keys() == {site.name for site in found.sites}


def test_full_precision_loses_nothing(found):
    guess = predicted((), found.sites, found.measured)
    assert (guess.loss.value, guess.priced, guess.unpriced) == (0.0, 0, {})


def test_schemes_on_offer_hold_those_of_the_plan(found, chosen):
    offered = options(found.profiles, chosen.entries, found.sites)
    assert offered[0] == "fp32"
    assert {scheme for _, scheme in chosen.entries} <= set(offered)
    assert len(offered) == len(set(offered))
