"""Models that stream from packed memory, and that memory read by its documented layout."""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil, prod

import numpy as np
import torch
from sensprobe_kernels.layout import unpack

from sensprobe.apply import Applier
from sensprobe.export.tensors import stored
from sensprobe.formats import BF16, Int
from sensprobe.packed import Arena, Stream
from sensprobe.plan import Plan
from sensprobe.rounding import Field, decode
from sensprobe.scheme import (
    RESIDUAL_BYTES,
    SCALE_BYTES,
    ZERO_BYTES,
    Rounding,
    Scales,
    parse,
    scale_shape,
)
from sensprobe.sites import Kind
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
