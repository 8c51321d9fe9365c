"""Codes on cells and back, and the product that converters and devices make of them."""

from __future__ import annotations

import math

import pytest
import torch
from builders import RAGGED
from torch import Tensor

from sensprobe.numerics.crossbar import (
    Array,
    adc_scales_of,
    array_of,
    block_scales,
    joined,
    off_tiles,
    on_tiles,
    programmed,
    sliced,
)
from sensprobe.numerics.pcm import DRAWS
from sensprobe.numerics.rounding import decode, encode
from sensprobe.plans.crossbar import Crossbar, Placed, parse, place
from sensprobe.plans.noise import Gaussian, Pcm
from sensprobe.plans.scheme import parse as scheme_of
from sensprobe.plans.sites import Axis, Kind, Part, Site

SCHEMES = ["int2", "int5/channel", "int8/group2", "int8/group4/s32", "int16/group3/pow2"]


def placed_on(site: Site, scheme: str, crossbar: Crossbar) -> Placed:
    plan, name = {site.name: scheme_of(scheme)}, site.name
    return place(plan, {name: site}, [(name, "x", 1)], crossbar).placed[name]


def weight(site: Site) -> Tensor:
    return torch.randn(site.shape, generator=torch.Generator().manual_seed(1)).double()


def array(site: Site, scheme: str, crossbar: Crossbar, dac_scale: float = 1.0) -> Array:
    placed = placed_on(site, scheme, crossbar)
    stored = encode(weight(site), placed.scheme, site)[""]
    levels = sliced(stored.codes, placed.slices, crossbar.cell_bits)
    scales = block_scales(stored, placed)
    return array_of(levels, scales, placed, crossbar, (dac_scale, crossbar.dac.peak))


@pytest.mark.parametrize("cell_bits", [1, 2, 3, 8])
@pytest.mark.parametrize("bits", [2, 5, 8])
def test_every_code_is_its_slices(bits: int, cell_bits: int) -> None:
    peak = 2 ** (bits - 1) - 1
    codes = torch.arange(-peak, peak + 1, dtype=torch.int32)[:, None]
    levels = sliced(codes, math.ceil((bits - 1) / cell_bits), cell_bits)
    assert levels.max() <= 2**cell_bits - 1
    assert (levels.sum(1) > 0).sum(0).max() <= 1  # one cell of a pair is 0
    weights = 2.0 ** (cell_bits * torch.arange(levels.shape[1]))
    by_hand = ((levels[0] - levels[1].float()) * weights[:, None, None]).sum(0)
    assert torch.equal(by_hand.mT, codes.float())
    assert torch.equal(joined(levels, cell_bits), codes)


