"""From numbers to codes and back: the one pair that simulation, packing and training share.

    encode(x, scheme, site) -> {field: Field(codes, scale, zero)}      what memory holds
    decode(fields, scheme, site) -> x                                  what the arithmetic sees

Under `hadamard` codes and ranges are those of the rotated tensor, and x goes in and comes out as
the model has it. Under `gptq` x is what `numerics.gptq` made of the weight: every value is one that
a code names, and codes are the nearest.

Everything is elementwise IEEE arithmetic in a stated order, so that kernels can repeat it bit for
bit: `v = x / scale`, clamp, round half to even, `value = r * scale`. Codes of weights are computed
in float64 and decoded in float32; activations and states are rounded in float32 throughout.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Any

import torch
from torch import Tensor

from sensprobe.numerics.arithmetic import atan2, exp, from_polar, log, magnitude, power_of_two
from sensprobe.numerics.philox import key_of, noise_like
from sensprobe.numerics.transforms import rotate, rotate_back
from sensprobe.plans.formats import BF16, FP16, FP32, Float, Format, Int, Log, LogPolar, Polar
from sensprobe.plans.scheme import ZERO_PEAK, Rounding, Scales, Scheme, scale_shape
from sensprobe.plans.sites import Site

Range = tuple[Tensor, Tensor]
"""The low and the high end of a range, each of the scheme's scale shape (and any leading axes)."""

SMALLEST_SCALE = {Scales.S16: 2.0**-24, Scales.S32: 2.0**-126, Scales.POW2: 2.0**-126}
LARGEST_SCALE = {Scales.S16: 65504.0, Scales.S32: FP32.peak, Scales.POW2: 2.0**127}
OFFSET_DTYPE = {
    Scales.S16: torch.float16,
    Scales.S32: torch.float32,
    Scales.POW2: torch.float16,
}
"""The type in which the low end of a polar field's range is stored, as wide as a zero point's."""
UNSCALED_DTYPE = {BF16: torch.bfloat16, FP16: torch.float16, FP32: torch.float32}
LOG_FLOOR = 2.0**-24
"""Least 1 - |A| under logpolar: the distance of 1 from its float32 neighbour."""


@dataclass(frozen=True, slots=True)
class Field:
    """One stored array. Codes are int32 (or the values themselves in bf16/fp16/fp32)."""

    codes: Tensor
    bits: int
    scale: Tensor | None = None  # float16, float32, or int8 exponents
    zero: Tensor | None = None  # int16 or int32; of polar fields the low end, float16 or float32


Fields = dict[str, Field]
"""Fields by name: `""` alone for scalar formats; `magnitude` and `phase` for polar ones."""


# -- gradients ------------------------------------------------------------------------------------


class _Straight(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, rounded: Tensor) -> Tensor:
        return rounded.view_as(rounded)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        return gradient, None


def straight(x: Tensor, rounded: Tensor) -> Tensor:
    """`rounded`, with its gradient passed straight through to x, which it was made of: the
    straight-through estimator (Bengio et al. 2013, arXiv 1308.3432)."""
    if not (torch.is_grad_enabled() and x.requires_grad):
        return rounded
    return _Straight.apply(x, rounded)


# -- one value ------------------------------------------------------------------------------------


def round_ratio(
    v: Tensor,
    format: Int | Float | Log,
    rounding: Rounding = Rounding.NEAREST,
    noise: Tensor | None = None,
) -> Tensor:
    """The format's value for v (already divided by the scale); beyond the peak it saturates."""
    v = v.clamp(-format.peak, format.peak)
    if isinstance(format, Int):
        return to_integer(v, rounding, noise).clamp(-format.peak, format.peak)
    mantissa, floor = (
        (format.mantissa, format.floor) if isinstance(format, Float) else (0, 1 - format.powers)
    )
    _, exponent = torch.frexp(v)  # |v| lies in [2^(e-1), 2^e): exact, where log2 is not
    step = power_of_two((exponent - 1).clamp(min=floor) - mantissa, v.dtype)
    return (to_integer(v / step, rounding, noise) * step).clamp(-format.peak, format.peak)


def to_integer(v: Tensor, rounding: Rounding, noise: Tensor | None) -> Tensor:
    """v as a whole number: half to even, toward zero, or up with the remainder's probability."""
    if rounding is Rounding.TRUNCATE:
        return v.trunc()
    if rounding is Rounding.STOCHASTIC:
        if noise is None:
            raise ValueError("stochastic rounding needs noise")
        return (v + noise).floor()
    return v.round()


