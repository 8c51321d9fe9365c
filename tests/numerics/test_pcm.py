"""Weights in pairs of phase-change devices, against the laws as they are published."""

from __future__ import annotations

import math

import pytest
import torch
from builders import vector

from sensprobe.numerics.pcm import DRAWS, _drift, _programming, _reading, programmed
from sensprobe.plans.noise import Pcm


def constant(shape, *values):
    """Normal numbers that are all the same: one value a draw."""
    return lambda k: torch.full(shape, float(values[k]), dtype=torch.float64)


def random(shape):
    return lambda k: vector(*shape, seed=k)


QUIET = [0.0] * (2 * DRAWS)


@pytest.mark.parametrize("on_off", [math.inf, 10.0, 1.5])
def test_devices_without_noise_hold_the_weights(on_off):
    """At t_c without read noise or programming noise; the lowest conductance cancels."""
    w = vector(20, 30)
    got = programmed(w, Pcm(on_off=on_off), constant(w.shape, *QUIET))
    assert torch.allclose(got, w, rtol=0, atol=1e-14 * on_off if on_off < 9 else 1e-13)


def test_levels_are_even_from_nothing_to_the_largest_weight():
    w = torch.linspace(-2, 2, 101, dtype=torch.float64)
    got = programmed(w, Pcm(levels=3, on_off=20.0), constant(w.shape, *QUIET))
    values = torch.tensor([-2.0, -1, 0, 1, 2], dtype=torch.float64)
    nearest = values[(w[:, None] - values).abs().argmin(1)]
    edges = (w[:, None] - values).abs().sort(1).values
    inside = edges[:, 1] - edges[:, 0] > 1e-9
    assert torch.allclose(got[inside], nearest[inside], rtol=0, atol=1e-13)
    assert len(got.round(decimals=9).unique()) == 5


@pytest.mark.parametrize("T", [0.0, 0.01, 0.1, 0.5, 0.837, 1.0])
def test_the_published_laws(T):
    g = torch.tensor([T], dtype=torch.float64)
    micro = max(-1.1731 * T**2 + 1.9650 * T + 0.26348, 0)  # siemens, of 25
    assert _programming(g).item() == pytest.approx(micro / 25, rel=1e-12)
    log = math.log(max(T, 1e-6))
    mean = min(max(-0.0155 * log + 0.0244, 0.049), 0.1)
    spread = min(max(-0.0125 * log - 0.0059, 0.008), 0.045)
    for n in (-1.0, 0.0, 2.0, -100.0):
        want = (3600 / 20) ** -max(mean + n * spread, 0)
        assert _drift(g, 3600.0, torch.tensor([n])).item() == pytest.approx(want, rel=1e-12)
    q = min(0.0088 / max(T, 1e-6) ** 0.65, 0.2) * math.sqrt(math.log((3600 + 250e-9) / 500e-9))
    assert _reading(g, 3600.0).item() == pytest.approx(q, rel=1e-12)


def test_noise_grows_with_the_time_and_the_factor_takes_back_the_drift():
    w = vector(200, 200)
    errors, kept = [], []
    for t in (20.0, 3600.0, 3e7):
        got = programmed(w, Pcm(t=t), random(w.shape))
        errors.append(((got - w) / w.abs().max()).std().item())
        kept.append(((got * w).sum() / (w * w).sum()).item())
    assert errors == sorted(errors)
    assert 0.02 < errors[0] < 0.04  # programming noise at small conductances: 1 % to 5 %
    assert all(abs(k - 1) < 0.1 for k in kept)
    drifted = (3e7 / 20) ** -0.06
    assert drifted < 0.5  # what would be left of the weights without the factor


def test_a_small_ratio_costs_precision():
    w = vector(200, 200)
    low, high = (
        (programmed(w, Pcm(on_off=r), random(w.shape)) - w).std().item() for r in (2.0, 100.0)
    )
    assert low > 1.5 * high
