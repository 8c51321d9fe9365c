"""Taps: what each shows, changes and hands to the recurrence."""

from __future__ import annotations

import pytest
import torch
from builders import ACTIVATION, MATRIX, PROJECTION, STATE, inputs, tiny, values_of, vector
from torch import Tensor

from sensprobe.errors import SchemeError
from sensprobe.numerics.philox import key_of, noise_like
from sensprobe.numerics.rounding import quantize
from sensprobe.numerics.storage import Rounded
from sensprobe.numerics.taps import EXACT, Recording, RoundingTap, single
from sensprobe.plans.scheme import parse
from sensprobe.plans.sites import Kind

pytestmark = pytest.mark.usefixtures("reference_scan")


def activations() -> Tensor:
    return vector(3, 5, 4, dtype=torch.float32)


def rounding(text: str, scale: float | None = None, **more) -> RoundingTap:
    scales = {} if scale is None else {ACTIVATION.name: (torch.tensor([scale]), None)}
    return RoundingTap({ACTIVATION.name: parse(text)}, {}, scales, **more)


# -- exact, recording -----------------------------------------------------------------------------


def test_exact_only_makes_single():
    w, z = values_of(PROJECTION.shape, False), values_of(MATRIX.shape, True)
    assert torch.equal(EXACT(PROJECTION, w), w.float())
    assert EXACT(MATRIX, z).dtype == torch.complex64
    assert EXACT.storage(STATE) is None
    x = activations()
    assert single(x) is x  # nothing is copied


def test_recording_shows_activations_and_states_and_changes_nothing():
    model, seen = tiny(), {}
    x = inputs(model.config, batch=2, length=5)

    def observe(site, value):
        seen.setdefault(site.name, []).append(value.clone())

    tap = Recording(observe)
    assert torch.equal(model(x, tap), model(x))
    names = {n for n, s in model.sites.items() if s.kind is not Kind.WEIGHT}
    assert set(seen) == names
    assert set(tap.seen) == set(model.sites)
    assert len(seen["layers.0.state"]) == 5  # one a step
    assert seen["layers.0.x"][0].shape == (2, 5, 4)


def test_recorded_states_are_those_of_the_recurrence():
    """The last state, by the equation in float64."""
    model, states = tiny(), []
    x = inputs(model.config, batch=1, length=6)
    model(x, Recording(lambda s, v: states.append(v) if s.kind is Kind.STATE else None))
    u = x.double() @ model.weights["encoder"].T + model.weights["encoder.bias"]
    A, B = model.weights["layers.0.A"], model.weights["layers.0.B"]
    h = torch.zeros(1, *A.shape, dtype=torch.complex128)
    for t in range(6):
        h = A * h + B * u[:, t, :, None]
    got = torch.view_as_complex(states[-1].double())
    assert (got - h).abs().max() < 1e-6


# -- rounding -------------------------------------------------------------------------------------


def test_sites_outside_the_plan_pass_unchanged():
    tap = RoundingTap({}, {}, {})
    x = activations()
    assert tap(ACTIVATION, x) is x
    assert tap.storage(STATE) is None
    w = values_of(PROJECTION.shape, False)
    assert torch.equal(tap(PROJECTION, w), w.float())


def test_weights_are_the_decoded_ones():
    decoded = torch.ones(PROJECTION.shape)
    tap = RoundingTap({PROJECTION.name: parse("int4")}, {PROJECTION.name: decoded}, {})
    assert tap(PROJECTION, values_of(PROJECTION.shape, False)) is decoded


def test_static_activations_use_the_calibrated_scale():
    x = activations()
    want = (x / 0.25).clamp(-127, 127).round() * 0.25
    assert torch.equal(rounding("int8", 0.25)(ACTIVATION, x), want)


def test_a_dynamic_range_spans_one_time_step():
    """Each step of each sequence has its own scale: neighbours in time and batch do not matter."""
    x = activations() * torch.tensor([1.0, 10.0, 100.0, 1e3, 1e4]).view(1, 5, 1)
    tap = rounding("int8/dynamic")
    whole = tap(ACTIVATION, x)
    for t in range(5):
        assert torch.equal(tap(ACTIVATION, x[:, t : t + 1]), whole[:, t : t + 1])
        assert torch.equal(tap(ACTIVATION, x[:, t]), whole[:, t])
    assert torch.equal(tap(ACTIVATION, x[1:2]), whole[1:2])
    error = (whole - x).abs().amax(-1) / x.abs().amax(-1)
    assert (error < 0.01).all()


@pytest.mark.parametrize("text", ["bf16", "fp16"])
def test_unscaled_activations_are_cast(text):
    x = activations()
    dtype = {"bf16": torch.bfloat16, "fp16": torch.float16}[text]
    assert torch.equal(rounding(text)(ACTIVATION, x), x.to(dtype).float())


def test_stochastic_activations_depend_on_the_sequence_not_on_the_batch():
    x, tap = activations(), rounding("int8/stochastic5", 0.25)
    whole = tap(ACTIVATION, x)
    noise = noise_like(x, key_of(5, ACTIVATION.name))
    want = quantize(x, parse("int8/stochastic5"), ACTIVATION, torch.tensor([0.25]), None, noise)
    assert torch.equal(whole, want)
    assert torch.equal(tap.at(1)(ACTIVATION, x[1:]), whole[1:])
    assert not torch.equal(tap(ACTIVATION, x[1:]), whole[1:])


def test_a_static_site_without_calibration_says_what_to_do():
    tap = RoundingTap({s.name: parse("int8") for s in (ACTIVATION, STATE)}, {}, {})
    for ask in (lambda: tap(ACTIVATION, activations()), lambda: tap.storage(STATE)):
        with pytest.raises(SchemeError) as error:
            ask()
        assert "needs calibrated ranges and there are none" in str(error.value)
        assert "use dynamic" in str(error.value)


def test_storage_hands_over_scheme_scales_and_position():
    scale = torch.full((1, 1, 1), 0.5)
    static, dynamic = parse("int8"), parse("int8/dynamic")
    tap = RoundingTap({STATE.name: static}, {}, {STATE.name: (scale, None)}, first=7)
    assert tap.storage(STATE) == Rounded(static, STATE, scale, None, 7)
    tap = RoundingTap({STATE.name: dynamic}, {}, {})
    assert tap.storage(STATE) == Rounded(dynamic, STATE)
    assert tap.at(64).storage(STATE).first == 64