# -- scales ---------------------------------------------------------------------------------------


def stored_scale(scale: Tensor, scales: Scales) -> Tensor:
    """The scale as memory keeps it, in the dtype given: rounded, never zero, never infinite."""
    scale = scale.clamp(SMALLEST_SCALE[scales], LARGEST_SCALE[scales])
    if scales is Scales.S16:
        return scale.to(torch.float16).to(scale.dtype)
    if scales is Scales.S32:
        return scale.to(torch.float32).to(scale.dtype)
    mantissa, exponent = torch.frexp(scale)
    return power_of_two(exponent - (mantissa == 0.5).to(exponent.dtype), scale.dtype)


def affine(low: Tensor, high: Tensor, levels: int, scales: Scales) -> tuple[Tensor, Tensor]:
    """Scale and zero point that put [low, high] on codes 0..levels.

    `scale = (high - low) / levels`, widened where the zero point `round(-low / scale)` would not
    fit its integer: a range narrow and far from zero keeps 15 (s32: 23) bits below its peak.
    """
    limit = ZERO_PEAK[scales]
    peak = torch.maximum(low.abs(), high.abs())
    scale = stored_scale(torch.maximum((high - low) / levels, peak / limit), scales)
    return scale, (-low / scale).round().clamp(-limit, limit)


def symmetric(low: Tensor, high: Tensor, peak: float, scales: Scales) -> Tensor:
    """Scale that puts the larger of |low|, |high| on the format's peak."""
    return stored_scale(torch.maximum(low.abs(), high.abs()) / peak, scales)


def scale_and_zero(scheme: Scheme, low: Tensor, high: Tensor) -> tuple[Tensor, Tensor | None]:
    """Stored scale and zero point (None when symmetric) of a range, as tensors of its dtype."""
    assert not isinstance(scheme.format, Polar | LogPolar)
    if scheme.asym:
        assert isinstance(scheme.format, Int)
        return affine(low, high, scheme.format.levels, scheme.scales)
    return symmetric(low, high, scheme.format.peak, scheme.scales), None


def real_view(x: Tensor) -> Tensor:
    """Complex numbers as a trailing axis of two; real ones unchanged."""
    return torch.view_as_real(x) if x.is_complex() else x


