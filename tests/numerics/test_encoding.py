"""Whole tensors as codes and scales, and back: what memory holds against what was meant."""

from __future__ import annotations

import pytest
import torch
from builders import BIAS, MATRIX, PROJECTION, RAGGED, site, stored, values_of
from hypothesis import given
from hypothesis import strategies as st
from schemes import schemes_for
from torch import Tensor

from sensprobe.numerics.philox import key_of, noise_like
from sensprobe.numerics.rounding import (
    LARGEST_SCALE,
    Fields,
    decode,
    min_max,
    quantize,
    real_view,
    rotated,
    rotated_back,
    spread,
    unpack_scale,
)
from sensprobe.plans.formats import FP32, Int, LogPolar, Polar
from sensprobe.plans.scheme import ZERO_PEAK, Rounding, Scheme, parse, scale_shape
from sensprobe.plans.sites import Axis, Site

ONE = site(shape=(1,), axes=(Axis.OUT,))
LONE_COMPLEX = site(shape=(1, 1), axes=(Axis.HEAD, Axis.N), is_complex=True)
WEIGHTS = [MATRIX, PROJECTION, BIAS, RAGGED, ONE, LONE_COMPLEX]
WEIGHT = pytest.mark.parametrize("where", WEIGHTS, ids=lambda s: f"{s.name}{list(s.shape)}")
MAGNITUDES = st.sampled_from([1e-40, 1e-12, 1e-3, 1.0, 300.0, 1e9, 1e30])


def drawn(data: st.DataObject, where: Site) -> tuple[Scheme, Tensor]:
    scheme = data.draw(schemes_for(where))
    x = values_of(where.shape, where.is_complex, seed=data.draw(st.integers(0, 99)))
    return scheme, x * data.draw(MAGNITUDES) + data.draw(st.sampled_from([0, 0, 5, -5]))


def scales(fields: Fields) -> tuple[Tensor, Tensor | None]:
    field = fields[""]
    zero = None if field.zero is None else field.zero.double()
    return unpack_scale(field.scale).double(), zero


def steps(x: Tensor, scheme: Scheme, where: Site) -> tuple[Tensor, Tensor, Tensor]:
    """|decoded - x| in steps, the steps themselves, and by how much each scale falls short.

    A stored scale may lie below the one the range asks for (float16 rounds it); then codes do not
    reach the range's ends, by the shortfall times the number of codes between zero and the end.
    """
    fields = stored(x, scheme, where)
    x = real_view(x)
    got = real_view(decode(fields, scheme, where)).double()
    scale, _ = scales(fields)
    low, high = min_max(x, scheme, where)
    peak = torch.maximum(low.abs(), high.abs())
    reach = float(scheme.format.peak)
    wanted = peak / reach
    if scheme.asym:
        reach = scheme.format.levels + ZERO_PEAK[scheme.scales]
        wanted = torch.maximum((high - low) / scheme.format.levels, peak / ZERO_PEAK[scheme.scales])
    short = (wanted / scale - 1).clamp(min=0) * reach
    return (got - x).abs() / spread(scale, scheme, where), scale, spread(short, scheme, where)


# -- codes, and what they stand for ------------------------------------------------------------


@WEIGHT
@given(data=st.data())
def test_decoding_gives_what_quantizing_gives(where, data):
    """Simulation and packing agree to the bit, with the scales that are stored."""
    scheme, x = drawn(data, where)
    if isinstance(scheme.format, Polar | LogPolar):
        return
    fields = stored(x, scheme, where)
    scale, zero = (None, None) if fields[""].scale is None else scales(fields)
    noise = None
    if scheme.rounding is Rounding.STOCHASTIC:
        noise = noise_like(real_view(x), key_of(scheme.seed, where.name))
    meant = quantize(rotated(real_view(x), scheme), scheme, where, scale, zero, noise)
    meant = rotated_back(meant.to(torch.float32).double(), scheme).to(torch.float32)
    got = decode(fields, scheme, where)
    assert got.shape == x.shape
    assert got.dtype == (torch.complex64 if where.is_complex else torch.float32)
    assert torch.equal(real_view(got), meant)


