"""A plan put on a model: calibrated once, encoded once, and running what it says."""

from __future__ import annotations

from dataclasses import replace

import pytest
import selective
import torch
from builders import CONFIGS, inputs, tiny
from hypothesis import given, settings
from hypothesis import strategies as st
from schemes import schemes_for
from torch import Tensor

from sensprobe.errors import SchemeError
from sensprobe.models.apply import (
    Applier,
    encode_weight,
    needs_calibration,
    observe,
    static_scale,
    wanted_by,
)
from sensprobe.numerics.calibrate import Wanted, weight_range
from sensprobe.numerics.rounding import decode, encode
from sensprobe.numerics.taps import EXACT, Recording
from sensprobe.plans.plan import EXACT_PLAN, Plan, adapted, parse_setting
from sensprobe.plans.scheme import Scheme, parse
from sensprobe.plans.sites import Kind
from sensprobe.session.source import open_model

pytestmark = pytest.mark.usefixtures("reference_scan")

MODEL = tiny(CONFIGS["deep"])
X = inputs(MODEL.config, batch=6, length=9)
STATISTICS = observe(MODEL, X, Wanted(channels=frozenset(MODEL.sites)))


def resolved(*settings: str) -> dict[str, Scheme]:
    return Plan(tuple(parse_setting(s) for s in settings)).resolve(MODEL.sites.values())


def run(*settings: str, x: Tensor = X) -> Tensor:
    return MODEL(x, Applier(MODEL, STATISTICS).tap(resolved(*settings)))


# -- observing ------------------------------------------------------------------------------------


def test_every_activation_and_state_is_watched_and_no_weight():
    assert set(STATISTICS) == {n for n, s in MODEL.sites.items() if s.kind is not Kind.WEIGHT}


def test_what_is_watched_is_what_passes():
    seen: dict[str, list[Tensor]] = {}
    MODEL(X, Recording(lambda s, v: seen.setdefault(s.name, []).append(v)))
    for name, values in seen.items():
        site = MODEL.sites[name]
        shape = (*site.shape, 2) if site.is_complex else site.shape
        flat = torch.cat([v.reshape(-1, *shape) for v in values])
        assert torch.allclose(STATISTICS[name].high, flat.amax(0), rtol=1e-5, atol=1e-7)
        assert torch.allclose(STATISTICS[name].low, flat.amin(0), rtol=1e-5, atol=1e-7)
        assert STATISTICS[name].counts.sum() == flat.numel()


def test_histograms_are_not_kept_unless_asked_for():
    assert all(s.counts is None for s in observe(MODEL, X).values())


# -- weights --------------------------------------------------------------------------------------


def test_the_exact_plan_is_the_model():
    tap = Applier(MODEL).tap(EXACT_PLAN.resolve(MODEL.sites.values()))
    assert torch.equal(MODEL(X, tap), MODEL(X))


def test_the_tap_holds_every_weight_in_single_precision():
    weights = Applier(MODEL).tap(resolved("layers.0.A=int8/head")).weights
    assert set(weights) == set(MODEL.weights)
    for name, weight in weights.items():
        assert weight.dtype == (torch.complex64 if weight.is_complex() else torch.float32)
        if name != "layers.0.A":
            assert torch.equal(weight, MODEL.weights[name].to(weight.dtype))


@settings(max_examples=20)
@given(data=st.data())
def test_simulated_weights_are_those_that_are_packed(data):
    plan = {}
    for name, site in MODEL.sites.items():
        if site.kind is Kind.WEIGHT:
            plan[name] = data.draw(schemes_for(site))
    applier = Applier(MODEL, observe(MODEL, X, wanted_by(plan, MODEL)))
    tap = applier.tap(plan)
    for name, scheme in plan.items():
        fields = applier.encoded(MODEL.sites[name], scheme)
        assert torch.equal(tap.weights[name], decode(fields, scheme, MODEL.sites[name]))