def blocks(x: Tensor, scheme: Scheme, site: Site) -> tuple[Tensor, list[int]]:
    """x (real view) so that reducing the listed axes, keeping them, gives the scale shape.

    Under groups the last site axis is split in two and its tail filled with its last value.
    Leading axes (batch, time) are kept.
    """
    shape = site.shape + ((2,) if site.is_complex else ())
    lead = x.ndim - len(shape)
    if scheme.granularity != "group":
        target = scale_shape(scheme, site)
        return x, [lead + a for a in range(len(shape)) if target[a] == 1 and shape[a] != 1]
    axis = lead + len(site.shape) - 1
    length = x.shape[axis]
    size = min(scheme.group, length)
    count = -(-length // size)
    if pad := count * size - length:
        tail = x.narrow(axis, length - 1, 1)
        x = torch.cat([x, tail.expand(*x.shape[:axis], pad, *x.shape[axis + 1 :])], dim=axis)
    x = x.reshape(*x.shape[:axis], count, size, *x.shape[axis + 1 :])
    return x, [axis + 1] + ([x.ndim - 1] if site.is_complex and not scheme.parts else [])


def reduced(low: Tensor, scheme: Scheme, site: Site, lead: int) -> Tensor:
    """A statistic taken over `blocks` in the shape of the scales, leading axes in front."""
    return low.reshape(low.shape[:lead] + scale_shape(scheme, site))


def min_max(x: Tensor, scheme: Scheme, site: Site) -> Range:
    """The range of x (real view) over everything that shares a scale."""
    lead = x.ndim - len(site.shape) - site.is_complex
    view, axes = blocks(x, scheme, site)
    low, high = (
        (view.amin(axes, keepdim=True), view.amax(axes, keepdim=True)) if axes else (view, view)
    )
    return reduced(low, scheme, site, lead), reduced(high, scheme, site, lead)


def spread(scale: Tensor, scheme: Scheme, site: Site) -> Tensor:
    """Scales so that they broadcast against the tensor's real view."""
    if scheme.granularity == "decoupled":
        channels = scale[: -site.shape[-1], None]
        return (channels * scale[-site.shape[-1] :]).view(site.shape)
    if scheme.granularity != "group":
        return scale
    axis = scale.ndim - 1 - site.is_complex
    return scale.repeat_interleave(scheme.group, dim=axis).narrow(axis, 0, site.shape[-1])


# -- whole tensors --------------------------------------------------------------------------------


def rotated(x: Tensor, scheme: Scheme) -> Tensor:
    """x (real view) in the basis a scheme rounds in: its own, or a Hadamard transform's."""
    return rotate(x) if scheme.hadamard else x


def rotated_back(x: Tensor, scheme: Scheme) -> Tensor:
    """The inverse of `rotated`."""
    return rotate_back(x) if scheme.hadamard else x


def quantize(
    x: Tensor,
    scheme: Scheme,
    site: Site,
    scale: Tensor | None,
    zero: Tensor | None = None,
    noise: Tensor | None = None,
) -> Tensor:
    """The result of decode(encode(x)), without the codes: x is a real view, the dtype is x's.

    x and the result are in the basis that the scheme rounds in (see `rotated`).
    """
    format = scheme.format
    assert not isinstance(format, Polar | LogPolar)
    if format == FP32:
        return x
    if scale is None:
        return round_ratio(x, format, scheme.rounding, noise)
    s = spread(scale, scheme, site)
    if zero is None:
        return round_ratio(x / s, format, scheme.rounding, noise) * s
    assert isinstance(format, Int)
    z = spread(zero, scheme, site)
    v = torch.clamp(x / s, min=-z, max=format.levels - z)
    return torch.clamp(to_integer(v, scheme.rounding, noise), min=-z, max=format.levels - z) * s


def encode(x: Tensor, scheme: Scheme, site: Site, range: Range | None = None) -> Fields:
    """Codes and scales of a weight tensor; `range` overrides the (rotated) tensor's own.

    x: the site's shape, float64 or complex128. Fields hold what is packed.
    """
    if isinstance(scheme.format, Polar | LogPolar):
        return _encode_polar(x, scheme, site)
    x = rotated(real_view(x), scheme)
    noise = None
    if scheme.rounding is Rounding.STOCHASTIC:
        noise = noise_like(x, key_of(scheme.seed, site.name))
    if not scheme.scaled:
        assert isinstance(scheme.format, Float)
        values = (
            x if scheme.format == FP32 else round_ratio(x, scheme.format, scheme.rounding, noise)
        )
        return {"": Field(values.to(UNSCALED_DTYPE[scheme.format]), scheme.format.bits)}
    low, high = range if range is not None else min_max(x, scheme, site)
    scale, zero = scale_and_zero(scheme, low, high)
    ratio = quantize(x, scheme, site, scale, zero, noise) / spread(scale, scheme, site)
    codes = _codes(ratio, scheme.format)
    if zero is not None:
        codes = codes + spread(zero, scheme, site).to(torch.int32)
    return {
        "": Field(
            codes,
            scheme.format.bits,
            pack_scale(scale, scheme.scales),
            _pack_zero(zero, scheme.scales),
        )
    }


def decode(fields: Fields, scheme: Scheme, site: Site) -> Tensor:
    """The float32 (complex64) tensor that fields encode."""
    if isinstance(scheme.format, Polar | LogPolar):
        return _decode_polar(fields, scheme, site)
    field = fields[""]
    if field.scale is None:
        x = field.codes.to(torch.float32)
    else:
        x = _values(field, scheme.format) * spread(unpack_scale(field.scale), scheme, site)
        if field.zero is not None:
            z = spread(field.zero, scheme, site)
            x = (field.codes - z).to(torch.float32) * spread(
                unpack_scale(field.scale), scheme, site
            )
    if scheme.hadamard:
        return rotate_back(x.double()).to(torch.float32)
    return torch.view_as_complex(x.contiguous()) if site.is_complex else x


def _codes(ratio: Tensor, format: Int | Float | Log) -> Tensor:
    """The code of each of the format's values: integers themselves; sign and index otherwise."""
    if isinstance(format, Int):
        return ratio.round().to(torch.int32)
    table = _table(format).to(ratio.dtype)
    middles = (table[1:] + table[:-1]) / 2
    index = torch.bucketize(ratio.abs(), middles).to(torch.int32)
    return index + ((ratio < 0) & (index > 0)).to(torch.int32) * 2 ** (format.bits - 1)


def _values(field: Field, format: Format) -> Tensor:
    if isinstance(format, Int):
        return field.codes.to(torch.float32)
    assert isinstance(format, Float | Log)
    half = 2 ** (format.bits - 1)
    magnitude = _table(format).to(torch.float32)[(field.codes % half).long()]
    return torch.where(field.codes >= half, -magnitude, magnitude)


@cache
def _table(format: Float | Log) -> Tensor:
    return torch.tensor(format.code_values(), dtype=torch.float64)


def pack_scale(scale: Tensor, scales: Scales) -> Tensor:
    """A stored scale in the dtype it is stored in (pow2: its exponent)."""
    if scales is Scales.POW2:
        return (torch.frexp(scale)[1] - 1).to(torch.int8)
    return scale.to(torch.float16 if scales is Scales.S16 else torch.float32)


def unpack_scale(scale: Tensor) -> Tensor:
    """The float32 value of a stored scale."""
    if scale.dtype == torch.int8:
        return power_of_two(scale, torch.float32)
    return scale.to(torch.float32)


def _pack_zero(zero: Tensor | None, scales: Scales) -> Tensor | None:
    if zero is None:
        return None
    return zero.to(torch.int32 if scales is Scales.S32 else torch.int16)


# -- complex numbers by magnitude and phase -------------------------------------------------------


def _encode_polar(z: Tensor, scheme: Scheme, site: Site) -> Fields:
    assert isinstance(scheme.format, Polar | LogPolar)
    size, phase = magnitude(z), atan2(z.imag, z.real)
    bits = scheme.format.magnitude_bits
    if isinstance(scheme.format, LogPolar):
        first = _field(log((1 - size).clamp(min=LOG_FLOOR)), bits, scheme, site)
    else:
        first = _field(size, bits, scheme, site, from_zero=True)
    return {
        "magnitude": first,
        "phase": _field(phase, scheme.format.phase_bits, scheme, site),
    }


def _field(v: Tensor, bits: int, scheme: Scheme, site: Site, from_zero: bool = False) -> Field:
    """v (real, the site's shape) on codes 0..2^bits-1 over its own range, or over [0, max].

    The low end is stored as a float beside the scale: with one or two bits of magnitude, a zero
    point in whole steps would move the ends by half a step, which is most of what is there.
    """
    flat = _real(site)
    low, high = min_max(v, scheme, flat)
    levels = 2**bits - 1
    low = torch.zeros_like(low) if from_zero else stored_offset(low, scheme.scales)
    scale = stored_scale((high - low) / levels, scheme.scales)
    steps = (v - spread(low, scheme, flat)) / spread(scale, scheme, flat)
    if scheme.rounding is Rounding.TRUNCATE and isinstance(scheme.format, LogPolar):
        steps = steps.ceil()  # a larger log(1 - |A|) is a smaller |A|
    codes = to_integer(steps, scheme.rounding, None).clamp(0, levels).to(torch.int32)
    offset = None if from_zero else low.to(OFFSET_DTYPE[scheme.scales])
    return Field(codes, bits, pack_scale(scale, scheme.scales), offset)


def stored_offset(low: Tensor, scales: Scales) -> Tensor:
    """The low end of a polar field as memory keeps it: rounded down, so that nothing lies below."""
    kept = low.to(OFFSET_DTYPE[scales])
    below = torch.nextafter(kept, torch.full_like(kept, -torch.inf))
    return torch.where(kept > low, below, kept).to(low.dtype)


def _decode_polar(fields: Fields, scheme: Scheme, site: Site) -> Tensor:
    flat = _real(site)
    parts = []
    for name in ("magnitude", "phase"):
        field = fields[name]
        assert field.scale is not None
        x = field.codes.to(torch.float64) * spread(unpack_scale(field.scale), scheme, flat).double()
        if field.zero is not None:
            x = x + spread(field.zero.to(torch.float64), scheme, flat)
        parts.append(x)
    size, phase = parts
    if isinstance(scheme.format, LogPolar):
        size = (1 - exp(size)).clamp(min=0)  # the last code may pass 0
    return from_polar(size, phase).to(torch.complex64)


def _real(site: Site) -> Site:
    """The site as if its numbers were real: polar fields hold one real each."""
    return Site(site.name, site.part, site.kind, site.shape, site.axes)
