"""Products with packed weights against float64, at odd sizes, into poisoned memory.

A sum of K products in float32, in any order, is within K · eps / 2 of the exact one, relative to
the sum of magnitudes; `gemm` leaves out at most 2^-18 of each x besides, and 2^-16 where Triton's
interpreter cuts numbers off to bfloat16 instead of rounding them.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest
import torch
from sensprobe_kernels.launch import LoweringError
from sensprobe_kernels.launch import run as run_launch
from sensprobe_kernels.ops.linear.launches import FEW, product, whole_product
from sensprobe_kernels.packing.layout import pack
from sensprobe_kernels.packing.tensor import OFFSET, SIGNED, SINGLE, SMALL, Packed
from sensprobe_kernels.program.gpu.device import Weight
from sensprobe_kernels.quantize.spec import POW2, S16, S32
from torch import Tensor
from triton import knobs

from sensprobe.ops.linear import linear_codes

EPS = torch.finfo(torch.float32).eps
SIZES = [(1, 8), (5, 24), (37, 136), (67, 640)]
SCHEMES = ["int8", "int4", "int4/group8", "int3", "int2/group16", "int5/asym", "int8/asym/s32",
           "int4/asym/group32", "e4m3", "e2m1", "int6/pow2", "fp32"]  # fmt: skip


@dataclass
class Made:
    """A packed weight, and the numbers it stands for in float64."""

    tensor: Packed
    weight: Weight
    exact: Tensor


def made(scheme: str, rows: int, columns: int, device: str, fill: str = "random") -> Made:
    name, *options = scheme.split("/")
    group = next((int(o[5:]) for o in options if o.startswith("group")), columns)
    group = group if columns % group == 0 else columns
    groups = columns // group
    generator = torch.Generator().manual_seed(0)
    if name == "fp32":
        w = torch.randn(rows, columns, generator=generator)
        numbers = w.to(device)
        return Made(_described(SINGLE, 32, rows, columns, columns, groups), Weight(*[numbers] * 3),
                    w.double())  # fmt: skip
    bits = {"e4m3": 8, "e2m1": 4}.get(name) or int(name[3:])
    high = {"zero": 1, "random": 1 << bits, "saturated": 1 << bits}[fill]
    codes = torch.randint(0, high, (rows, columns), generator=generator)
    if fill == "saturated":
        codes = torch.full((rows, columns), (1 << (bits - 1)) - 1)
    if name == "e4m3":
        codes = torch.where(codes & 127 == 127, codes - 1, codes)  # the code of NaN
    scale, stored, scales = _scales(options, rows, groups, generator)
    zero = torch.randint(0, 1 << bits, (rows, groups), generator=generator)
    kind, shift, factor, numbers = _numbers(name, options, bits, codes, zero, group)
    exact = numbers.double().view(rows, groups, group) * scale.double()[..., None]
    tensor = _described(kind, bits, rows, columns, group, groups, scales, shift, factor)
    packed = torch.from_numpy(pack(codes.numpy(), bits)).to(device)
    wide = torch.int32 if scales == S32 else torch.int16
    weight = Weight(packed, stored.to(device), zero.to(wide).to(device))
    return Made(tensor, weight, exact.view(rows, columns))


def _described(kind, bits, rows, columns, group, groups, scales=S16, shift=0, factor=0) -> Packed:
    return Packed(0, bits, kind, rows, columns, 0, scales, 0, groups, group, shift, factor, 1)


def _scales(options, rows, groups, generator):
    if "pow2" in options:
        powers = torch.randint(-9, 3, (rows, groups), generator=generator)
        return 2.0**powers, powers.to(torch.int8), POW2
    scale = torch.rand(rows, groups, generator=generator) + 0.01
    kept = scale if "s32" in options else scale.half()
    return kept.float(), kept, S32 if "s32" in options else S16


def _numbers(name, options, bits, codes, zero, group):
    if name in ("e4m3", "e2m1"):
        mantissa, floor = {"e4m3": (3, -6), "e2m1": (1, 0)}[name]
        magnitude, sign = codes & ((1 << bits - 1) - 1), 1.0 - 2.0 * (codes >> bits - 1)
        power, rest = magnitude >> mantissa, (magnitude & (1 << mantissa) - 1) / (1 << mantissa)
        value = torch.where(power > 0, (1 + rest) * 2.0 ** (power - 1 + floor), rest * 2.0**floor)
        return SMALL, 23 - mantissa, floor + 126, value * sign
    if "asym" in options:
        return OFFSET, 0, 0, codes - zero.repeat_interleave(group, 1)
    half = 1 << bits - 1
    return SIGNED, 0, 0, (codes ^ half) - half


def _product(device: str, given: Made, x: Tensor, bias: Tensor | None = None) -> Tensor:
    """Of vectors that lie apart, into poisoned memory of which only the outputs may change."""
    batch, columns = x.shape
    rows, apart = given.tensor.rows, columns + 5
    memory = torch.full((batch, apart), float("nan"), device=device)
    memory[:, :columns] = x.to(device)
    y = torch.full((batch, rows + 3), float("nan"), device=device)
    bias = None if bias is None else bias.to(device)
    run_launch(product(memory, given.tensor, given.weight, bias, y, batch, [apart, rows + 3]))
    assert y[:, rows:].isnan().all()
    return y[:, :rows].cpu()


def _bound(given: Made, x: Tensor, batch: int) -> Tensor:
    sizes = x.double().abs() @ given.exact.abs().T
    lost = (2.0**-16 if knobs.runtime.interpret else 2.0**-18) if batch > FEW else 0.0
    return sizes * (0.5 * EPS * (x.shape[1] + 4) + lost) + 1e-30


@pytest.mark.parametrize("batch", [1, FEW + 3])
@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize(("rows", "columns"), SIZES)
def test_products_are_those_of_float64(device, scheme, rows, columns, batch):
    given = made(scheme, rows, columns, device)
    x = torch.randn(batch, columns, generator=torch.Generator().manual_seed(1))
    bias = torch.randn(rows, generator=torch.Generator().manual_seed(2))
    if batch > FEW and 0 < given.tensor.group < min(16, columns):
        with pytest.raises(LoweringError, match=r"scales of 8 columns for 7 vectors"):
            _product(device, given, x, bias)
        return
    got = _product(device, given, x, bias).double()
    want = x.double() @ given.exact.T + bias.double()
    assert ((got - want).abs() <= _bound(given, x, batch) + EPS * bias.abs()).all()


@pytest.mark.parametrize("fill", ["zero", "saturated"])
@pytest.mark.parametrize("scheme", ["int8", "int4/group8", "e4m3"])
def test_weights_of_nothing_and_of_the_largest_codes(device, scheme, fill):
    given, x = made(scheme, 37, 136, device, fill), torch.full((1, 136), 3.0)
    got = _product(device, given, x).double()
    assert ((got - x.double() @ given.exact.T).abs() <= _bound(given, x, 1)).all()


def test_this_bound_catches_a_code_that_is_off_by_one(device):
    given = made("int4", 37, 136, device)
    x = torch.randn(1, 136, generator=torch.Generator().manual_seed(1))
    given.weight.codes[70] ^= 1
    wrong = (_product(device, given, x).double() - x.double() @ given.exact.T).abs()
    assert (wrong > _bound(given, x, 1)).any()


# -- whole numbers --------------------------------------------------------------------------------


def _whole(device: str, given: Made, codes: Tensor, scale: Tensor, run: int) -> Tensor:
    rows, (batch, columns) = given.tensor.rows, codes.shape
    y = torch.full((batch, rows), float("nan"), device=device)
    pitches = [columns, run, scale.shape[1], rows]
    x, x_scale = codes.to(device), scale.to(device)
    run_launch(whole_product(x, x_scale, given.tensor, given.weight, None, y, batch, pitches))
    return y.cpu()


@pytest.mark.parametrize(
    "scheme",
    ["int8", "int4", "int2", "int4/group32", "int8/group16", "int8/asym", "int4/asym/group32"],
)
@pytest.mark.parametrize(("rows", "columns"), [(5, 32), (37, 160), (16, 640)])
@pytest.mark.parametrize("fill", ["random", "saturated"])
def test_products_of_whole_numbers_are_the_references_to_the_bit(
    device, scheme, rows, columns, fill
):
    given = made(scheme, rows, columns, device, fill)
    generator = torch.Generator().manual_seed(3)
    codes = torch.randint(-127, 128, (3, columns), generator=generator, dtype=torch.int8)
    if fill == "saturated":
        codes = torch.full_like(codes, 127)
    group = min(given.tensor.group, columns)
    scales = given.weight.scale.cpu().float()
    whole = (given.exact.view(rows, -1, group) / scales.double()[..., None]).round()
    for run in {columns, group}:
        scale = torch.rand(3, columns // run, generator=generator)
        want = linear_codes(codes, scale, run, whole.view(rows, columns), scales, group)
        got = _whole(device, given, codes, scale, run)
        torch.testing.assert_close(got, want, rtol=0, atol=0)


def test_the_largest_sum_of_whole_numbers_fits_32_bits():
    """127 · 127 · columns: the widest projection published has 16,384 columns."""
    assert np.iinfo(np.int32).max > 127 * 127 * 16_384
