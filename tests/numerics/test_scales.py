"""Scales as memory keeps them, and which values share one."""

from __future__ import annotations

import torch
from builders import MATRIX, RAGGED, site, stored, values_of
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from sensprobe.numerics.rounding import (
    LARGEST_SCALE,
    SMALLEST_SCALE,
    decode,
    pack_scale,
    stored_scale,
    unpack_scale,
)
from sensprobe.plans.scheme import Scales, parse


@given(st.floats(1e-45, 1e38))
def test_stored_scales_are_numbers_of_their_type(scale):
    x = torch.tensor(scale, dtype=torch.float64)
    s16, s32, pow2 = (stored_scale(x, s).item() for s in (Scales.S16, Scales.S32, Scales.POW2))
    inside = min(max(scale, SMALLEST_SCALE[Scales.S16]), LARGEST_SCALE[Scales.S16])
    half = torch.tensor(s16, dtype=torch.float64).half()
    assert half.double().item() == s16
    step = torch.nextafter(half, torch.tensor(torch.inf).half()).double().item() - s16
    assert abs(s16 - inside) <= step or s16 == 65504
    assert s32 == x.clamp(min=2.0**-126).float().item()
    mantissa, exponent = torch.frexp(torch.tensor(pow2, dtype=torch.float64))
    assert mantissa == 0.5
    assert -126 <= exponent - 1 <= 127
    assert scale <= pow2 < 2 * max(scale, 2.0**-126)  # up, so that nothing is cut off


def test_a_scale_that_is_a_float16_is_kept():
    halves = torch.tensor([2.0**-24, 0.1, 1.0, 65504.0]).half()
    assert torch.equal(stored_scale(halves.double(), Scales.S16), halves.double())


def test_a_scale_that_is_a_power_of_two_is_kept():
    x = torch.tensor([2.0**-126, 0.25, 1.0, 2.0**127], dtype=torch.float64)
    assert torch.equal(stored_scale(x, Scales.POW2), x)


def test_scales_are_never_zero_nor_infinite():
    x = torch.tensor([0.0, 1e-300, 1e300, torch.inf], dtype=torch.float64)
    for kind in Scales:
        got = stored_scale(x, kind)
        assert (got > 0).all()
        assert got.isfinite().all()
        assert unpack_finite(got, kind)


def unpack_finite(scale: Tensor, kind: Scales) -> bool:
    return bool((unpack_scale(pack_scale(scale, kind)).double() == scale).all())


def test_scales_follow_the_range_of_what_shares_them():
    x = values_of((6, 10), False)
    fields = stored(x, parse("int8/channel/s32"), site())
    want = x.abs().amax(1, keepdim=True) / 127
    assert torch.equal(fields[""].scale, want.float())
    fields = stored(x, parse("int4/asym/s32"), site())
    assert torch.equal(fields[""].scale, ((x.max() - x.min()) / 15).float().view(1, 1))
    assert torch.equal(
        fields[""].zero, (-x.min() / fields[""].scale.double()).round().int().view(1, 1)
    )


def test_groups_have_their_own_scales_and_a_ragged_tail():
    x = values_of((3, 7), False)
    fields = stored(x, parse("int8/group3/s32"), RAGGED)
    want = torch.stack([part.abs().amax(1) / 127 for part in x.split(3, dim=1)], dim=1).float()
    assert want.shape == (3, 3)
    assert torch.equal(fields[""].scale, want)
    assert fields[""].codes.shape == (3, 7)
    got = decode(fields, parse("int8/group3/s32"), RAGGED)
    assert ((got - x).abs() <= 0.5001 * want.repeat_interleave(3, 1)[:, :7]).all()


def test_groups_of_complex_numbers_share_both_parts_unless_told():
    x = values_of((4, 3), True)
    together = stored(x, parse("int8/group2/s32"), MATRIX)[""].scale
    apart = stored(x, parse("int8/group2/parts/s32"), MATRIX)[""].scale
    assert (together.shape, apart.shape) == ((4, 2, 1), (4, 2, 2))
    assert torch.equal(together, apart.amax(-1, keepdim=True))
    first = torch.view_as_real(x)[:, :2].abs().amax(1) / 127
    assert torch.equal(apart[:, 0], first.float())
