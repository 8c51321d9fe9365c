"""Rounding to a format against its definition: the list of numbers the format can name."""

from __future__ import annotations

from bisect import bisect_left
from fractions import Fraction
from functools import cache
from math import inf, nan

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from sensprobe.numerics.rounding import round_ratio
from sensprobe.plans.formats import BF16, E2M1, E4M3, E5M2, FORMATS, FP16, FP32, Float, Int, Log
from sensprobe.plans.scheme import Rounding
from sensprobe.testing.format import FormatContract

ROUNDED = [f for f in FORMATS.values() if f != FP32]
FORMAT = pytest.mark.parametrize("format", ROUNDED, ids=str)
FLOATS32 = st.floats(width=32, allow_nan=False)


@cache
def listed(format) -> list[float]:
    return format.values()


def neighbours(format, x: float) -> tuple[float, float]:
    """The format's values on either side of x; the same one twice where x is a value or beyond."""
    values = listed(format)
    at = bisect_left(values, x)
    if at == len(values):
        return values[-1], values[-1]
    if values[at] == x or at == 0:
        return values[at], values[at]
    return values[at - 1], values[at]


def ratios(draw: st.DataObject, format) -> torch.Tensor:
    """A float32 near the format's range, or any at all."""
    inside = st.floats(-1.5, 1.5, width=32).map(lambda r: r * min(format.peak, 1e38))
    return torch.tensor(draw.draw(inside | FLOATS32), dtype=torch.float32)


@FORMAT
@given(data=st.data())
def test_rounding_returns_a_nearest_value(format, data):
    x = ratios(data, format)
    got = round_ratio(x, format).item()
    below, above = neighbours(format, x.item())
    assert got in (below, above)
    if below != above:
        exact = Fraction(x.item())
        gap = abs(Fraction(got) - exact)
        assert gap == min(exact - Fraction(below), Fraction(above) - exact)


@FORMAT
def test_values_stay_what_they_are(format):
    values = torch.tensor(listed(format), dtype=torch.float32)
    for rounding in (Rounding.NEAREST, Rounding.TRUNCATE, Rounding.FEEDBACK):
        assert torch.equal(round_ratio(values, format, rounding), values)
    noise = torch.full_like(values, 0.5)
    assert torch.equal(round_ratio(values, format, Rounding.STOCHASTIC, noise), values)


@pytest.mark.parametrize("format", [f for f in ROUNDED if not isinstance(f, Log)], ids=str)
def test_ties_go_to_the_even_code(format):
    x = torch.tensor(listed(format), dtype=torch.float64)
    x = x[x >= 0]
    even = torch.where(torch.arange(len(x) - 1) % 2 == 0, x[:-1], x[1:])
    tie = (x[:-1] + x[1:]) / 2
    assert torch.equal(round_ratio(tie, format), even)
    assert torch.equal(round_ratio(-tie, format), -even)


@pytest.mark.parametrize("format", [f for f in ROUNDED if isinstance(f, Log)], ids=str)
def test_ties_between_powers_of_two_go_up_and_the_last_one_to_zero(format):
    """1.5 is rounded as the integer it is between: 2; below the smallest power, 0.5 goes to 0."""
    x = torch.tensor(format.code_values(), dtype=torch.float64)
    want = x[1:].clone()
    want[0] = 0
    assert torch.equal(round_ratio((x[:-1] + x[1:]) / 2, format), want)


def random_floats(count: int) -> torch.Tensor:
    """Every kind of float32, by random bits; NaN left out."""
    bits = torch.randint(-(2**31), 2**31, (count,), generator=torch.Generator().manual_seed(0))
    x = bits.to(torch.int32).view(torch.float32)
    return x[~x.isnan()]


