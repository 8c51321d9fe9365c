"""Models that stream from packed memory, and that memory read by its documented layout."""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil, prod

import numpy as np
import torch
from builders import vector
from sensprobe_kernels.layout import unpack
from sensprobe_kernels.packed.tensor import FIELDS

from sensprobe.apply import Applier
from sensprobe.export.tensors import layout, packed_fields, stored
from sensprobe.formats import BF16, Int
from sensprobe.packed import Arena, Stream, describe
from sensprobe.plan import Plan
from sensprobe.rounding import Field, decode, encode, spread, unpack_scale
from sensprobe.scheme import (
    EXACT,
    RESIDUAL_BYTES,
    SCALE_BYTES,
    ZERO_BYTES,
    Rounding,
    Scales,
    Scheme,
    parse,
    scale_shape,
)
from sensprobe.sites import Axis, Kind, Part, Site
from sensprobe.storage import Memory
from sensprobe.taps import RoundingTap


@dataclass
class Packed:
    """A tiny model under a plan: as simulated, and streaming from packed memory."""

    model: object
    tap: RoundingTap
    stream: Stream
    plan: dict

    def step(self, x, state, sim):
        """Outputs and states of both."""
        with torch.no_grad():
            want, sim = self.model.step(x, sim, self.tap)
        got, state = self.stream.step(x, state)
        return (got, state), (want, sim)


def packed(model, plan: dict[str, str]) -> Packed:
    """A model under {pattern: scheme}."""
    chosen = Plan(tuple((p, parse(s)) for p, s in plan.items())).resolve(model.sites.values())
    applier = Applier(model)
    tap = applier.tap(chosen)
    arena = Arena.of(stored(applier, chosen, tap), model.sites, chosen)
    return Packed(model, tap, Stream(model, arena, arena.scales()), chosen)


def held(memory: np.ndarray, model, plan: dict) -> dict[str, Memory]:
    """States read from one sequence's bytes by the documented layout: site by site in the order
    of the layers, each codes, live scales, zero points, residuals."""
    out, at = {}, 0
    for site in model.sites.values():
        if site.kind is not Kind.STATE:
            continue
        scheme, shape = plan.get(site.name), (*site.shape, *([2] if site.is_complex else []))
        count = prod(shape)

        def take(size: int) -> np.ndarray:
            nonlocal at
            at += size
            return memory[at - size : at]

        if scheme is None or not scheme.scaled:
            bits = 32 if scheme is None else scheme.format.bits
            kind = {
                32: torch.float32,
                16: torch.bfloat16 if scheme and scheme.format == BF16 else torch.float16,
            }[bits]
            raw = torch.from_numpy(take(count * bits // 8).copy()).view(kind)
            residual = None
            if scheme is not None and scheme.rounding is Rounding.FEEDBACK:
                rest = torch.from_numpy(take(count * RESIDUAL_BYTES).copy())
                residual = rest.view(torch.bfloat16).float().view(shape)
            out[site.name] = Memory(raw.float().view(shape), residual)
            continue
        signed = isinstance(scheme.format, Int) and not scheme.asym
        bits = scheme.format.bits
        codes = unpack(take(ceil(count * bits / 8)), bits, count, signed).reshape(shape)
        shape = scale_shape(scheme, site)
        scale, zero = None, None
        kinds = {2: torch.float16, 4: torch.float32, 1: torch.int8}
        if scheme.dynamic:
            size = SCALE_BYTES[scheme.scales]
            raw = take(prod(shape) * size).copy()
            scale = torch.from_numpy(raw).view(kinds[size]).view(shape)
            if scheme.asym:
                size = ZERO_BYTES[scheme.scales]
                raw = take(prod(shape) * size).copy()
                zero = torch.from_numpy(raw).view({2: torch.int16, 4: torch.int32}[size])
                zero = zero.view(shape)
        residual = None
        if scheme.rounding is Rounding.FEEDBACK:
            raw = torch.from_numpy(take(count * RESIDUAL_BYTES).copy())
            residual = raw.view(torch.bfloat16).float().view(site.shape)
        field = Field(torch.from_numpy(codes), bits, scale, zero)
        out[site.name] = (field, residual, scheme, site)
    assert at == memory.size
    return out


def values(entry, tap: RoundingTap) -> Memory:
    """The float32 state an entry of `held` stands for."""
    if isinstance(entry, Memory):
        return entry
    field, residual, scheme, site = entry
    if field.scale is None:
        scale, zero = tap.scales[site.name]
        kept = scale if scheme.scales is not Scales.S16 else scale.half()
        field = Field(field.codes, field.bits, kept, None if zero is None else zero.to(torch.int32))
    state = decode({"": field}, scheme, site)
    return Memory(torch.view_as_real(state) if state.is_complex() else state, residual)


def same(want: Memory, got: Memory) -> None:
    """Equal to the bit, residuals too."""
    torch.testing.assert_close(got.state, want.state, rtol=0, atol=0)
    if want.residual is not None:
        torch.testing.assert_close(got.residual, want.residual, rtol=0, atol=0)


def in_memory(shape: tuple[int, int], text: str, seed: int = 0):
    """A random matrix, packed: arena, table of tensors, and the numbers it stands for."""
    scheme, site = parse(text), Site("w", Part.HEAD, Kind.WEIGHT, shape, (Axis.OUT, Axis.IN))
    return packed_matrix(vector(*shape, seed=seed), site, scheme)


def packed_matrix(x, site: Site, scheme: Scheme):
    fields = encode(x, scheme, site)
    plan = {} if scheme == EXACT else {site.name: scheme}
    tensors = packed_fields(site, fields, layout({site.name: site}, plan))
    arena = Arena.of(tensors, {site.name: site}, plan)
    table = np.zeros((1, FIELDS), np.int64)
    table[0] = describe.packed(site, arena)
    return arena, table, decode(fields, scheme, site)


def whole_numbers(arena: Arena, name: str) -> tuple[torch.Tensor, torch.Tensor, int]:
    """A packed matrix as codes less zero points, scales (rows, groups) and the size of a group."""
    site, scheme = arena.sites[name], arena.plan[name]
    rows, columns = site.shape
    entries = layout({name: site}, arena.plan)
    fields = {
        end: arena.tensors[f"{name}.{end}"].clone().view(entry.dtype).view(entry.stored_shape)
        for end, entry in ((key.rsplit(".", 1)[1], entry) for key, entry in entries.items())
    }
    packed_codes, signed = fields["codes"].numpy(), not scheme.asym
    codes = unpack(packed_codes, scheme.format.bits, rows * columns, signed).reshape(rows, columns)
    q = torch.from_numpy(codes).long()
    if scheme.asym:
        q = q - spread(fields["zero"].long(), scheme, site)
    scales = unpack_scale(fields["scale"])
    group = scheme.group if scheme.granularity == "group" else columns
    return q, scales.expand(rows, scales.shape[1]), min(group, columns)