def test_what_was_encoded_for_one_plan_serves_the_next():
    applier = Applier(MODEL, STATISTICS)
    one = applier.tap(resolved("*.A=int8/head", "*.state=int8"))
    two = applier.tap(resolved("*.A=int8/head", "*.state=int8", "head=int4"))
    assert two.weights["layers.0.A"] is one.weights["layers.0.A"]
    assert two.scales["layers.0.state"] is one.scales["layers.0.state"]
    assert two.weights["head"] is not one.weights["head"]


def test_ranges_of_weights_are_those_the_scheme_asks_for():
    site = MODEL.sites["layers.0.out_proj"]
    scales = [
        encode_weight(MODEL, site, parse(f"int8/{r}/s32"))[""].scale.item()
        for r in ("absmax", "p90", "range9")
    ]
    x = MODEL.weights[site.name]
    assert scales[0] == pytest.approx(x.abs().max().item() / 127)
    assert scales[1] == pytest.approx(x.abs().quantile(0.9).item() / 127)
    assert scales[2] == pytest.approx(9 / 127)


# -- activations and states -----------------------------------------------------------------------


@pytest.mark.parametrize("pattern", ["*.x", "*.y", "*.out", "head_in", "*.state", "*.A", "head"])
def test_each_site_of_a_plan_changes_the_output_and_more_bits_less(pattern):
    truth = MODEL(X)
    errors = []
    for bits in (2, 4, 8, 14):
        scheme = parse(f"int{bits}/s32" if pattern in ("*.A", "head") else f"int{bits}/dynamic/s32")
        plan = adapted([(pattern, scheme)], MODEL.sites.values()).resolve(MODEL.sites.values())
        errors.append((MODEL(X, Applier(MODEL).tap(plan)) - truth).square().mean().item())
    assert errors == sorted(errors, reverse=True)
    assert errors[0] > 1000 * errors[-1] > 0


def test_static_scales_come_from_the_statistics_or_the_scheme():
    state = MODEL.sites["layers.0.state"]
    scale, zero = static_scale(state, parse("int8/s32"), STATISTICS)
    peak = max(-STATISTICS[state.name].low.min().item(), STATISTICS[state.name].high.max().item())
    assert scale.item() == pytest.approx(peak / 127)
    assert zero is None
    assert scale.dtype == torch.float32
    scale, _ = static_scale(state, parse("int8/range50/s32"), {})
    assert scale.item() == pytest.approx(50 / 127)
    assert static_scale(state, parse("int8/dynamic"), {}) is None
    assert static_scale(state, parse("bf16"), {}) is None
    assert static_scale(MODEL.sites["head"], parse("int8"), {}) is None


def test_static_ranges_without_data_say_what_to_do():
    with pytest.raises(SchemeError) as error:
        Applier(MODEL).tap(resolved("layers.0.state=int8/head"))
    assert "layers.0.state in int8/head needs calibrated ranges" in str(error.value)
    assert "Give data to calibrate on, a range in the scheme (range50), or use dynamic" in str(
        error.value
    )


def test_a_static_state_with_room_is_close_to_exact():
    assert (run("*.state=int16/range50/s32") - MODEL(X)).abs().max() < 0.02
    assert (run("*.state=int4") - MODEL(X)).abs().max() > 0.02


@pytest.mark.parametrize(
    "text", ["int8", "int8/dynamic", "int8/stochastic", "int8/dynamic/feedback"]
)
def test_results_do_not_depend_on_the_batch_they_run_in(text):
    """The positions of sequences go with them, so that stochastic rounding repeats itself."""
    tap = Applier(MODEL, STATISTICS).tap(resolved(f"*.state={text}"))
    whole = MODEL(X, tap)
    for first in (0, 2, 5):
        part = MODEL(X[first : first + 1], tap.at(first))
        assert (part - whole[first : first + 1]).abs().max() < 1e-5


def test_replaced_statistics_are_used_after_forgetting():
    applier = Applier(MODEL, STATISTICS)
    plan = resolved("*.state=int8")
    before = applier.tap(plan).scales["layers.0.state"][0]
    applier.statistics = observe(MODEL, 3 * X)
    assert applier.tap(plan).scales["layers.0.state"][0] is before
    applier.forget_scales()
    assert applier.tap(plan).scales["layers.0.state"][0] > before