@pytest.mark.parametrize(
    ("format", "dtype"),
    [
        (FP16, torch.float16),
        (BF16, torch.bfloat16),
        (E4M3, torch.float8_e4m3fn),
        (E5M2, torch.float8_e5m2),
    ],
    ids=str,
)
def test_floats_round_as_torch_casts_them(format, dtype):
    """After clamping: a cast goes to infinity or NaN beyond the peak, storage saturates."""
    x = torch.cat([random_floats(100_000), torch.linspace(-2, 2, 10_001) * min(format.peak, 1e38)])
    want = x.clamp(-format.peak, format.peak).to(dtype).to(torch.float32)
    assert torch.equal(round_ratio(x, format), want)


@FORMAT
def test_beyond_the_peak_it_saturates(format):
    x = torch.tensor([inf, -inf, format.peak * 1.9, -format.peak * 1.9], dtype=torch.float64)
    peak = format.peak
    for rounding in Rounding:
        got = round_ratio(x, format, rounding, torch.full_like(x, 0.999))
        assert got.tolist() == [peak, -peak, peak, -peak]


@FORMAT
@pytest.mark.parametrize("rounding", Rounding)
def test_nan_stays_nan(format, rounding):
    x = torch.tensor([nan, 0.25], dtype=torch.float32)
    assert round_ratio(x, format, rounding, torch.zeros(2)).isnan().tolist() == [True, False]


@FORMAT
@given(data=st.data())
def test_truncation_takes_the_neighbour_nearer_to_zero(format, data):
    x = ratios(data, format).double()
    below, above = neighbours(format, x.item())
    assert round_ratio(x, format, Rounding.TRUNCATE).item() == (below if x > 0 else above)


@FORMAT
@given(data=st.data(), noise=st.integers(0, 2**24 - 1))
def test_stochastic_rounding_returns_a_neighbour(format, data, noise):
    x = ratios(data, format).double()
    u = torch.tensor(noise * 2.0**-24, dtype=torch.float64)
    assert round_ratio(x, format, Rounding.STOCHASTIC, u).item() in neighbours(format, x.item())


@pytest.mark.parametrize("format", [Int(4), Int(8), E4M3, E2M1, FP16, Log(4)], ids=str)
@pytest.mark.parametrize("share", [0.1, 0.5, 0.9])
def test_stochastic_rounding_goes_up_with_the_probability_of_the_remainder(format, share):
    """Equidistant noise of k points: the count of ups is the share of them, to one of them."""
    values = [v for v in listed(format) if v >= 0]
    below, above = values[2], values[3]
    points = 4096
    u = (torch.arange(points) + 0.5).double() / points
    for sign in (1, -1):
        x = torch.full((points,), sign * (below + share * (above - below)), dtype=torch.float64)
        got = round_ratio(x, format, Rounding.STOCHASTIC, u)
        assert abs((got.mean() - x[0]).item()) <= (above - below) / points


def test_stochastic_rounding_is_unbiased_in_float32():
    """Random bits: the mean of k Bernoulli draws is within 5 standard errors of the value."""
    generator = torch.Generator().manual_seed(0)
    k, v = 100_000, torch.tensor([0.3, -0.3, 5.7, -100.01, 126.5])
    u = torch.randint(0, 2**24, (k, len(v)), generator=generator).float() * 2.0**-24
    got = round_ratio(v.expand(k, -1), Int(8), Rounding.STOCHASTIC, u).double().mean(0)
    share = v.double() - v.double().floor()
    assert ((got - v.double()).abs() < 5 * (share * (1 - share) / k).sqrt()).all()


def test_stochastic_rounding_needs_noise():
    with pytest.raises(ValueError, match="needs noise"):
        round_ratio(torch.zeros(1), Int(8), Rounding.STOCHASTIC)


def test_a_wrong_rounding_is_noticed():
    """Rounding halves away from zero, the commonest mistake, differs at ties."""
    x = torch.tensor([0.5, 2.5])
    assert not torch.equal((x + 0.5).floor(), round_ratio(x, Int(8)))
    wrong = Float("wrong", 4, 3, 480.0)
    assert round_ratio(torch.tensor(470.0), wrong).item() not in listed(E4M3)


class TestFormats(FormatContract):
    @pytest.fixture(params=ROUNDED, ids=str)
    def format(self, request):
        return request.param
