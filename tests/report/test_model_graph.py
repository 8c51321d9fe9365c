"""The graph of a model against the forward pass: order, reach, and what a plan says."""

from __future__ import annotations

import pytest

from sensprobe import zoo
from sensprobe.report import charts
from sensprobe.report.charts.model import edges
from sensprobe.report.plans import OUTSIDE, place_of
from sensprobe.session.outline import outline_of


@pytest.mark.parametrize("model", list(zoo.shipped()))
@pytest.mark.parametrize("layer", ["0", OUTSIDE])
def test_every_tensor_is_joined_and_only_to_what_comes_later(model: str, layer: str) -> None:
    sites = [s for s in outline_of(model).sites.values() if place_of(s.name)[0] == layer]
    place = {site.name: k for k, site in enumerate(sites)}
    joined = edges(sites)
    assert all(place[source] < place[target] for source, target in joined)
    assert {name for pair in joined for name in pair} == {*place}


def test_a_recurrence_reads_what_the_equation_says() -> None:
    def read(model: str, name: str) -> set[str]:
        sites = [s for s in outline_of(model).sites.values() if s.layer == 0]
        found = {source for source, target in edges(sites) if target == f"layers.0.{name}"}
        return {source.removeprefix("layers.0.") for source in found}

    assert read("s4d-digits", "state") == {"A", "B", "x"}
    assert read("s4d-digits", "y") == {"state", "C", "D", "x"}
    assert read("mamba-bytes", "decay") == {"dt", "A"}
    assert read("mamba-bytes", "state") == {"decay", "dt", "B", "x"}
    assert read("mamba-bytes", "dt") >= {"dt_proj_in", "dt_proj", "dt_proj.bias"}


def test_a_mark_has_shape_and_scheme() -> None:
    sites = list(outline_of("s4d-digits").sites.values())
    drawn = charts.model_graph(sites, (("*.A", "int8/head"),), "0")
    labels = {p.name: p.label for s in drawn.series if s.marks for p in s.points}
    assert labels["layers.0.A"] == "A [16 × 8 complex]\nint8/head"
    assert labels["layers.0.y"] == "y [16]\nfp32"
    assert charts.model_graph(sites, (), "7").nothing
