"""Products with packed matrices against the reference, to the bit, and against float64."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from builders import vector
from numba import njit
from packed_memory import in_memory, packed_matrix
from sensprobe_kernels.packing.rows import decode_row, multiply
from sensprobe_kernels.packing.tensor import packed_of

from sensprobe.ops.linear import linear
from sensprobe.plans.scheme import parse
from sensprobe.plans.sites import Axis, Kind, Part, Site

SCHEMES = [
    *(f"int{bits}/channel" for bits in range(2, 9)),
    *(f"int{bits}/channel/asym" for bits in (2, 3, 4, 8)),
    "int8", "int4/asym/pow2", "int4/group32", "int3/group16/asym", "int8/group32/asym/s32",
    "e4m3/channel", "e5m2", "e2m1/group32", "log4/channel", "log8", "int12/channel",
    "bf16", "fp16", "fp32",
]  # fmt: skip
POLAR = [
    "logpolar(m2,p8)/head", "logpolar(m1,p11)", "logpolar(m16,p16)/head/s32",
    "logpolar(m3,p5)/head/pow2", "logpolar(m7,p7)/group3/s32", "polar(m8,p8)/head", "polar(m3,p7)",
    "polar(m5,p1)/pow2", "polar(m1,p16)/group3/s32", "logpolar(m4,p9)/head/truncate",
]  # fmt: skip
SHAPES = [(1, 1), (3, 7), (5, 12), (4, 16), (13, 48), (8, 100), (33, 192)]


@njit
def _multiplied(data, tensors, x, batch, y, row):
    t = packed_of(tensors, 0)
    multiply(data, t, 0, t.rows, x, 0, t.columns, batch, y, 0, t.rows, row)


@njit
def _decoded(data, tensors, out):
    t = packed_of(tensors, 0)
    for r in range(t.rows):
        decode_row(data, t, r, out, r * t.columns)


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("scheme", SCHEMES)
def test_products_equal_the_reference_to_the_bit(scheme, shape):
    packed, table, weight = in_memory(shape, scheme)
    for batch in (1, 3):
        x = vector(batch, shape[1], seed=1, dtype=torch.float32)
        y = np.full((batch, shape[0]), np.nan, np.float32)
        row = np.full(shape[1] + 16, np.nan, np.float32)
        _multiplied(packed.data, table, x.numpy().reshape(-1), batch, y.reshape(-1), row)
        np.testing.assert_array_equal(y, linear(x, weight).numpy())


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("scheme", SCHEMES)
def test_rows_decode_to_what_the_simulation_rounds_to(scheme, shape):
    packed, table, weight = in_memory(shape, scheme)
    out = np.full(shape[0] * shape[1] + 16, np.nan, np.float32)
    _decoded(packed.data, table, out)
    np.testing.assert_array_equal(out[:-16].reshape(shape), weight.numpy())
    assert np.isnan(out[-16:]).all(), "nothing is written past the last row"
    torch.testing.assert_close(packed.weight(packed.sites["w"]), weight, rtol=0, atol=0)


@pytest.mark.parametrize("shape", [(1, 1), (3, 7), (64, 32)], ids=str)
@pytest.mark.parametrize("scheme", POLAR)
def test_magnitudes_and_phases_decode_to_what_the_simulation_rounds_to(scheme, shape):
    site = Site("w", Part.A, Kind.WEIGHT, shape, (Axis.HEAD, Axis.N), is_complex=True)
    if "group" in scheme and shape[1] == 1:
        scheme = scheme.replace("group3/", "head/")
    size, angle = 0.999 - 0.9 * vector(*shape).abs().sigmoid() / 2, 3 * vector(*shape, seed=1)
    packed, table, weight = packed_matrix(torch.polar(size, angle), site, parse(scheme))
    out = np.full(2 * shape[0] * shape[1] + 16, np.nan, np.float32)
    _decoded(packed.data, table, out)
    np.testing.assert_array_equal(
        out[:-16].view(np.int32), torch.view_as_real(weight).reshape(-1).numpy().view(np.int32)
    )
    assert np.isnan(out[-16:]).all(), "nothing is written past the last row"


def test_products_are_within_what_float32_explains():
    """Of a sum in sixteen lanes: (products a lane + 4 halvings + 2 roundings) · 2^-24 · Σ |w x|."""
    shape = (33, 192)
    packed, table, weight = in_memory(shape, "int8/channel")
    x = vector(192, seed=2, dtype=torch.float32)
    y, row = np.zeros(33, np.float32), np.zeros(208, np.float32)

    def error(data):
        _multiplied(data, table, x.numpy(), 1, y, row)
        exact = weight.double() @ x.double()
        return np.abs(y - exact.numpy()), (weight.abs().double() @ x.abs().double()).numpy()

    found, size = error(packed.data)
    bound = (192 / 16 + 4 + 2) * 2.0**-24 * size
    assert (found <= bound).all()
    wrong = packed.data.copy()
    wrong[packed.places["w.codes"]] ^= 1  # the lowest bit of one code of one row
    found, _ = error(wrong)
    assert found[0] > bound[0], "one code off by one is noticed"


def test_zeros_and_saturated_codes():
    site = Site("w", Part.HEAD, Kind.WEIGHT, (5, 40), (Axis.OUT, Axis.IN))
    x = torch.zeros(5, 40, dtype=torch.float64)
    x[1] = 1e30
    x[2, ::2] = -1e-30
    for text in ("int4/channel/s32", "e4m3/channel/s32", "int8/channel/asym/s32"):
        packed, table, weight = packed_matrix(x, site, parse(text))
        ones, y, row = np.ones(40, np.float32), np.zeros(5, np.float32), np.zeros(56, np.float32)
        _multiplied(packed.data, table, ones, 1, y, row)
        np.testing.assert_array_equal(y, linear(torch.ones(40), weight).numpy())
        assert y[0] == 0
        assert y[3] == 0
