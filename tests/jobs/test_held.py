"""What is told of held states from shapes is what building the program of a step finds."""

from __future__ import annotations

from dataclasses import replace

import pytest

from sensprobe.errors import UsageError
from sensprobe.jobs.held import _runs, held
from sensprobe.models import FAMILIES
from sensprobe.models.mamba_layers import Mamba
from sensprobe.packed import Holding
from sensprobe.plans.fitting import adapt
from sensprobe.plans.presets import PRESETS
from sensprobe.plans.scheme import parse
from sensprobe.plans.sites import Kind
from sensprobe.session.outline import outline_of
from sensprobe.session.source import open_model

MODELS = ["s4d-digits", "mamba-bytes", "mamba2-bytes"]
SCHEMES = [
    "int8", "int4/channel", "int2", "int16", "int12/channel/dynamic", "int8/dynamic", "int5/asym",
    "fp16", "bf16", "fp32", "e4m3", "int4/group32", "int8/head/asym", "int8/dynamic/every4",
    "int8/stochastic", "int8/truncate", "int4/hadamard", "int8/range5", "log4", "int9/dynamic",
]  # fmt: skip


@pytest.mark.parametrize("name", MODELS)
def test_a_scheme_that_surely_streams_does(name: str) -> None:
    model = open_model(name).model
    holding, sure = Holding(model), 0
    assert not holding.never
    for text in SCHEMES:
        for site in model.sites.values():
            scheme = adapt(parse(text), site)
            if _runs(site, scheme):
                sure += 1
                assert holding.why({site.name: scheme}) == "", (site.name, text)
    assert sure > 5 * len(model.sites)


@pytest.mark.parametrize("name", MODELS)
def test_held_bytes_of_presets_are_those_of_the_program(name: str) -> None:
    source = open_model(name)
    model, holding = source.model, Holding(source.model)
    assert held(source.outline, {}) == (holding.state_bytes({}), "")
    for preset in PRESETS.values():
        try:
            plan = preset.plan(model.family, model.sites.values()).resolve(model.sites.values())
        except UsageError:
            continue
        assert held(source.outline, plan) == (holding.state_bytes(plan), holding.why(plan))


def test_a_family_without_kernels_holds_states_in_float32(monkeypatch: pytest.MonkeyPatch) -> None:
    bare = replace(FAMILIES["mamba"], lower=None)
    monkeypatch.setitem(FAMILIES, bare.name, bare)
    monkeypatch.setattr(Mamba, "described", bare)
    outline = outline_of("mamba-bytes")
    states = [site for site in outline.sites.values() if site.kind is Kind.STATE]
    size, why = held(outline, {site.name: parse("int8") for site in states})
    assert size == sum(site.full_bytes for site in states)
    assert "no streaming kernel for models of family mamba" in why