@pytest.mark.parametrize("sizes", ["rows=3,columns=31", "rows=2,columns=64,cell_bits=4", ""])
@pytest.mark.parametrize("scheme", SCHEMES)
def test_cells_on_tiles_hold_the_codes(scheme: str, sizes: str) -> None:
    crossbar = parse(sizes)
    placed = placed_on(RAGGED, scheme, crossbar)
    codes = encode(weight(RAGGED), placed.scheme, RAGGED)[""].codes
    levels = sliced(codes, placed.slices, crossbar.cell_bits)
    tiles = on_tiles(levels, placed, crossbar)
    assert tiles.shape == (*placed.grid, crossbar.rows, crossbar.columns)
    assert tiles.dtype == torch.uint8
    assert torch.equal(joined(off_tiles(tiles, placed), crossbar.cell_bits), codes)
    block, slice_, output = len(placed.starts) - 1, placed.slices - 1, 2
    column = (output % placed.outputs * placed.slices + slice_) * 2 + 1
    cell = tiles[block, output // placed.outputs, 0, column]
    assert cell == levels[1, slice_, placed.starts[block], output]


@pytest.mark.parametrize("scheme", SCHEMES)
def test_ideal_converters_multiply_as_a_linear_map(scheme: str) -> None:
    crossbar = parse("rows=3,adc_bits=24")
    site = RAGGED
    ideal = array(site, scheme, crossbar, dac_scale=0.25)
    x = torch.randint(-127, 128, (2, 5, 7), generator=torch.Generator().manual_seed(2)) * 0.25
    exact = ideal(x)
    converted = Array(
        ideal.placed, crossbar, ideal.levels, ideal.scales, 0.25, 127.0, ideal.largest,
        adc_scales_of(ideal.largest, crossbar),
    )  # fmt: skip
    w = decode(encode(weight(site), ideal.placed.scheme, site), ideal.placed.scheme, site).double()
    want = x.double() @ w.mT
    bound = 8 * torch.finfo(torch.float32).eps * (x.double().abs() @ w.abs().mT)
    for got in (exact, converted(x)):
        assert got.shape == (2, 5, 3)
        assert ((got.double() - want).abs() <= bound).all()


def test_the_bound_catches_few_bits() -> None:
    crossbar = parse("rows=3,adc_bits=4")
    ideal = array(RAGGED, "int8", crossbar)
    x = torch.randint(-127, 128, (5, 7), generator=torch.Generator().manual_seed(2)).float()
    want = ideal(x)
    coarse = Array(
        ideal.placed, crossbar, ideal.levels, ideal.scales, 1.0, 127.0, ideal.largest,
        adc_scales_of(ideal.largest, crossbar),
    )  # fmt: skip
    assert (coarse(x) - want).abs().max() > 100 * torch.finfo(torch.float32).eps * want.abs().max()


def test_converters_round_and_clip_each_sum_alone() -> None:
    site = Site("w", Part.OUT_PROJ, Kind.WEIGHT, (1, 4), (Axis.OUT, Axis.IN))
    crossbar = parse("rows=2,cell_bits=2,adc_bits=3,dac_bits=4")
    placed = placed_on(site, "int4", crossbar)  # 3 bits of magnitude: slices of 2 and 1
    codes = torch.tensor([[7, -2, 5, 0]], dtype=torch.int32)
    levels, scales = sliced(codes, 2, 2), torch.full((2, 1), 0.5)
    made = array_of(levels, scales, placed, crossbar, (0.1, 7.0))
    adc_scales = torch.tensor([4.0, 1.0])
    made = Array(placed, crossbar, made.levels, scales, 0.1, 7.0, made.largest, adc_scales)
    x = torch.tensor([[0.32, 0.5, 9.0, 0.1]])
    # codes of x 3, 5, 7 (clipped), 1; levels + (3, 1), (0, 0) | (1, 1), (0, 0); - (0, 0), (2, 0)
    # block 0: + 9 -> 2 of 4 = 8, 3 -> 3; - 10 -> 2.5 of 4 -> 2 = 8, 0
    # block 1: + 7 -> 2 of 4 = 8, 7 -> clipped at 3; - 0, 0
    want = 0.1 * 0.5 * ((8 - 8) + 4 * 3 + 8 + 4 * 3)
    assert made(x).item() == pytest.approx(want)


# -- devices --------------------------------------------------------------------------------------


def draws(k: int) -> Tensor:
    return torch.randn(60, 50, generator=torch.Generator().manual_seed(k))


def test_gaussian_noise_is_a_share_of_the_highest_level_of_each_cell() -> None:
    levels = torch.full((2, 2, 50, 60), 2, dtype=torch.uint8)
    change = programmed(levels, Gaussian(0.05), 3, draws) - 2
    assert change.std().item() == pytest.approx(0.15, rel=0.02)
    flat = change.flatten(2).view(4, -1)
    assert torch.corrcoef(flat).fill_diagonal_(0).abs().max() < 0.1  # no two cells share a number
    assert programmed(torch.zeros_like(levels), Gaussian(0.05), 3, draws).min() == 0


@pytest.mark.parametrize("noise", [Pcm(), Pcm(on_off=20), Pcm(levels=4, on_off=20)])
def test_phase_change_cells_without_chance_are_their_levels(noise: Pcm) -> None:
    codes = torch.randint(-15, 16, (60, 50), generator=torch.Generator().manual_seed(3))
    levels = sliced(codes, 2, 2)
    found = programmed(levels, noise, 3, lambda k: torch.zeros(60, 50))
    assert torch.allclose(found, levels.float(), atol=1e-5)
    assert (programmed(levels, noise, 3, draws) - levels).std() > 0.01


def test_every_device_of_a_weight_has_numbers_of_its_own() -> None:
    asked: list[int] = []

    def normal(k: int) -> Tensor:
        asked.append(k)
        return torch.zeros(3, 4)

    levels = torch.ones(2, 3, 4, 3, dtype=torch.uint8)
    programmed(levels, Pcm(), 3, normal)
    assert len(set(asked)) == len(asked) == 2 * DRAWS * 3
