"""Products of packed codes and codes of vectors against the reference, to the bit."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from numba import njit
from packed_memory import in_memory, packed_matrix, whole_numbers
from sensprobe_kernels.packing.integers import BITS, Coded, multiply_codes
from sensprobe_kernels.packing.tensor import packed_of

from sensprobe.ops.linear import linear_codes
from sensprobe.plans.scheme import parse
from sensprobe.plans.sites import Axis, Kind, Part, Site

SCHEMES = [
    *(f"int{bits}/channel" for bits in BITS), *(f"int{bits}/channel/asym" for bits in BITS),
    "int8", "int4/asym/pow2", "int4/group32", "int3/group16/asym", "int8/group24/asym/s32",
    "int2/group8", "int4/group40",
]  # fmt: skip
SHAPES = [(1, 1), (1, 37), (3, 8), (5, 24), (4, 32), (13, 48), (8, 104), (33, 192)]


@njit
def _multiplied(data, tensors, codes, run, scales, batch, y):
    t = packed_of(tensors, 0)
    per = -(-t.columns // run)
    multiply_codes(
        data, t, 0, t.rows, Coded(codes, 0, t.columns, run, scales, 0, per), batch, y, 0, t.rows
    )


def vectors(batch: int, columns: int, run: int, seed: int = 1):
    generator = np.random.default_rng(seed)
    codes = generator.integers(-127, 128, (batch, columns)).astype(np.int16)
    scales = generator.uniform(1e-3, 2, (batch, -(-columns // run))).astype(np.float32)
    return codes, scales


def assert_equal(packed, table, codes, run, scales):
    q, s, group = whole_numbers(packed, "w")
    y = np.full((len(codes), len(q)), np.nan, np.float32)
    _multiplied(
        packed.data, table, codes.reshape(-1), run, scales.reshape(-1), len(codes), y.reshape(-1)
    )
    want = linear_codes(torch.from_numpy(codes), torch.from_numpy(scales), run, q, s, group)
    np.testing.assert_array_equal(y, want.numpy())


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("text", SCHEMES)
def test_products_equal_the_reference_to_the_bit(text, shape):
    scheme = parse(text)
    packed, table, _ = in_memory(shape, text)
    group = scheme.group or shape[1]
    for batch in (1, 3):
        for run in {shape[1], min(group, shape[1]), min(2 * group, shape[1])}:
            if max(run, group) < shape[1] and max(run, group) % min(run, group):
                continue
            codes, scales = vectors(batch, shape[1], run)
            assert_equal(packed, table, codes, run, scales)


@pytest.mark.parametrize("run", [8, 16, 64])
def test_vectors_may_have_scales_where_rows_have_one(run):
    packed, table, _ = in_memory((6, 104), "int4/channel/asym")
    codes, scales = vectors(2, 104, run)
    assert_equal(packed, table, codes, run, scales)


def test_zeros_give_zero_and_nan_scales_nan():
    packed, table, _ = in_memory((5, 40), "int8/channel/asym")
    codes, scales = np.zeros((2, 40), np.int16), np.array([[3.0], [np.nan]], np.float32)
    y = np.full(10, 7, np.float32)
    _multiplied(packed.data, table, codes.reshape(-1), 40, scales.reshape(-1), 2, y)
    assert y[:5].tolist() == [0] * 5
    assert np.isnan(y[5:]).all()


@pytest.mark.parametrize("bits", BITS)
def test_sums_of_the_largest_codes_are_exact_at_the_largest_size(bits):
    """Every product as large as codes let it be, and as many as stay below 2^31."""
    columns = (2**31 - 1) // (2 ** (bits - 1) * 127) // 8 * 8
    if columns > 2**20:
        columns = 2**20
    site = Site("w", Part.HEAD, Kind.WEIGHT, (2, columns), (Axis.OUT, Axis.IN))
    text = f"int{bits}/channel/s32"
    packed, table, _ = packed_matrix(torch.ones(site.shape, dtype=torch.float64), site, parse(text))
    lowest = {2: 0b10101010, 4: 0x88, 8: 0x80}
    half = columns * bits // 8
    if bits == 3:
        packed.data[packed.places["w.codes"] :][:half].reshape(-1, 3)[:] = [0x24, 0x49, 0x92]
    else:
        packed.data[packed.places["w.codes"] :][:half] = lowest[bits]
    codes = np.full((1, columns), 127, np.int16)
    q, _, _ = whole_numbers(packed, "w")
    assert (q[0] == -(2 ** (bits - 1))).all()
    assert_equal(packed, table, codes, columns, np.ones((1, 1), np.float32))
    assert_equal(packed, table, -codes, columns, np.ones((1, 1), np.float32))


def test_a_code_off_by_one_is_noticed():
    """An integer product has no room for error: one code of one row changes that row alone."""
    packed, table, _ = in_memory((8, 104), "int8/channel")
    codes, scales = vectors(1, 104, 104)
    before, after = np.zeros(8, np.float32), np.zeros(8, np.float32)
    _multiplied(packed.data, table, codes.reshape(-1), 104, scales.reshape(-1), 1, before)
    packed.data[packed.places["w.codes"] + 3 * 104 + 50] += 1
    _multiplied(packed.data, table, codes.reshape(-1), 104, scales.reshape(-1), 1, after)
    assert (before != after).tolist() == [i == 3 for i in range(8)]
    fields = whole_numbers(packed, "w")
    want = linear_codes(torch.from_numpy(codes), torch.from_numpy(scales), 104, *fields)
    np.testing.assert_array_equal(after, want[0].numpy())


def test_products_are_within_what_float32_explains():
    """Against float64: an exact sum becomes float32, times two scales: 3 roundings, 2^-24 each."""
    packed, table, _ = in_memory((33, 2000), "int8/channel/s32")
    codes, scales = vectors(1, 2000, 2000)
    y = np.zeros(33, np.float32)
    _multiplied(packed.data, table, codes.reshape(-1), 2000, scales.reshape(-1), 1, y)
    q, s, _ = whole_numbers(packed, "w")
    exact = (
        (q @ torch.from_numpy(codes[0]).long()).double() * s[:, 0].double() * float(scales[0, 0])
    )
    assert (np.abs(y - exact.numpy()) <= 3.0001 * 2.0**-24 * exact.abs().numpy()).all()
