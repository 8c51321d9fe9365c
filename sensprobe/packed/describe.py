"""Weights and activations as rows of a program's tables, or the error that says why not."""

from __future__ import annotations

from math import prod

from sensprobe_kernels.packing.integers import BITS
from sensprobe_kernels.packing.tensor import (
    BFLOAT,
    HALF,
    LOG_POLAR,
    OFFSET,
    POLAR,
    SIGNED,
    SINGLE,
    SMALL,
    Packed,
)
from sensprobe_kernels.program.ir import NONE, Stored
from sensprobe_kernels.program.program import Program
from sensprobe_kernels.quantize.spec import GROUP, SCALES, STATIC, STATIC_EACH, Spec
from torch import Tensor

from sensprobe.errors import UnsupportedError
from sensprobe.numerics.storage import Rounded
from sensprobe.numerics.taps import StaticScale
from sensprobe.ops.specs import neighbours, spec_of
from sensprobe.packed.advice import advice
from sensprobe.packed.weights import PackedWeights
from sensprobe.plans.formats import BF16, FP16, FP32, Float, Format, Int, Log, LogPolar, Polar
from sensprobe.plans.scheme import (
    EXACT,
    Rounding,
    Scheme,
    scale_shape,
)
from sensprobe.plans.sites import Site

PLAIN = {FP32: SINGLE, FP16: HALF, BF16: BFLOAT}
LARGEST_CODE = 8
"""Bits of the widest codes a state may have, and of those that weights are read in sixteens."""

FEWEST_CODES = 8
"""That share a scale, where a recurrence reads codes of a byte in place of numbers of four."""


def refuse(site: Site, scheme: Scheme, why: str) -> UnsupportedError:
    """The error that names a site and its scheme, says why no kernel runs it, which schemes kernels
    take, and how to search for them."""
    return UnsupportedError(f"{site.name} in {scheme}: no streaming kernel {why} ({advice(site)})")


def misfit(site: Site, why: str) -> UnsupportedError:
    """The error of a site that kernels run in no scheme."""
    return UnsupportedError(f"{site.name}: {why}, whatever the scheme")


def packed(site: Site, weights: PackedWeights) -> Packed:
    """A weight as rows of columns. One axis is one row unless its numbers differ in scale.

    `base`, `power` and `signs` of a weight that is stored rotated are yet to be filled in.
    """
    scheme = weights.plan.get(site.name, EXACT)
    if scheme.granularity == "decoupled":
        raise refuse(site, scheme, "multiplies two scales of a weight")
    rows, columns = prod(site.shape[:-1]), site.shape[-1] * (2 if site.is_complex else 1)
    if not scheme.scaled:
        place = weights.places[site.name]
        kind, bits = PLAIN[scheme.format], scheme.format.bits  # type: ignore[index]
        return Packed(place, bits, kind, rows, columns, -1, 0, -1, 0, columns, 0, 0, 1)
    shape, in_two = scale_shape(scheme, site), isinstance(scheme.format, Polar | LogPolar)
    with_parts = site.is_complex and not in_two
    parts = shape[-1] if with_parts else 1
    *over, along = shape[:-1] if with_parts else shape
    stride, group = _scaled(site, scheme, tuple(over), along)
    if site.is_complex:
        stride, group = stride * parts, 2 * group
    if in_two:
        return _polar(site, scheme, weights, stride, group)
    bits = scheme.format.bits
    whole = bits <= LARGEST_CODE and (rows == 1 or columns * bits % 8 == 0)
    kind, shift, factor = codes(scheme.format, scheme.asym)
    return Packed(
        weights.places[f"{site.name}.codes"], bits, kind, rows, columns,
        weights.places[f"{site.name}.scale"], SCALES.index(scheme.scales),
        weights.places[f"{site.name}.zero"] if scheme.asym else -1,
        stride, group, shift, factor, int(whole and (group >= columns or group % 8 == 0)), parts,
    )  # fmt: skip


def _polar(site: Site, scheme: Scheme, weights: PackedWeights, stride: int, group: int) -> Packed:
    """A complex weight in two fields, each with a scale (and most with a low end) a run."""
    assert isinstance(scheme.format, Polar | LogPolar)
    kind = LOG_POLAR if isinstance(scheme.format, LogPolar) else POLAR
    at = {
        field: weights.places[f"{site.name}.{field}"]
        for field in (
            "magnitude.codes",
            "magnitude.scale",
            "phase.codes",
            "phase.scale",
            "phase.low",
        )
    }
    low = weights.places[f"{site.name}.magnitude.low"] if kind == LOG_POLAR else NONE
    return Packed(
        at["magnitude.codes"], scheme.format.magnitude_bits, kind, prod(site.shape[:-1]),
        2 * site.shape[-1], at["magnitude.scale"], SCALES.index(scheme.scales), low, stride, group,
        0, 0, 0, phase_at=at["phase.codes"], phase_bits=scheme.format.phase_bits,
        phase_scale_at=at["phase.scale"], phase_zero_at=at["phase.low"],
    )  # fmt: skip


