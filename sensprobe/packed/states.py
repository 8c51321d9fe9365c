"""States as rows of a program's table, and their bytes before the first step."""

from __future__ import annotations

from math import ceil, prod
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from sensprobe_kernels.packing.layout import pack
from sensprobe_kernels.program.ir import State
from sensprobe_kernels.program.program import Program
from sensprobe_kernels.quantize.spec import GROUP
from sensprobe_kernels.simd.vector import LANES

from sensprobe.errors import UnsupportedError
from sensprobe.numerics.rounding import spread
from sensprobe.numerics.storage import Rounded
from sensprobe.numerics.taps import StaticScale
from sensprobe.ops.specs import spec_of, spec_of_rows
from sensprobe.packed.describe import LARGEST_CODE, PLAIN, codes, exact, misfit, refuse, stored
from sensprobe.packed.weights import PackedWeights
from sensprobe.plans.formats import Float, LogPolar, Polar
from sensprobe.plans.scheme import (
    EXACT,
    RESIDUAL_BYTES,
    SCALE_BYTES,
    ZERO_BYTES,
    Rounding,
    Scheme,
    scale_count,
    scale_shape,
)
from sensprobe.plans.sites import Part, Site


class NewState(NamedTuple):
    """The number of a state in a program, and its bytes before the first step."""

    row: int
    fresh: NDArray[np.uint8]


class _Layout(NamedTuple):
    """How a state's numbers are coded, where its fields begin, and its bytes before the first
    step."""

    bits: int
    kind: int
    shift: int
    factor: int
    scale_at: int
    zero_at: int
    residual_at: int
    fresh: NDArray[np.uint8]


def state(
    program: Program,
    site: Site,
    scheme: Scheme | None,
    static: StaticScale | None,
    weights: PackedWeights,
    at: int,
    *,
    heads: int = 1,
    groups: int = 1,
    every: int = 1,
) -> NewState:
    """Add a real state that begins at byte `at` of a sequence's states.

    Rows are those of its last axis, the same number for each of `heads`; `groups` of heads share B
    and C. The operation rounds the state after `every` steps.
    """
    rows, n = prod(site.shape[:-1]), site.shape[-1]
    own = rows // heads
    if own % LANES:
        raise misfit(site, f"it has {own} rows, and streaming kernels take sixteen together")
    _require(site, scheme, every)
    store, unit, run = exact(program), 1, 0
    if scheme is not None:
        run = _group(site, scheme)
        store, unit = _store(program, site, scheme, static, weights, own, run)
    x = _layout(site, scheme, static, at)
    row = State(
        store, at, x.bits, x.kind, x.shift, x.factor, rows, n, unit, heads, own, groups, x.scale_at,
        x.zero_at, x.residual_at, run,
    )  # fmt: skip
    return NewState(program.state(row, site.name), x.fresh)


def complex_state(
    program: Program,
    site: Site,
    scheme: Scheme | None,
    static: StaticScale | None,
    weights: PackedWeights,
    at: int,
) -> NewState:
    """Add a complex state (heads, n) that begins at byte `at` of a sequence's states."""
    heads, n = site.shape
    run, parts, store = 2 * heads * n, 1, exact(program)
    _require(site, scheme)
    if scheme is not None:
        spec = spec_of(Rounded(scheme, site, *(static or (None, None))))
        assert spec is not None
        if scheme.scaled:
            run, parts = _runs(site, scheme)
        if scheme.scaled and scheme.dynamic:
            store = stored(program, spec._replace(span=GROUP, group=run), site)
        else:
            place = (scheme, weights) if scheme.scaled else None
            store = stored(program, spec, site, place)
    x = _layout(site, scheme, static, at)
    row = State(
        store, at, x.bits, x.kind, x.shift, x.factor, 2 * heads, n, 1, heads, 1, 1, x.scale_at,
        x.zero_at, x.residual_at, run, parts,
    )  # fmt: skip
    return NewState(program.state(row, site.name), x.fresh)


def inside(
    program: Program, site: Site, scheme: Scheme, static: StaticScale | None, weights: PackedWeights
) -> int:
    """The store of an activation that an operation computes and rounds inside itself, in rows of
    its last axis."""
    if scheme.rounding is Rounding.FEEDBACK or scheme.every != 1:
        raise refuse(site, scheme, "rounds so")
    return _store(program, site, scheme, static, weights, prod(site.shape[:-1]))[0]


def kept_in_full(site: Site, scheme: Scheme) -> UnsupportedError:
    """The error of a step under a plan that stores the state after some steps only."""
    return refuse(site, scheme, f"keeps a state in full for {scheme.every} steps")


