"""Crossbars as text, and what of a plan lies on one."""

from __future__ import annotations

import re
from math import ceil

import pytest
from builders import PROJECTION, RAGGED, SITES, SKIP

from sensprobe.errors import UsageError
from sensprobe.plans.crossbar import Crossbar, counted, parse, place
from sensprobe.plans.scheme import parse as scheme_of

SITES_BY_NAME = {site.name: site for site in SITES}
PRODUCTS = [(PROJECTION.name, "layers.0.x", 40), (SKIP.name, "layers.0.x", 4)]
PROJECTED = PROJECTION.name


def test_a_text_reads_back_what_it_prints() -> None:
    crossbar = parse("columns=64,cell_bits=4,adc_pj=2.5")
    assert crossbar == Crossbar(columns=64, cell_bits=4, adc_pj=2.5)
    assert parse(str(crossbar)) == Crossbar(columns=64, cell_bits=4)
    assert parse("") == Crossbar()


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("rows=0", "rows=0: a crossbar has from 1 to 65,536"),
        ("columns=1", "from 2"),
        ("cell_bits=9", "cell_bits=9: a crossbar has from 1 to 8"),
        ("adc_bits=1", "adc_bits=1"),
        ("dac_bits=17", "from 2 to 16"),
        ("adc_pj=-1", "an energy is 0 or more"),
        ("adc_pj=nan", "an energy is 0 or more"),
        ("rows=2.5", "'rows=2.5' is none of rows=N, columns=N"),
        ("lines=3", "'lines=3' is none of rows=N"),
        ("rows", "'rows' is none of"),
        ("rows=3,rows=4", "says rows twice"),
    ],
)
def test_what_no_crossbar_is(text: str, said: str) -> None:
    with pytest.raises(UsageError, match=re.escape(said)):
        parse(text)


@pytest.mark.parametrize(
    ("scheme", "said"),
    [
        (None, "full precision"),
        ("fp16", "fp16 is no grid of integers"),
        ("e4m3/channel", "e4m3 is no grid of integers"),
        ("log4", "log4 is no grid of integers"),
        ("int8/asym", "asym: a pair of cells has no zero point"),
        ("int8/hadamard", "hadamard: its codes are of a rotated matrix"),
    ],
)
def test_what_stays_digital_and_why(scheme: str | None, said: str) -> None:
    plan = {} if scheme is None else {PROJECTED: scheme_of(scheme)}
    found = place(plan, SITES_BY_NAME, PRODUCTS, Crossbar())
    assert said in found.digital[PROJECTED]
    assert found.digital[SKIP.name] == "no matrix that multiplies a vector"
    with pytest.raises(UsageError, match=re.escape(said)):
        found.require_some()


@pytest.mark.parametrize("bits", range(2, 17))
@pytest.mark.parametrize("cell_bits", [1, 2, 3, 8])
def test_slices_hold_the_magnitude(bits: int, cell_bits: int) -> None:
    plan = {PROJECTED: scheme_of(f"int{bits}")}
    placed = place(plan, SITES_BY_NAME, PRODUCTS, Crossbar(cell_bits=cell_bits)).placed[PROJECTED]
    assert placed.slices == ceil((bits - 1) / cell_bits)
    assert placed.reads == ("layers.0.x",)


@pytest.mark.parametrize(
    ("scheme", "starts"),
    [
        ("int3/channel", [0, 3, 6]),
        ("int3/group2", [0, 2, 4, 6]),
        ("int3/group4", [0, 3, 4]),
        ("int3/group9", [0, 3, 6]),
    ],
)
def test_a_block_of_rows_lies_in_one_group(scheme: str, starts: list[int]) -> None:
    plan, products = {"w": scheme_of(scheme)}, [("w", "x", 21)]
    found = place(plan, {"w": RAGGED}, products, Crossbar(rows=3, columns=8))
    placed = found.placed["w"]
    assert placed.starts == starts
    assert sum(placed.sizes) == 7
    assert placed.outputs == 4
    assert placed.grid == (len(starts), 1)


def test_tiles_and_conversions_are_counted() -> None:
    crossbar = parse("rows=4,columns=9,cell_bits=3,adc_pj=2,dac_pj=0.5")
    found = place({PROJECTED: scheme_of("int8")}, SITES_BY_NAME, PRODUCTS, crossbar)
    counts = counted(found, SITES_BY_NAME, PRODUCTS)
    # 8 outputs of 5 inputs, 7 bits in 3 slices: 6 columns an output, one output a tile of 9
    assert counts["tiles"] == 2 * 8
    assert counts["cells"] == 40 * 6
    assert counts["utilisation"] == 240 / (16 * 36)
    assert counts["adc_conversions"] == 2 * 8 * 6
    assert counts["dac_conversions"] == 5 * 8
    assert counts["energy_pj"] == 2 * 96 + 0.5 * 40
    assert counts["multiplications"] == 44
    assert counts["digital_multiplications"] == 4
    weights = sum(s.reals for s in SITES if s.kind == "weight")
    assert counts["weights"] + counts["digital_weights"] == weights
    plain = place({PROJECTED: scheme_of("int8")}, SITES_BY_NAME, PRODUCTS, Crossbar())
    assert counted(plain, SITES_BY_NAME, PRODUCTS)["energy_pj"] is None


def test_an_output_must_fit_a_tile() -> None:
    with pytest.raises(UsageError, match=r"takes 8 columns an output .* give columns=8 or more"):
        place({PROJECTED: scheme_of("int8")}, SITES_BY_NAME, PRODUCTS, Crossbar(columns=7))
