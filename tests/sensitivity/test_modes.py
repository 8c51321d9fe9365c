"""Prices of state variables: against the divergence that taking one away makes."""

from __future__ import annotations

from dataclasses import replace

import mimo
import pytest
import torch
from builders import PLAIN, inputs, tiny

from sensprobe.models.apply import Applier
from sensprobe.numerics.taps import EXACT
from sensprobe.sensitivity.modes import mode_prices

S4D = tiny(replace(PLAIN, d_model=3, d_state=4, layers=2))
S5 = mimo.tiny(replace(mimo.PLAIN, d_state=6, blocks=2))
MODELS = {"s4d": S4D, "s5": S5}


def without(model, layer: int, row: int, n: int):
    """The model with C of one state variable zero."""
    at = f"layers.{layer}.C"
    C = model.weights[at].clone()
    if model.family == "s4d":
        C[row, n] = 0
    else:
        k = 2 * (row * model.config.modes[1] + n)
        C[:, k : k + 2] = 0
    return replace(model, weights={**model.weights, at: C})


def batch(name: str) -> torch.Tensor:
    return mimo.inputs(S5.config, 40, 9) if name == "s5" else inputs(S4D.config, 40, 9)


@pytest.mark.parametrize("task", ["regression", "classification"])
@pytest.mark.parametrize("name", MODELS)
def test_prices_are_the_changes_that_taking_modes_away_makes(name: str, task: str) -> None:
    """Of a C so small that the second order is all there is; random v make their sum uncertain by
    some percent, of a regression with one output not at all."""
    model, x = MODELS[name], batch(name)
    at = {n: w * (1e-2 if n.endswith(".C") else 1) for n, w in model.weights.items()}
    if task == "regression":
        config = replace(model.config, d_output=1)
        at |= {"head": at["head"][:1], "head.bias": at["head.bias"][:1]}
        model = replace(model, config=config)
    small = replace(model, weights=at)
    told = mode_prices(small, model.described.pruning, x, task)[1]
    wanted = torch.zeros_like(told)
    for row in range(told.shape[0]):
        for n in range(told.shape[1]):
            other = without(small, 1, row, n)(x, EXACT).double()
            here = small(x, EXACT).double()
            if task == "regression":
                wanted[row, n] = (other - here).square().mean()
            else:
                p, q = here.log_softmax(-1), other.log_softmax(-1)
                wanted[row, n] = (p.exp() * (p - q)).sum(-1).mean()
    if task == "regression":
        torch.testing.assert_close(told, wanted, rtol=0.1, atol=1e-3 * wanted.max().item())
    else:
        assert 0.75 < told.sum() / wanted.sum() < 1.33


@pytest.mark.parametrize("name", MODELS)
def test_a_mode_that_nothing_reads_is_worth_nothing(name: str) -> None:
    model = without(MODELS[name], 1, 0, 2)
    prices = mode_prices(model, model.described.pruning, batch(name), "classification")
    assert prices[1][0, 2] == 0
    assert (prices[0] > 0).all()


@pytest.mark.parametrize("name", MODELS)
def test_a_model_without_such_modes_is_the_model(name: str) -> None:
    """What is kept of the parameters is what the price was of: no other state variable goes."""
    record = MODELS[name].described
    config = MODELS[name].config
    params = mimo.parameters(config) if name == "s5" else _s4d_parameters()
    C = params["layers.0.C"].clone()
    gone = {"s4d": (slice(None), 1), "s5": (slice(None), [1, 4])}[name]
    C[gone] = 0
    params = {**params, "layers.0.C": C, "layers.1.C": params["layers.1.C"].clone()}
    params["layers.1.C"][gone] = 0
    rows, n = record.sites(config)["layers.0.A"].shape
    chosen = [torch.tensor([i for i in range(n) if i != 1]).expand(rows, -1)] * 2
    smaller, narrow = record.pruning.kept(params, config, chosen)
    assert narrow.d_state == config.d_state - (rows if name == "s5" else 1)
    before, after = (
        record.model(c, record.deploy({k: p.double() for k, p in given.items()}, c))
        for given, c in ((params, config), (smaller, narrow))
    )
    assert {k: tuple(p.shape) for k, p in smaller.items()} == record.parameter_shapes(narrow)
    x = batch(name)
    torch.testing.assert_close(
        after(x), before(x), rtol=0, atol=2e-6 * before(x).abs().max().item()
    )
    assert Applier(after).spectral_radius({}) > 0


def _s4d_parameters():
    from builders import parameters

    return parameters(S4D.config)


def test_both_directions_lose_the_same_modes() -> None:
    config = replace(mimo.PLAIN, bidirectional=True)
    record = mimo.tiny(config).described
    params = mimo.parameters(config)
    chosen = [torch.tensor([[0, 2], [1, 2]])] * 2
    smaller, narrow = record.pruning.kept(params, config, chosen)
    C = params["layers.0.C"]
    assert torch.equal(smaller["layers.0.C"], C[:, [0, 2, 4, 5, 6, 8, 10, 11]])
    assert torch.equal(smaller["layers.0.A_imag"], params["layers.0.A_imag"][[0, 2, 4, 5]])
    assert narrow.modes == (2, 2)
