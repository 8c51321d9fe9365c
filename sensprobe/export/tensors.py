"""What `model.safetensors` holds: every stored tensor, its dtype and shape, and the way back.

    {site}                      weights without scales: float32, float16 or bfloat16
    {site}.codes                packed codes, uint8, one axis, ceil(values · bits / 8) bytes
    {site}.scale  {site}.zero   as stored: float16, float32 or int8 exponents; int16 or int32
    {site}.magnitude.codes …    polar weights: codes, scale and `low` (the low end of the range,
                                float16 or float32) of magnitude and of phase

A complex tensor is stored with a trailing axis of two. Static activations and states have a scale
(and zero point) and no codes. `layout` follows from shapes and plan alone, so the sum of its sizes
is the cost's `weight_bytes`, and a file can be checked before anything in it is believed.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import ceil, prod
from typing import Any

import torch
from sensprobe_kernels.packing.layout import pack, unpack
from torch import Tensor

from sensprobe.errors import CheckpointError
from sensprobe.models.apply import Applier
from sensprobe.numerics.rounding import (
    OFFSET_DTYPE,
    UNSCALED_DTYPE,
    Field,
    Fields,
    decode,
    pack_scale,
    unpack_scale,
)
from sensprobe.numerics.taps import RoundingTap, StaticScale
from sensprobe.plans.formats import Float, Int, Log, LogPolar, Polar
from sensprobe.plans.scheme import EXACT, Scales, Scheme, scale_shape
from sensprobe.plans.sites import Kind, Site

SCALE_DTYPE = {
    Scales.S16: torch.float16,
    Scales.S32: torch.float32,
    Scales.POW2: torch.int8,
}
ZERO_DTYPE = {Scales.S16: torch.int16, Scales.S32: torch.int32, Scales.POW2: torch.int16}


@dataclass(frozen=True, slots=True)
class Entry:
    """One tensor of the file. Codes have `bits` and `signed`; their `shape` is the unpacked one."""

    site: str
    dtype: torch.dtype
    shape: tuple[int, ...]
    bits: int | None = None
    signed: bool = False

    @property
    def stored_shape(self) -> tuple[int, ...]:
        """The shape in the file."""
        return self.shape if self.bits is None else (ceil(prod(self.shape) * self.bits / 8),)

    @property
    def size_bytes(self) -> int:
        return prod(self.stored_shape) * self.dtype.itemsize

    def to_json(self) -> dict[str, Any]:
        """What a reader in another language needs to unpack the tensor."""
        plain = {"site": self.site, "dtype": _word(self.dtype), "shape": list(self.shape)}
        if self.bits is None:
            return plain
        return plain | {"bits": self.bits, "signed": self.signed}


def _word(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def layout(sites: Mapping[str, Site], plan: Mapping[str, Scheme]) -> dict[str, Entry]:
    """Every stored tensor of a resolved plan by name, in the order of the sites."""
    entries: dict[str, Entry] = {}
    for site in sites.values():
        entries |= _entries(site, plan.get(site.name, EXACT))
    return entries


def _entries(site: Site, scheme: Scheme) -> dict[str, Entry]:
    if site.kind is not Kind.WEIGHT:
        static = scheme.scaled and not scheme.dynamic
        return _scale_entries(site, scheme) if static else {}
    if isinstance(scheme.format, Polar | LogPolar):
        return _polar_entries(scheme.format, scheme, site)
    shape = (*site.shape, 2) if site.is_complex else site.shape
    if not scheme.scaled:
        assert isinstance(scheme.format, Float)
        return {site.name: Entry(site.name, UNSCALED_DTYPE[scheme.format], shape)}
    signed = isinstance(scheme.format, Int) and not scheme.asym
    codes = Entry(site.name, torch.uint8, shape, scheme.format.bits, signed)
    return {f"{site.name}.codes": codes} | _scale_entries(site, scheme)


def _polar_entries(format: Polar | LogPolar, scheme: Scheme, site: Site) -> dict[str, Entry]:
    entries: dict[str, Entry] = {}
    scale = Entry(site.name, SCALE_DTYPE[scheme.scales], scale_shape(scheme, site))
    low = Entry(site.name, OFFSET_DTYPE[scheme.scales], scale_shape(scheme, site))
    for part, bits, has_low in (
        ("magnitude", format.magnitude_bits, isinstance(format, LogPolar)),
        ("phase", format.phase_bits, True),
    ):
        at = f"{site.name}.{part}"
        entries[f"{at}.codes"] = Entry(site.name, torch.uint8, site.shape, bits)
        entries[f"{at}.scale"] = scale
        if has_low:
            entries[f"{at}.low"] = low
    return entries


def _scale_entries(site: Site, scheme: Scheme) -> dict[str, Entry]:
    shape = scale_shape(scheme, site)
    entries = {f"{site.name}.scale": Entry(site.name, SCALE_DTYPE[scheme.scales], shape)}
    if scheme.asym:
        entries[f"{site.name}.zero"] = Entry(site.name, ZERO_DTYPE[scheme.scales], shape)
    return entries


# -- model -> file --------------------------------------------------------------------------------


def stored(applier: Applier, plan: Mapping[str, Scheme], tap: RoundingTap) -> dict[str, Tensor]:
    """The file's tensors: weights encoded as the tap's were, and the tap's static scales."""
    sites = applier.model.sites
    entries, tensors = layout(sites, plan), dict[str, Tensor]()
    for site in sites.values():
        if site.kind is Kind.WEIGHT:
            fields = applier.encoded(site, plan.get(site.name, EXACT))
            tensors |= packed_fields(site, fields, entries)
        elif site.name in tap.scales:
            scale, zero = tap.scales[site.name]
            scales = plan[site.name].scales
            tensors[f"{site.name}.scale"] = pack_scale(scale, scales)
            if zero is not None:
                tensors[f"{site.name}.zero"] = zero.to(ZERO_DTYPE[scales])
    return {name: tensors[name].cpu().contiguous() for name in entries}


