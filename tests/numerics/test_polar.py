"""Complex numbers by magnitude and phase."""

from __future__ import annotations

import pytest
import torch
from builders import MATRIX, stored, values_of
from torch import Tensor

from sensprobe.numerics.rounding import LOG_FLOOR, Fields, decode, spread, unpack_scale
from sensprobe.plans.scheme import parse
from sensprobe.plans.sites import Site

FLAT = Site("f", MATRIX.part, MATRIX.kind, MATRIX.shape, MATRIX.axes)


def fields_of(x: Tensor, text: str) -> tuple[Fields, dict[str, tuple[Tensor, Tensor]]]:
    """The fields, and what each of their codes stands for with its step."""
    scheme = parse(text)
    fields = stored(x, scheme, MATRIX)
    out = {}
    for name, field in fields.items():
        scale = spread(unpack_scale(field.scale).double(), scheme, FLAT)
        low = 0 if field.zero is None else spread(field.zero.double(), scheme, FLAT)
        out[name] = (field.codes * scale + low, scale)
    return fields, out


@pytest.mark.parametrize("granularity", ["tensor", "head", "group2"])
@pytest.mark.parametrize("bits", [(1, 11), (4, 8), (8, 8)])
def test_polar_codes_magnitude_from_zero_and_phase_on_its_range(granularity, bits):
    x = values_of(MATRIX.shape, True)
    fields, values = fields_of(x, f"polar(m{bits[0]},p{bits[1]})/{granularity}/s32")
    assert [f.bits for f in fields.values()] == list(bits)
    assert fields["magnitude"].zero is None
    for name, meant in [("magnitude", x.abs()), ("phase", x.angle())]:
        got, step = values[name]
        assert ((got - meant).abs() <= step * 0.5001).all(), name
    text = f"polar(m{bits[0]},p{bits[1]})/{granularity}/s32"
    want = torch.polar(values["magnitude"][0], values["phase"][0]).to(torch.complex64)
    assert torch.equal(decode(fields, parse(text), MATRIX), want)


@pytest.mark.parametrize("granularity", ["tensor", "head", "group2"])
@pytest.mark.parametrize("bits", [(1, 11), (4, 8), (8, 8)])
def test_logpolar_codes_the_logarithm_of_the_distance_from_the_unit_circle(granularity, bits):
    x = torch.polar(
        1 - torch.exp(values_of(MATRIX.shape, False) - 4).clamp(max=0.9),
        values_of(MATRIX.shape, False, 1),
    )
    text = f"logpolar(m{bits[0]},p{bits[1]})/{granularity}/s32"
    fields, values = fields_of(x, text)
    for name, meant in [("magnitude", torch.log(1 - x.abs())), ("phase", x.angle())]:
        got, step = values[name]
        assert ((got - meant).abs() <= step * 0.5001).all(), name
    decoded = decode(fields, parse(text), MATRIX)
    magnitude = (1 - torch.exp(values["magnitude"][0])).clamp(min=0)
    assert torch.equal(decoded, torch.polar(magnitude, values["phase"][0]).to(torch.complex64))
    assert (decoded.abs() <= 1).all()  # stable, whatever the bits


def test_logpolar_keeps_slow_modes_that_a_linear_code_rounds_to_one():
    x = torch.polar(torch.tensor([[0.9999, 0.99, 0.5]] * 4).double(), torch.zeros(4, 3).double())
    linear = decode(stored(x, parse("polar(m6,p4)"), MATRIX), parse("polar(m6,p4)"), MATRIX)
    log = decode(stored(x, parse("logpolar(m6,p4)"), MATRIX), parse("logpolar(m6,p4)"), MATRIX)
    decay = (1 - x.abs()).float()
    assert ((1 - log.abs()) / decay - 1).abs().max() < 0.1
    assert ((1 - linear.abs()) / decay - 1).abs().max() > 0.5


def test_logpolar_stops_at_the_unit_circle():
    """A mode on or outside the circle is stored a float32 step inside it."""
    x = torch.full(MATRIX.shape, 1.5 + 0j, dtype=torch.complex128)
    got = decode(
        stored(x, parse("logpolar(m8,p8)/s32"), MATRIX), parse("logpolar(m8,p8)/s32"), MATRIX
    )
    assert (got.abs() <= 1).all()
    assert (1 - got.abs() <= 2 * LOG_FLOOR).all()


@pytest.mark.parametrize("text", ["polar(m6,p8)/truncate", "logpolar(m6,p8)/truncate"])
def test_truncated_polar_magnitudes_do_not_grow(text):
    x = values_of(MATRIX.shape, True)
    x = x / x.abs().max() * 0.95
    got = decode(stored(x, parse(text + "/s32"), MATRIX), parse(text + "/s32"), MATRIX)
    assert (got.abs() <= x.abs() * (1 + 1e-6)).all()
    assert (got.abs() < x.abs() * 0.999).any()


@pytest.mark.parametrize("text", ["polar(m8,p8)", "logpolar(m8,p8)/head", "polar(m4,p8)/pow2"])
def test_no_phase_lies_below_its_range_however_the_low_end_is_stored(text):
    """The low end is kept as float16, rounded down."""
    x = values_of(MATRIX.shape, True) / 10
    fields, values = fields_of(x, text)
    low = spread(fields["phase"].zero.double(), parse(text), FLAT)
    assert fields["phase"].zero.dtype == torch.float16
    assert (low <= x.angle()).all()
    assert (x.angle() - low).min() < 2.0**-8
    got, step = values["phase"]
    assert ((got - x.angle()).abs() <= 0.63 * step).all()


@pytest.mark.parametrize("text", ["logpolar(m1,p11)/head", "logpolar(m2,p4)"])
def test_few_bits_of_magnitude_reach_both_ends_of_the_range(text):
    """One bit names the slowest and the fastest mode of a head, not a point half a step away."""
    x = values_of(MATRIX.shape, True)
    x = x / x.abs().max() * 0.95
    fields, values = fields_of(x, text + "/s32")
    got, meant = values["magnitude"][0], torch.log(1 - x.abs())
    over = (1,) if "head" in text else (0, 1)
    assert torch.allclose(got.amin(over), meant.amin(over), rtol=1e-6)
    assert torch.allclose(got.amax(over), meant.amax(over), rtol=1e-6, atol=1e-6)
    assert fields["magnitude"].zero.dtype == torch.float32