def _scaled(site: Site, scheme: Scheme, over: tuple[int, ...], along: int) -> tuple[int, int]:
    """(how many scales lie from one row to the next, how many columns share a scale)."""
    columns, each = site.shape[-1], over == site.shape[:-1]
    one = prod(over) == 1
    if not (each or one):
        raise refuse(site, scheme, "reads scales that some rows share")
    if along == 1:
        return (0 if one and prod(site.shape[:-1]) > 1 else 1), columns
    if along == columns:
        return (columns if each and not one else 0), 1
    return along, scheme.group


def codes(format: Format, asym: bool) -> tuple[int, int, int]:
    """kind, shift and factor of `Packed`."""
    if isinstance(format, Int):
        return (OFFSET if asym else SIGNED), 0, 0
    assert isinstance(format, Float | Log)
    mantissa, floor = (
        (format.mantissa, format.floor) if isinstance(format, Float) else (0, 1 - format.powers)
    )
    return SMALL, 23 - mantissa, floor + 126


# -- activations ----------------------------------------------------------------------------------


def passing(
    program: Program, site: Site, scheme: Scheme, static: StaticScale | None, weights: PackedWeights
) -> int:
    """Add the store of an activation; its number."""
    if scheme.rounding is Rounding.STOCHASTIC:
        raise refuse(site, scheme, "rounds an activation at random")
    spec = spec_of(Rounded(scheme, site, *(static or (None, None))))
    if spec is None:
        raise refuse(site, scheme, "rounds so")
    if not scheme.scaled:
        return stored(program, spec, site)
    shape = scale_shape(scheme, site)
    run = neighbours(shape, scheme, site)
    if run is None:
        raise refuse(site, scheme, "rounds numbers that are no neighbours by one scale")
    if scheme.dynamic:
        return stored(program, spec._replace(span=GROUP, group=run), site)
    one = prod(shape) == 1
    return stored(
        program, spec._replace(span=STATIC if one else STATIC_EACH), site, (scheme, weights),
        stride=0 if one else run,
    )  # fmt: skip


# -- integer products -----------------------------------------------------------------------------


def coded(site: Site, scheme: Scheme) -> int:
    """How many neighbours of an activation share a scale if products may take its codes, else 0.

    They take symmetric integers of up to eight bits with one scale for all, or dynamic ones.
    """
    if not isinstance(scheme.format, Int) or scheme.asym or scheme.format.bits > LARGEST_CODE:
        return 0
    shape = scale_shape(scheme, site)
    if prod(shape) == 1:
        return prod(site.shape)
    return (neighbours(shape, scheme, site) or 0) if scheme.dynamic else 0


def scanned(site: Site, scheme: Scheme) -> int:
    """`coded` for recurrences, which take codes only where they are not rotated and at least
    FEWEST_CODES share a scale."""
    run = 0 if scheme.hadamard else coded(site, scheme)
    return run if run >= min(FEWEST_CODES, prod(site.shape)) else 0


def multiplies(t: Packed, zeros: Tensor | None, peak: int, run: int) -> bool:
    """Whether a weight can be multiplied by codes up to `peak`, of which `run` share a scale.

    Its own codes must be integers that begin at whole bytes, and sums must fit int32. `zeros` are
    the weight's zero points, if it has any.
    """
    if t.kind not in (SIGNED, OFFSET) or t.bits not in BITS or not t.whole or t.parts > 1:
        return False
    few, many = sorted((min(run, t.columns), min(t.group, t.columns)))
    if few < t.columns and (few * t.bits % 8 or (many < t.columns and many % few)):
        return False
    largest = 2 ** (t.bits - 1)
    if zeros is not None:
        largest = max(2**t.bits - 1 - int(zeros.min()), int(zeros.max()))
    return largest * peak * few < 2**31


# -- the table of stores --------------------------------------------------------------------------


def stored(
    program: Program, spec: Spec, site: Site | None,
    place: tuple[Scheme, PackedWeights] | None = None, stride: int = 0,
) -> int:  # fmt: skip
    """Add the store of a site to the table; its number.

    place: where calibrated scales lie, one for every `stride` numbers (0: one for all).
    """
    scale_at = zero_at = NONE
    if site is not None and place is not None:
        scheme, weights = place
        scale_at = weights.places[f"{site.name}.scale"]
        zero_at = weights.places[f"{site.name}.zero"] if scheme.asym else NONE
    row = Stored(
        *spec.flags(), spec.group, spec.scales, *spec.key, program.constants(*spec.constants()),
        scale_at, zero_at, stride,
    )  # fmt: skip
    return program.store(row, site.name if site else "")


def exact(program: Program) -> int:
    """The number of the store that does not round, which is added when it is first asked for."""
    if "" not in program.store_names:
        return stored(program, Spec(), None)
    return program.store_names.index("")