def packed_fields(site: Site, fields: Fields, entries: Mapping[str, Entry]) -> dict[str, Tensor]:
    tensors = {}
    for part, field in fields.items():
        at = f"{site.name}.{part}" if part else site.name
        if field.scale is None:
            return {at: field.codes}
        codes, signed = field.codes.cpu().numpy(), entries[f"{at}.codes"].signed
        tensors[f"{at}.codes"] = torch.from_numpy(pack(codes, field.bits, signed))
        tensors[f"{at}.scale"] = field.scale
        if field.zero is not None:
            tensors[f"{at}.low" if part else f"{at}.zero"] = field.zero
    return tensors


# -- file -> model --------------------------------------------------------------------------------


def weights_of(
    tensors: Mapping[str, Tensor], sites: Mapping[str, Site], plan: Mapping[str, Scheme]
) -> dict[str, Tensor]:
    """Decoded weights, float32 or complex64, from tensors that fit `layout(sites, plan)`.

    Raises CheckpointError for codes that no number of the format has.
    """
    weights = {}
    for site in sites.values():
        if site.kind is Kind.WEIGHT:
            scheme = plan.get(site.name, EXACT)
            fields = _fields(tensors, site, scheme)
            _check_codes(fields, scheme, site)
            weights[site.name] = decode(fields, scheme, site)
    return weights


def _fields(tensors: Mapping[str, Tensor], site: Site, scheme: Scheme) -> Fields:
    fields: Fields = {}
    for name, entry in _entries(site, scheme).items():
        if entry.bits is None and scheme.scaled:
            continue  # read with its codes
        if entry.bits is None:
            return {"": Field(tensors[name], scheme.format.bits)}
        at = name.removesuffix(".codes")
        part = at.removeprefix(site.name).removeprefix(".")
        fields[part] = Field(
            _unpacked(tensors[name], entry),
            entry.bits,
            tensors[f"{at}.scale"],
            tensors.get(f"{at}.low" if part else f"{at}.zero"),
        )
    return fields


def _unpacked(packed: Tensor, entry: Entry) -> Tensor:
    assert entry.bits is not None
    codes = unpack(packed.numpy(), entry.bits, prod(entry.shape), entry.signed)
    return torch.from_numpy(codes.reshape(entry.shape))


def _check_codes(fields: Fields, scheme: Scheme, site: Site) -> None:
    """Floats leave codes unused (NaN of e4m3): a file that uses them is not one of ours."""
    if not (scheme.scaled and isinstance(scheme.format, Float | Log)):
        return
    named = len(scheme.format.code_values())
    largest = (fields[""].codes % (1 << (scheme.format.bits - 1))).max().item()
    if largest >= named:
        raise CheckpointError(
            f"{site.name} holds code {largest}, and {scheme.format} has {named} magnitudes: the "
            "file is damaged. Copy the folder again, or export it again."
        )


def scales_of(
    tensors: Mapping[str, Tensor], sites: Mapping[str, Site], plan: Mapping[str, Scheme]
) -> dict[str, StaticScale]:
    """Scales and zero points, float32, of static activations and states."""
    scales: dict[str, StaticScale] = {}
    for site in sites.values():
        if site.kind is Kind.WEIGHT or f"{site.name}.scale" not in tensors:
            continue
        zero = tensors.get(f"{site.name}.zero")
        scale = unpack_scale(tensors[f"{site.name}.scale"])
        scales[site.name] = scale, None if zero is None else zero.to(torch.float32)
    return scales