@WEIGHT
@given(data=st.data())
def test_codes_fit_their_bits_and_scales_their_types(where, data):
    scheme, x = drawn(data, where)
    for name, field in stored(x, scheme, where).items():
        if field.scale is None:
            assert field.codes.dtype in (torch.float32, torch.float16, torch.bfloat16)
            continue
        low, high = 0, 2**field.bits - 1
        if isinstance(scheme.format, Int) and not scheme.asym:
            low, high = -(2 ** (field.bits - 1)) + 1, 2 ** (field.bits - 1) - 1
        assert field.codes.dtype == torch.int32, name
        assert low <= field.codes.min()
        assert field.codes.max() <= high
        dtypes = {"s16": torch.float16, "s32": torch.float32, "pow2": torch.int8}
        assert field.scale.dtype == dtypes[scheme.scales]
        assert field.scale.shape == scale_shape(scheme, where)
        if field.zero is not None:
            assert field.zero.shape == field.scale.shape
            assert field.zero.abs().max() <= ZERO_PEAK[scheme.scales]
            wide = scheme.scales == "s32"
            whole, real = (torch.int32, torch.float32) if wide else (torch.int16, torch.float16)
            assert field.zero.dtype == (whole if name == "" else real)


@WEIGHT
@given(data=st.data())
def test_what_is_decoded_is_finite(where, data):
    scheme, x = drawn(data, where)
    assert real_view(decode(stored(x, scheme, where), scheme, where)).isfinite().all()


@WEIGHT
@given(data=st.data())
def test_integers_err_by_half_a_step(where, data):
    """Plus what a scale stored short of its range cuts off, and float32's own rounding."""
    scheme, x = drawn(data, where)
    if not isinstance(scheme.format, Int) or scheme.range != "absmax":
        return
    if scheme.rounding is not Rounding.NEAREST:
        return
    error, scale, short = steps(x, scheme, where)
    if (scale >= LARGEST_SCALE[scheme.scales]).any():
        return  # beyond what a scale of this type reaches, values saturate: see below
    dust = 2.0**-23 * (real_view(x).abs() / spread(scale, scheme, where)).max()
    assert (error <= 0.5 + short + dust).all()


@pytest.mark.parametrize("text", ["int4", "int8", "int8/asym", "int8/channel/asym", "int8/group3"])
def test_eight_bits_and_fewer_err_by_little_more_than_half_a_step(text):
    """float16 scales are within 2^-11, so 255 steps lack 0.13 at most; none of it goes unused."""
    worst = max(
        steps(values_of((6, 10), False, seed), parse(text), site())[0].max() for seed in range(20)
    )
    assert 0.4 < worst < 0.63


def test_an_error_of_a_step_is_noticed():
    """The bound can fail: one code off by one breaks it."""
    x, scheme = values_of((6, 10), False), parse("int8/channel")
    fields = stored(x, scheme, site())
    fields[""].codes[2, 3] += 1 if fields[""].codes[2, 3] < 100 else -1
    scale, _ = scales(fields)
    error = (decode(fields, scheme, site()).double() - x).abs() / scale
    assert error.max() > 0.63


@pytest.mark.parametrize("text", ["fp32", "bf16", "fp16"])
def test_unscaled_formats_are_casts(text):
    x = values_of((6, 10), False)
    dtype = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}[text]
    fields = stored(x, parse(text), site())
    assert fields[""].scale is None
    assert fields[""].codes.dtype == dtype
    assert torch.equal(decode(fields, parse(text), site()), x.to(dtype).float())


def test_complex_exact_weights_are_only_made_single():
    x = values_of(MATRIX.shape, True)
    assert torch.equal(
        decode(stored(x, Scheme(FP32), MATRIX), Scheme(FP32), MATRIX), x.to(torch.complex64)
    )


