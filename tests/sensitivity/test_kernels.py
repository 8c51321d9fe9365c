"""Prices of kernels: against the divergence that taking one away makes."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from builders import PLAIN, inputs, parameters, tiny

from sensprobe.jobs.prune import most
from sensprobe.sensitivity.kernels import kernel_prices
from sensprobe.sensitivity.modes import mode_prices

MODEL = tiny(replace(PLAIN, d_model=3, d_state=4, layers=2))
ONE_OUTPUT = replace(
    MODEL,
    config=replace(MODEL.config, d_output=1),
    weights={n: w[:1] if n.startswith("head") else w for n, w in MODEL.weights.items()},
)
"""Of a regression with one output the random v are no more than signs, and prices exact."""
PRUNING = MODEL.described.pruning
X = inputs(MODEL.config, 40, 9)


def scaled(model, factor: float, rows=slice(None)):
    """The model with some rows of the last layer's C a factor larger."""
    C = model.weights["layers.1.C"].clone()
    C[rows] *= factor
    return replace(model, weights={**model.weights, "layers.1.C": C})


def changes(model, task: str) -> torch.Tensor:
    """What outputs diverge by where the C of a head of the last layer is zero: (h,)."""
    here, out = model(X).double(), []
    for row in range(len(model.weights["layers.1.C"])):
        there = scaled(model, 0, row)(X).double()
        if task == "regression":
            out.append((there - here).square().mean())
        else:
            p, q = here.log_softmax(-1), there.log_softmax(-1)
            out.append((p.exp() * (p - q)).sum(-1).mean())
    return torch.stack(out)


@pytest.mark.parametrize("activation", ["gelu", "qgelu"])
def test_prices_are_the_changes_that_taking_kernels_away_makes(activation: str) -> None:
    """Of a C so small that the second order is all there is. Prices of a head's pairs do not add up
    to them."""
    small = scaled(ONE_OUTPUT, 1e-2)
    small = replace(small, config=replace(small.config, activation=activation))
    told = kernel_prices(small, PRUNING, X, "regression")[1]
    wanted = changes(small, "regression")
    torch.testing.assert_close(told, wanted, rtol=0.1, atol=1e-3 * wanted.max().item())
    added = mode_prices(small, PRUNING, X, "regression")[1].sum(1)
    assert not torch.isclose(added, told, rtol=0.1, atol=0).any()


def test_prices_of_a_classification_are_nats() -> None:
    """Random v make their sum uncertain by some percent."""
    small = scaled(MODEL, 1e-2)
    told = kernel_prices(small, PRUNING, X, "classification")[1]
    assert 0.75 < told.sum() / changes(small, "classification").sum() < 1.33


@pytest.mark.parametrize("factor", [10, 30, 100])
def test_a_kernel_behind_a_saturated_activation_has_its_price(factor: float) -> None:
    """Where y is far from zero GELU's slope at y says nothing of what is lost."""
    large = scaled(ONE_OUTPUT, factor)
    told = kernel_prices(large, PRUNING, X, "regression")[1]
    ratio = told / changes(large, "regression")
    assert ((ratio > 0.4) & (ratio < 2.5)).all()


def test_a_kernel_that_nothing_reads_is_worth_nothing() -> None:
    prices = kernel_prices(scaled(MODEL, 0, 2), PRUNING, X, "classification")
    assert prices[1][2] == 0
    assert (prices[1][:2] > 0).all()
    assert (prices[0] > 0).all()


def test_kernels_of_a_pruned_model_are_priced_and_pruned_as_those_of_any_other() -> None:
    """Here those of one layer, twice; what is left is the model with zeros in the C that went."""
    record, narrow, smaller = MODEL.described, MODEL.config, parameters(MODEL.config)
    for rows in ([0, 2], [1]):  # of three heads, then of two: head 2 stays
        chosen = [torch.arange(3), torch.tensor(rows)]
        smaller, narrow = PRUNING.kernels(smaller, narrow, chosen)
        weights = record.deploy({k: p.double() for k, p in smaller.items()}, narrow)
        model = record.model(narrow, weights)
        prices = kernel_prices(model, PRUNING, X, "classification")
        assert [len(price) for price in prices] == [3, len(rows)]
    assert narrow.kernels == "all, 2"
    assert {k: tuple(p.shape) for k, p in smaller.items()} == record.parameter_shapes(narrow)
    truth = scaled(MODEL, 0, slice(2))(X)
    torch.testing.assert_close(model(X), truth, rtol=0, atol=2e-6 * truth.abs().max().item())
    assert not torch.equal(truth, MODEL(X))


def test_kernels_of_all_layers_compete_and_no_layer_loses_its_last() -> None:
    prices = [torch.tensor([5.0, 1, 4]), torch.tensor([0.1, 0.3]), torch.tensor([2.0, 3])]
    assert [kept.tolist() for kept in most(prices, 3)] == [[0], [1], [1]]
    assert [kept.tolist() for kept in most(prices, 5)] == [[0, 2], [1], [0, 1]]
