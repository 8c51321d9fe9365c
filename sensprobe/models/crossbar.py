"""A plan's matrices on a crossbar: the ranges of its converters, and the tap that runs on it.

A DAC takes the codes of an input that the plan rounds to a static, symmetric scale of the whole
tensor in no more bits than it has. Any other input it rounds as the scheme `int{dac_bits}` does,
whose range is the largest magnitude at full precision on the calibration split. An ADC's range is
the largest sum that its slice of its matrix gives on that split, with exact ADCs and exact levels:
one range for every column, block of rows and polarity (calibrated ranges by slice, as in Xiao et
al. 2022, IEEE Circuits and Systems Magazine 22:26, arXiv 2109.01262).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TypeVar

import torch
from torch import Tensor

from sensprobe import ops
from sensprobe.errors import UnsupportedError, UsageError
from sensprobe.models import together
from sensprobe.models.apply import CALIBRATION_BATCH, Applier, static_scale
from sensprobe.numerics.crossbar import (
    Array,
    adc_scales_of,
    array_of,
    block_scales,
    in_blocks,
    programmed,
    sliced,
)
from sensprobe.numerics.noise import NoiseTap, key_of_draw
from sensprobe.numerics.philox import grid_of
from sensprobe.numerics.taps import RoundingTap
from sensprobe.plans.crossbar import Placed, Placement, place
from sensprobe.plans.formats import Int
from sensprobe.plans.noise import Draw, Pcm
from sensprobe.plans.plan import fingerprint
from sensprobe.plans.scheme import Scheme

Plan = Mapping[str, Scheme]
SomeTap = TypeVar("SomeTap", RoundingTap, NoiseTap)


def placement_of(applier: Applier, plan: Plan) -> Placement:
    """Where a resolved plan's matrices lie on the applier's crossbar."""
    assert applier.crossbar is not None
    return place(plan, applier.model.sites, applier.model.products, applier.crossbar)


def mapped(applier: Applier, plan: Plan) -> Mapping[str, Placed]:
    """The matrices of a resolved plan on the applier's crossbar; none without one."""
    if applier.crossbar is None or not plan:
        return {}
    return placement_of(applier, plan).placed


def needs_ranges(applier: Applier, plan: Plan) -> bool:
    """True if converters' ranges of a resolved plan are not found yet."""
    return bool(mapped(applier, plan)) and fingerprint(plan) not in applier.arrays


def levels_of(applier: Applier, placed: Placed) -> Tensor:
    """The levels (2, slices, inputs, outputs) of a matrix under its scheme."""
    codes = applier.encoded(placed.site, placed.scheme)[""].codes
    assert applier.crossbar is not None
    return sliced(codes, placed.slices, applier.crossbar.cell_bits)


def find_ranges(applier: Applier, plan: Plan, x: Tensor) -> None:
    """Find the ranges of the converters for a resolved plan on sequences x (n, l, c), or tokens.

    The applier has statistics of the activations and states. Raises UnsupportedError for a family
    whose forward pass does not ask its tap to multiply by one of the matrices.
    """
    model = applier.model
    arrays = {name: _array(applier, plan, placed) for name, placed in mapped(applier, plan).items()}
    tap, first = replace(applier.tap(plan), products=arrays), 0
    with torch.inference_mode():
        for batch in x.split(together(model, x.shape[1], CALIBRATION_BATCH)):
            model(batch, tap.at(first))
            first += len(batch)
    if idle := [name for name, array in arrays.items() if (array.largest < 0).any()]:
        raise UnsupportedError(
            f"models of the family {model.family} do not multiply by {idle[0]} through "
            "`At.linear`, so it cannot be simulated on a crossbar."
        )
    applier.arrays[fingerprint(plan)] = {
        name: replace(array, adc_scales=adc_scales_of(array.largest, array.crossbar))
        for name, array in arrays.items()
    }


def _array(applier: Applier, plan: Plan, placed: Placed) -> Array:
    """A matrix with exact ADCs."""
    assert applier.crossbar is not None
    stored = applier.encoded(placed.site, placed.scheme)[""]
    scales, dac = block_scales(stored, placed), _dac(applier, plan, placed)
    return array_of(levels_of(applier, placed), scales, placed, applier.crossbar, dac)


def _dac(applier: Applier, plan: Plan, placed: Placed) -> tuple[float, float]:
    """The scale of a matrix's DACs, and their largest code."""
    assert applier.crossbar is not None
    sites, own = applier.model.sites, Scheme(applier.crossbar.dac)
    asked = [plan.get(name) for name in placed.reads]
    first = asked[0]
    if len(asked) == 1 and first is not None and _gives_codes(first, own.format.bits):
        own = first
    scales = [static_scale(sites[name], own, applier.statistics) for name in placed.reads]
    assert isinstance(own.format, Int)
    return max(float(scale[0].max()) for scale in scales if scale is not None), own.format.peak


def _gives_codes(scheme: Scheme, bits: int) -> bool:
    """True if a DAC of so many bits takes the codes of a scheme as they are."""
    plain = scheme.granularity == "tensor" and not (scheme.parts or scheme.hadamard or scheme.asym)
    fixed = not scheme.dynamic and scheme.every == 1
    return isinstance(scheme.format, Int) and scheme.format.bits <= bits and plain and fixed


def mounted(tap: SomeTap, applier: Applier, plan: Plan, draw: Draw | None = None) -> SomeTap:
    """A tap of a resolved plan that multiplies on the applier's crossbar, where it has one; under a
    draw of noise by conductances that have it. The plan's ranges are found."""
    if not mapped(applier, plan):
        return tap
    arrays = applier.arrays[fingerprint(plan)]
    if isinstance(tap, NoiseTap):
        assert draw is not None
        assert isinstance(tap.inner, RoundingTap)
        noisy = {name: _noisy(applier, array, draw) for name, array in arrays.items()}
        return replace(tap, inner=replace(tap.inner, products=noisy))
    return replace(tap, products=arrays)


def _noisy(applier: Applier, array: Array, draw: Draw) -> Array:
    """A matrix as the devices of a draw hold it."""
    site, top = array.placed.site, array.crossbar.top
    if (noise := draw.noises.get(site.name)) is None:
        return array
    if isinstance(noise, Pcm) and noise.levels not in (0, top + 1):
        raise UsageError(
            f"{site.name}={noise}: cells of {array.crossbar.cell_bits} bits have {top + 1} levels. "
            "Leave out levels, or change cell_bits."
        )

    def normal(k: int) -> Tensor:
        return ops.normals(grid_of(site.shape), key_of_draw(draw, site.name, k), False).view(
            site.shape
        )

    levels = programmed(levels_of(applier, array.placed), noise, top, normal)
    return replace(array, levels=in_blocks(levels, array.placed))