# -- special tensors ------------------------------------------------------------


@pytest.mark.parametrize("kind", ["s16", "s32", "pow2"])
@pytest.mark.parametrize("text", ["int8", "int8/asym", "int2/asym", "e4m3", "log4", "int4/group3"])
def test_zeros_stay_zeros(text, kind):
    x = torch.zeros(3, 7, dtype=torch.float64)
    scheme = parse(f"{text}/{kind}")
    assert torch.equal(decode(stored(x, scheme, RAGGED), scheme, RAGGED), x.float())


@pytest.mark.parametrize("text", ["polar(m4,p4)", "polar(m1,p1)", "logpolar(m4,p4)"])
def test_complex_zeros_stay_zeros(text):
    x = torch.zeros(MATRIX.shape, dtype=torch.complex128)
    got = decode(stored(x, parse(text), MATRIX), parse(text), MATRIX)
    assert not got.any()


@pytest.mark.parametrize("value", [1e-6, 0.3, -0.3, 7.0, -1234.5])
@pytest.mark.parametrize("text", ["int8", "int8/asym", "int4/asym", "e4m3", "log4", "int8/s32"])
def test_a_constant_tensor_is_kept_to_the_precision_of_its_scale(text, value):
    """Its range is one point. float16 keeps 11 bits of a scale, fewer where it is subnormal."""
    x = torch.full((3, 7), value, dtype=torch.float64)
    got = decode(stored(x, parse(text), RAGGED), parse(text), RAGGED).double()
    scale = unpack_scale(stored(x, parse(text), RAGGED)[""].scale).double()
    spacing = torch.maximum(scale * 2.0**-10, torch.tensor(2.0**-24)) / scale
    assert ((got / value - 1).abs() <= spacing + 2.0**-15).all()


@pytest.mark.parametrize("kind", ["s16", "s32"])
@pytest.mark.parametrize("sign", [1, -1])
def test_a_narrow_range_far_from_zero_keeps_the_bits_its_zero_point_has(kind, sign):
    """[1000, 1001]: 8-bit steps of 1/255 would need a zero point of 255,000; int16 holds 32,767."""
    x = sign * (1000 + torch.rand(3, 7, generator=torch.Generator().manual_seed(0)).double())
    scheme = parse(f"int8/asym/{kind}")
    fields = stored(x, scheme, RAGGED)
    got = decode(fields, scheme, RAGGED).double()
    step = max(1001 / ZERO_PEAK[scheme.scales], 1 / 255)
    assert fields[""].zero.abs().max() <= ZERO_PEAK[scheme.scales]
    assert (got - x).abs().max() <= step * (0.51 if kind == "s32" else 1.1)


def test_one_value_is_kept_to_the_precision_of_its_scale():
    x = torch.tensor([0.7], dtype=torch.float64)
    assert (
        abs(decode(stored(x, parse("int8/s32"), ONE), parse("int8/s32"), ONE).item() - 0.7) < 1e-7
    )


@pytest.mark.parametrize("text", ["int8", "e4m3", "log4"])
def test_beyond_the_largest_scale_values_saturate_with_their_sign(text):
    x = torch.tensor([[1e30, -1e30, 1.0] + [0.0] * 4] * 3, dtype=torch.float64)
    got = decode(stored(x, parse(text), RAGGED), parse(text), RAGGED)
    assert (got[:, 0] > 1e4).all()
    assert (got[:, 1] <= 0).all()


def test_truncated_codes_never_lie_further_from_zero_than_what_was_meant():
    for text in ("int8/truncate", "int4/asym/truncate", "e4m3/channel/truncate", "bf16/truncate"):
        x = values_of((6, 10), False)
        got = decode(stored(x, parse(text), site()), parse(text), site())
        assert (got.abs() <= x.abs() * (1 + 1e-7)).all()
        assert (got.abs() < x.abs()).any()