def test_an_adopted_tap_is_run_as_it_is():
    plan = resolved("*.A=int8/head", "*.state=int8", "*.x=int8/dynamic")
    tap = Applier(MODEL, STATISTICS).tap(plan)
    other = Applier(MODEL)
    assert not other.calibrated(plan)
    other.adopt(tap)
    assert other.calibrated(plan)
    assert torch.equal(MODEL(X, other.tap(plan)), MODEL(X, tap))


# -- what a plan needs ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("setting", "needed"),
    [
        ("*.A=int8", False),
        ("*.state=int8", True),
        ("*.state=int8/dynamic", False),
        ("*.state=int8/range50", False),
        ("*.state=bf16", False),
        ("*.x=int8", True),
        ("*.x=int8/p99", True),
        ("head=int4/gptq", True),
        ("head=int4/hadamard", False),
        ("*.x=int4/hadamard/dynamic", False),
    ],
)
def test_which_plans_need_calibration(setting, needed):
    assert needs_calibration(resolved(setting), MODEL.sites) == needed
    assert Applier(MODEL).calibrated(resolved(setting)) != needed


def test_what_is_watched_is_what_the_plan_asks_for():
    assert wanted_by(resolved("*.A=int8/p99", "*.x=int8", "*.y=int8/dynamic"), MODEL) == Wanted()
    both = frozenset({"layers.0.x", "layers.1.x"})
    assert wanted_by(resolved("*.x=int8/p99"), MODEL) == Wanted(whole=both)
    assert wanted_by(resolved("*.x=int8/channel/mse"), MODEL) == Wanted(channels=both)
    turned = Wanted(whole=frozenset({"layers.0.x rotated"}), rotated=frozenset({"layers.0.x"}))
    assert wanted_by(resolved("layers.0.x=int8/p99/hadamard"), MODEL) == turned
    read = Wanted(moments=frozenset({"layers.0.out_proj_in", "head_in"}))
    assert wanted_by(resolved("layers.0.out_proj=int4/gptq", "head=int4/gptq"), MODEL) == read
    assert turned.joined(read) == turned._replace(moments=read.moments)


def test_an_exact_plan_needs_no_tap_of_its_own():
    assert torch.equal(MODEL(X, EXACT), run())


def test_codes_of_float32_weights_are_computed_in_float64():
    """Weights that were never discretised are kept as loaded; in float32 some codes would move."""
    model = selective.tiny(replace(selective.MAMBAS["bare"], d_model=128))
    site, scheme = model.sites["layers.0.in_proj.x"], parse("int16/channel/s32")
    weight = model.weights[site.name]
    assert weight.dtype == torch.float32

    def codes(x: Tensor) -> Tensor:
        return encode(x, scheme, site, weight_range(x, scheme, site))[""].codes

    assert torch.equal(encode_weight(model, site, scheme)[""].codes, codes(weight.double()))
    assert not torch.equal(codes(weight), codes(weight.double()))


@pytest.mark.parametrize("name", ["mamba", "mamba2"])
def test_a_plan_has_one_radius_whoever_asks(name: str):
    """With a rounded bias of dt, which the decay at rest is computed from, as without a plan."""
    model = open_model(f"{name}-bytes").model
    bias = "dt_proj.bias" if name == "mamba" else "dt.bias"
    found = []
    for plan in ({}, {f"layers.*.{bias}": "int4", "layers.*.A": "int8"}, {"layers.*.x": "fp16"}):
        entries = tuple((pattern, parse(scheme)) for pattern, scheme in plan.items())
        chosen = Plan(entries).resolve(model.sites.values())
        applier = Applier(model)
        assert applier.spectral_radius(chosen) == model.spectral_radius(applier.tap(chosen))
        found.append(applier.spectral_radius(chosen))
    assert found[0] == found[2] != found[1]
    assert model.radius_name == "decay at rest"
    assert MODEL.radius_name == "max|A|"
