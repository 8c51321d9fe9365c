"""A crossbar: tiles of cells that multiply a vector by a matrix, and what of a plan they can hold.

    rows=256,columns=256,cell_bits=2,adc_bits=8,dac_bits=8        each may be left out
    …,adc_pj=2,dac_pj=0.1                                         energies, where one enters them

Inputs drive rows, outputs are read from columns. A matrix of b-bit integers is cut into blocks of
rows; a sign and a magnitude of b - 1 bits become pairs of cells, one of which is 0, in
ceil((b - 1) / cell_bits) slices. An output takes 2 · slices columns that lie next to each other. No
two matrices share a tile, and a block of rows lies inside one group of a scale.

256 × 256 cells with 8-bit converters are the cores of Le Gallo et al. 2023 (Nature Electronics
6:680); cells of 2 bits, and slices, are those of Shafiee et al. 2016 (ISAAC, ISCA); pairs with a
magnitude each of Xiao et al. 2022 (IEEE Circuits and Systems Magazine 22:26, arXiv 2109.01262).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields
from math import ceil, inf
from typing import Any, TypeAlias

from sensprobe.errors import UsageError
from sensprobe.plans.formats import Int
from sensprobe.plans.scheme import Scheme
from sensprobe.plans.sites import Axis, Kind, Part, Site

NAME = "crossbar"
"""The target of exports."""
LIMITS = {
    "rows": (1, 1 << 16),
    "columns": (2, 1 << 16),
    "cell_bits": (1, 8),
    "adc_bits": (2, 24),
    "dac_bits": (2, 16),
}
MOST = 1 << 24
"""Cells of a tile, at most: an export writes a byte for each, used or not."""
KEYS = "rows=N, columns=N, cell_bits=N, adc_bits=N, dac_bits=N, adc_pj=ENERGY, dac_pj=ENERGY"
Products: TypeAlias = Iterable[tuple[str, str | None, int]]
"""(weight, what it multiplies, multiplications a step), as a family lists them."""


@dataclass(frozen=True, slots=True)
class Crossbar:
    """The sizes of a tile, the bits of a cell and of converters (those of the sign with them), and
    energies a conversion in picojoules, None where none was entered."""

    rows: int = 256
    columns: int = 256
    cell_bits: int = 2
    adc_bits: int = 8
    dac_bits: int = 8
    adc_pj: float | None = None
    dac_pj: float | None = None

    def __post_init__(self) -> None:
        for name, (low, high) in LIMITS.items():
            if not low <= getattr(self, name) <= high:
                raise UsageError(
                    f"{name}={getattr(self, name)}: a crossbar has from {low:,} to {high:,}."
                )
        if self.rows * self.columns > MOST:
            raise UsageError(
                f"rows={self.rows},columns={self.columns}: a tile has at most {MOST:,} cells."
            )
        for name in ("adc_pj", "dac_pj"):
            if not 0 <= (getattr(self, name) or 0) < inf:
                raise UsageError(f"{name}={getattr(self, name)}: an energy is 0 or more, in pJ.")

    @property
    def top(self) -> int:
        """The highest level of a cell; the lowest is 0."""
        return 2**self.cell_bits - 1

    @property
    def dac(self) -> Int:
        """The codes of inputs."""
        return Int(self.dac_bits)

    @property
    def adc(self) -> Int:
        """The codes of what a column gives."""
        return Int(self.adc_bits)

    def __str__(self) -> str:
        return ",".join(f"{name}={getattr(self, name)}" for name in LIMITS)


def parse(text: str) -> Crossbar:
    """The crossbar that a text describes; UsageError says what is wrong with it."""
    kinds = {field.name: int if field.name in LIMITS else float for field in fields(Crossbar)}
    given: dict[str, int | float] = {}
    for one in filter(None, text.split(",")):
        name, _, value = one.partition("=")
        try:
            number = kinds[name](value)
        except (KeyError, ValueError):
            raise UsageError(f"the crossbar's {one[:40]!r} is none of {KEYS}.") from None
        if name in given:
            raise UsageError(f"the crossbar {text[:80]!r} says {name} twice.")
        given[name] = number
    return Crossbar(**given)  # type: ignore[arg-type]


@dataclass(frozen=True, slots=True)
class Placed:
    """A matrix on tiles. `group` is how many inputs share a scale, `rows` the most of a block, and
    `outputs` the most of a tile; `reads` are the sites whose values drive the rows."""

    site: Site
    scheme: Scheme
    reads: tuple[str, ...]
    slices: int
    group: int
    rows: int
    outputs: int

    @property
    def starts(self) -> list[int]:
        """The first input of every block of rows."""
        inputs = self.site.shape[1]
        groups = range(0, inputs, self.group)
        return [i for g in groups for i in range(g, min(g + self.group, inputs), self.rows)]

    @property
    def sizes(self) -> list[int]:
        """The number of inputs of every block of rows."""
        ends = [*self.starts[1:], self.site.shape[1]]
        return [end - start for start, end in zip(self.starts, ends, strict=True)]

    @property
    def grid(self) -> tuple[int, int]:
        """Tiles: blocks of rows, and of outputs."""
        return len(self.starts), ceil(self.site.shape[0] / self.outputs)

    @property
    def tiles(self) -> int:
        return self.grid[0] * self.grid[1]

    @property
    def cells(self) -> int:
        """Cells that hold a part of a weight."""
        return self.site.reals * self.slices * 2

    @property
    def adc_conversions(self) -> int:
        """Columns that are read at a step: every polarity of every slice in every block of rows."""
        return self.grid[0] * self.site.shape[0] * self.slices * 2

    @property
    def dac_conversions(self) -> int:
        """Rows that are driven at a step: every input once a block of outputs."""
        return self.site.shape[1] * self.grid[1]


@dataclass(frozen=True, slots=True)
class Placement:
    """What of a model lies on a crossbar under a plan, and why its other weights do not."""

    crossbar: Crossbar
    placed: Mapping[str, Placed]
    digital: Mapping[str, str]

    def require_some(self) -> None:
        """UsageError where no matrix is on the crossbar."""
        if self.placed:
            return
        reasons = [f"{name}: {why}" for name, why in self.digital.items() if why != NO_MATRIX]
        raise UsageError(
            f"the plan puts no matrix on the crossbar ({'; '.join(reasons[:4])}"
            f"{'; …' if reasons[4:] else ''}). Put matrices in integers, as in "
            "--set '*.out_proj=int6/channel'; `sensprobe sites MODEL` lists them."
        )


NO_MATRIX = "no matrix that multiplies a vector"


def why_not(site: Site, scheme: Scheme | None, reads: tuple[str, ...]) -> str | None:
    """Why a weight is not on a crossbar; None if it is."""
    if len(site.shape) != 2 or site.axes[0] is not Axis.OUT or site.is_complex:
        return NO_MATRIX
    if site.part is Part.EMBEDDING or not reads:
        return "a table that is read by row"
    if scheme is None:
        return "the plan leaves it in full precision"
    if not isinstance(scheme.format, Int):
        return f"{scheme.format} is no grid of integers"
    if scheme.asym:
        return "asym: a pair of cells has no zero point"
    return "hadamard: its codes are of a rotated matrix" if scheme.hadamard else None


def place(
    plan: Mapping[str, Scheme], sites: Mapping[str, Site], products: Products, crossbar: Crossbar
) -> Placement:
    """A resolved plan on a crossbar; UsageError where an output takes more columns than a tile
    has."""
    reads: dict[str, tuple[str, ...]] = {}
    for weight, operand, _ in products:
        if operand is not None:
            reads[weight] = (*reads.get(weight, ()), operand)
    placed, digital = {}, {}
    for name, site in sites.items():
        if site.kind is not Kind.WEIGHT:
            continue
        scheme, operands = plan.get(name), reads.get(name, ())
        if (reason := why_not(site, scheme, operands)) is not None:
            digital[name] = reason
        else:
            assert scheme is not None
            placed[name] = _placed(site, scheme, operands, crossbar)
    return Placement(crossbar, placed, digital)


def _placed(site: Site, scheme: Scheme, reads: tuple[str, ...], crossbar: Crossbar) -> Placed:
    slices = ceil((scheme.format.bits - 1) / crossbar.cell_bits)
    if (outputs := crossbar.columns // (2 * slices)) == 0:
        raise UsageError(
            f"{site.name} in {scheme} takes {2 * slices} columns an output (2 cells for each of "
            f"{slices} slice(s) of {crossbar.cell_bits} bit(s)), and a tile has "
            f"{crossbar.columns}: give columns={2 * slices} or more, or more bits a cell."
        )
    inputs = site.shape[1]
    group = min(scheme.group or inputs, inputs)
    return Placed(site, scheme, reads, slices, group, min(crossbar.rows, group), outputs)


def counted(placement: Placement, sites: Mapping[str, Site], products: Products) -> dict[str, Any]:
    """What a placement takes, as JSON values: `energy_pj` is None where no energy was entered."""
    crossbar, placed = placement.crossbar, placement.placed.values()
    tiles, cells = sum(p.tiles for p in placed), sum(p.cells for p in placed)
    adc, dac = sum(p.adc_conversions for p in placed), sum(p.dac_conversions for p in placed)
    each = [(adc, crossbar.adc_pj), (dac, crossbar.dac_pj)]
    known = [count * energy for count, energy in each if energy is not None]
    states = [site.reals for site in sites.values() if site.kind is Kind.STATE]
    work = [(name in placement.placed, count) for name, _, count in products]
    return {
        "tiles": tiles,
        "cells": cells,
        "utilisation": cells / (tiles * crossbar.rows * crossbar.columns),
        "adc_conversions": adc,
        "dac_conversions": dac,
        "energy_pj": sum(known) if known else None,
        "matrices": len(placed),
        "weights": sum(p.site.reals for p in placed),
        "digital_weights": sum(sites[name].reals for name in placement.digital),
        "digital_states": sum(states),
        "multiplications": sum(count for _, count in work),
        "digital_multiplications": sum(count for on, count in work if not on),
    }