def _require(site: Site, scheme: Scheme | None, every: int = 1) -> None:
    if scheme is None:
        return
    if scheme.every != every:
        raise kept_in_full(site, scheme)
    if isinstance(scheme.format, Polar | LogPolar):
        raise refuse(site, scheme, "keeps magnitude and phase")
    if scheme.scaled and scheme.format.bits > LARGEST_CODE:
        raise refuse(site, scheme, f"packs states in more than {LARGEST_CODE} bits")


def _runs(site: Site, scheme: Scheme) -> tuple[int, int]:
    """How many numbers of a complex state share a scale, and how many parts have their own."""
    heads, n = site.shape
    *over, along, parts = scale_shape(scheme, site) if scheme.granularity != "decoupled" else (0, 0)
    if prod(over) not in (1, heads):
        raise refuse(site, scheme, "keeps a complex state so")
    if along > 1:
        if n % scheme.group:
            raise refuse(site, scheme, "keeps groups of a complex state that n does not fill")
        return 2 * scheme.group, parts
    return 2 * n * heads // prod(over), parts


def _group(site: Site, scheme: Scheme) -> int:
    """How many neighbours share a scale where a row of a recurrence's state has several; else 0."""
    n, grouped = site.shape[-1], scheme.scaled and scheme.granularity == "group"
    if site.part is not Part.STATE or not grouped or scheme.group >= n:
        return 0
    if n % scheme.group:
        raise refuse(site, scheme, "keeps groups of a state that n does not fill")
    return scheme.group


def _store(
    program: Program, site: Site, scheme: Scheme, static: StaticScale | None,
    weights: PackedWeights, own: int, run: int = 0,
) -> tuple[int, int]:  # fmt: skip
    """The store of a real state, and how many tiles share a dynamic scale. `run`: numbers that
    share one where rows have several."""
    spec = spec_of_rows(Rounded(scheme, site, *(static or (None, None))))
    if spec is None:
        raise refuse(site, scheme, "keeps a state so")
    if not scheme.scaled:
        return stored(program, spec, site), 1
    rows, n = prod(site.shape[:-1]), site.shape[-1]
    if scheme.dynamic:
        if spec.span == GROUP and spec.group < n and not run:
            raise refuse(site, scheme, "has several dynamic scales in a row of a state")
        unit = 1 if spec.span == GROUP else (own if spec.by_head else rows) // LANES
        return stored(program, spec._replace(group=run or n), site), unit
    *over, along = scale_shape(scheme, site) if scheme.granularity != "decoupled" else (0, 0)
    shared = rows // max(prod(over), 1)
    if along != (n // run if run else 1) or not (
        prod(over) == 1 or shared == 1 or shared % LANES == 0
    ):
        raise refuse(site, scheme, "reads such static scales of a state")
    stride = 0 if prod(over) == 1 else shared
    return stored(program, spec, site, (scheme, weights), stride), 1


def _layout(site: Site, scheme: Scheme | None, static: StaticScale | None, at: int) -> _Layout:
    """Codes, dynamic scales, their zero points and residuals, in this order from byte `at` on."""
    scheme = scheme or EXACT
    count, bits = site.reals, scheme.format.bits
    if scheme.scaled:
        kind, shift, factor = codes(scheme.format, scheme.asym)
    else:
        assert isinstance(scheme.format, Float)
        kind, shift, factor = PLAIN[scheme.format], 0, 0
    packed = ceil(count * bits / 8)
    dynamic = scale_count(scheme, site) if scheme.scaled and scheme.dynamic else 0
    scale_at, end = at + packed, at + packed + dynamic * SCALE_BYTES[scheme.scales]
    zero_at = residual_at = -1
    if dynamic and scheme.asym:
        zero_at, end = end, end + dynamic * ZERO_BYTES[scheme.scales]
    if scheme.rounding is Rounding.FEEDBACK:
        residual_at, end = end, end + RESIDUAL_BYTES * count
    fresh = np.zeros(end - at, np.uint8)
    if static is not None and static[1] is not None:
        fresh[:packed] = pack(_codes_of_zeros(site, scheme, static[1]), bits)
    return _Layout(bits, kind, shift, factor, scale_at, zero_at, residual_at, fresh)


def _codes_of_zeros(site: Site, scheme: Scheme, zero: torch.Tensor) -> NDArray[np.int64]:
    """The codes of zeros under calibrated zero points."""
    shape = (*site.shape, 2) if site.is_complex else site.shape
    points = spread(zero, scheme, site).expand(shape)
    if points.min() < 0 or points.max() >= 2**scheme.format.bits:
        raise refuse(site, scheme, "starts at 0, which its range leaves out")
    return points.to(torch.int64).numpy()
