"""Functions in fixed float64 arithmetic, against many more digits."""

import math
from collections.abc import Callable

import mpmath
import pytest
import torch
from torch import Tensor

from sensprobe.numerics import arithmetic as fixed


def uniform(low: float, high: float, count: int = 400) -> Tensor:
    g = torch.Generator().manual_seed(0)
    return torch.empty(count, dtype=torch.float64).uniform_(low, high, generator=g)


def units_off(got: Tensor, points: list[tuple[float, ...]], truth: Callable[..., object]) -> float:
    """The largest error in units of the last place of the right value."""
    worst = 0.0
    with mpmath.workprec(160):
        for value, point in zip(got.tolist(), points, strict=True):
            right = truth(*map(mpmath.mpf, point))
            worst = max(worst, float(abs(value - right) / math.ulp(float(right))))
    return worst


def of_one(x: Tensor) -> list[tuple[float, ...]]:
    return [(value,) for value in x.tolist()]


@pytest.mark.parametrize(
    ("name", "low", "high", "bound"),
    [
        ("exp", -1.0, 1.0, 1.0),
        ("exp", -708.0, 709.0, 1.0),
        ("log", 0.5, 1.5, 1.0),
        ("log", 1e-300, 1e300, 1.0),
        ("softplus", -40.0, 40.0, 2.0),
    ],
)
def test_real_functions(name: str, low: float, high: float, bound: float) -> None:
    x = uniform(low, high)
    truth = {
        "exp": mpmath.exp,
        "log": mpmath.log,
        "softplus": lambda v: mpmath.log1p(mpmath.exp(v)),
    }
    assert units_off(getattr(fixed, name)(x), of_one(x), truth[name]) < bound


@pytest.mark.parametrize("most", [1.0, 100.0, 2.0**20])
def test_angles(most: float) -> None:
    x = uniform(-most, most)
    sine, cosine = fixed.sin_cos(x)
    assert units_off(sine, of_one(x), mpmath.sin) < 1
    assert units_off(cosine, of_one(x), mpmath.cos) < 1


def test_polar_form() -> None:
    y, x = uniform(-2, 2), uniform(-3, 3).flip(0)
    points = list(zip(y.tolist(), x.tolist(), strict=True))
    assert units_off(fixed.atan2(y, x), points, mpmath.atan2) < 2
    size = fixed.magnitude(torch.complex(x, y) * 1e200)
    assert units_off(size, [(1e200 * a, 1e200 * b) for a, b in points], mpmath.hypot) < 2
    corners = torch.tensor([0.0, 0, 1, -1, 0]).double(), torch.tensor([1.0, -1, 0, 0, 0]).double()
    assert fixed.atan2(*corners).tolist() == [0, math.pi, math.pi / 2, -math.pi / 2, 0]


def test_ends_and_what_is_no_number() -> None:
    ends = torch.tensor([0.0, math.inf, -math.inf, 800, -800, math.nan]).double()
    assert fixed.exp(ends)[:5].tolist() == [1, math.inf, 0, math.inf, 0]
    assert fixed.exp(ends)[5].isnan()
    assert all(v.isnan() for v in fixed.sin_cos(ends[-1:]))


@pytest.mark.parametrize(
    ("dtype", "low", "high"), [(torch.float32, -149, 127), (torch.float64, -1074, 1023)]
)
def test_powers_of_two_are_exact(dtype: torch.dtype, low: int, high: int) -> None:
    exponents = range(low, high + 1)
    got = fixed.power_of_two(torch.tensor(exponents), dtype)
    assert got.dtype == dtype
    assert got.tolist() == [2.0**e for e in exponents]


@pytest.mark.parametrize("count", [1, 2, 7, 64])
def test_totals(count: int) -> None:
    x = uniform(0, 1, 6 * count).reshape(2, count, 3)
    found = fixed.total(x, [1, -1])
    assert found.shape == (2, 1, 1)
    want = [math.fsum(row.flatten().tolist()) for row in x]
    assert found.flatten().tolist() == pytest.approx(want, rel=1e-14)
    assert fixed.total(x, []) is x


def test_gradients() -> None:
    x = uniform(0.1, 3, 6).requires_grad_()
    assert torch.autograd.gradcheck(lambda v: (fixed.exp(v), fixed.log(v), *fixed.sin_cos(v)), x)
    narrow = torch.ones(3, requires_grad=True)
    fixed.exp(narrow).sum().backward()
    assert narrow.grad is not None
    assert narrow.grad.tolist() == pytest.approx([math.e] * 3)


def test_complex_products_and_quotients() -> None:
    a, b = (torch.complex(uniform(-1, 1), uniform(1, 2) * s) for s in (1, -3))
    for got, want in ((fixed.times, a * b), (fixed.over, a / b)):
        found = fixed.joined(got(fixed.pair(a), fixed.pair(b)))
        assert ((found - want).abs() / want.abs()).max() < 4 * torch.finfo(torch.float64).eps
