"""The exponential of the decay: its stated error, its ends, and its derivative."""

from __future__ import annotations

import math

import pytest
import torch

from sensprobe.ops.exponential import HIGHEST, LOWEST, exponential

DENSE = torch.cat(
    [
        torch.linspace(LOWEST, HIGHEST, 400_001).clamp(LOWEST, HIGHEST),
        -torch.logspace(-12, 1.9, 100_001),
    ]
)


def error(x: torch.Tensor, y: torch.Tensor) -> float:
    want = x.double().exp()
    return ((y.double() - want).abs() / want).max().item()


def test_it_is_exp_to_the_stated_error():
    assert error(DENSE, exponential(DENSE)) < 2.0**-23


def test_that_error_catches_a_wrong_last_coefficient():
    assert error(DENSE, exponential(DENSE) * (1 + 2.0**-23)) > 2.0**-23


def test_its_ends():
    x = torch.tensor([0.0, -0.0, -88.0, -math.inf, 89.0, math.inf, math.nan])
    y = exponential(x)
    assert y[:4].tolist() == [1, 1, 0, 0]
    assert y[4] == y[5] == exponential(torch.tensor(HIGHEST))
    assert y[6].isnan()
    assert exponential(torch.tensor(LOWEST)) >= 2.0**-126


def test_a_decay_never_exceeds_one():
    assert exponential(-torch.logspace(-30, 2, 10_001)).max() == 1


def test_neighbours_and_places_do_not_matter():
    """A library's vector code may differ from its scalar tail; this must not."""
    whole = exponential(DENSE[:1001])
    assert torch.equal(whole, torch.stack([exponential(x) for x in DENSE[:1001]]))


@pytest.mark.parametrize("x", [-80.0, -1.0, -1e-3, 0.0, 0.5])
def test_its_derivative_is_itself(x):
    t = torch.tensor(x, requires_grad=True)
    exponential(t).backward()
    assert t.grad.item() == pytest.approx(math.exp(x), rel=1e-6)
