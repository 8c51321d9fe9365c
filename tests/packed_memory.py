"""Models that stream from packed memory, and that memory read by its documented layout."""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil, prod

import numpy as np
import torch
from builders import vector
from sensprobe_kernels.packing.layout import unpack
from sensprobe_kernels.packing.tensor import FIELDS

from sensprobe.export.tensors import layout, packed_fields, stored
from sensprobe.models.apply import Applier, observe
from sensprobe.models.mamba import MambaConfig
from sensprobe.models.mamba2 import Mamba2Config
from sensprobe.numerics.rounding import Field, decode, encode, spread, unpack_scale
from sensprobe.numerics.storage import Carry
from sensprobe.numerics.taps import RoundingTap
from sensprobe.ops.causal_conv import reference as causal_conv
from sensprobe.ops.diagonal_scan import reference as diagonal_scan
from sensprobe.ops.exponential import exponential
from sensprobe.ops.head_scan import reference as head_scan
from sensprobe.ops.modal_scan import reference as modal_scan
from sensprobe.ops.selective_scan import reference as selective_scan
from sensprobe.packed import PackedWeights, Stream, describe
from sensprobe.plans.formats import BF16, Int
from sensprobe.plans.plan import Plan
from sensprobe.plans.scheme import (
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
from sensprobe.plans.sites import Axis, Kind, Part, Site

ONE = {"d_input": 3, "d_output": 4, "d_model": 8, "pooling": "none"}
CONFIGS = {
    "mamba": MambaConfig(**ONE, dt_rank=3, d_state=5),
    "mamba2": Mamba2Config(**ONE, d_state=8, d_head=16, groups=1, expand=4),
    "tokens": MambaConfig(
        d_input=11, d_output=11, d_model=16, encoder="embedding", tied_head=True, head_bias=False,
        pooling="none", dt_rank=2, d_state=16, inner_norm=True, layers=2,
    ),
    "groups": Mamba2Config(
        d_input=3, d_output=4, d_model=16, d_state=4, d_head=16, groups=2, layers=2, bias=True,
        pooling="mean", norm="post", norm_kind="layer", D_per_channel=True, dt_min=0.01, dt_max=0.2,
        head="linear 18, relu, linear",
    ),
    "bare": MambaConfig(
        d_input=2, d_output=3, d_model=8, dt_rank=1, d_state=2, d_conv=2, norm="none",
        residual=False, final_norm=False, conv_bias=False, pooling="last",
        head="layer norm, linear 5, silu, dropout, rms norm, gelu, linear",
    ),
    "ungated": Mamba2Config(**ONE, d_state=24, d_head=32, expand=4, gated_norm=False),
    "wide": MambaConfig(**ONE, dt_rank=3, d_state=16),
    "pairs": Mamba2Config(**ONE, d_state=4, d_head=16, groups=2, expand=8, D_per_channel=True),
}  # fmt: skip
STATES = [
    "int8/head/dynamic", "int8/head/asym/dynamic", "int4/head/dynamic", "int3/head/asym/dynamic",
    "int8/dynamic", "int6/asym/dynamic/pow2", "int5/head/dynamic/s32", "e4m3/head/dynamic",
    "e2m1/head/dynamic", "log4/head/dynamic/s32", "fp16", "bf16", "fp32",
    "int8/head/dynamic/stochastic", "int8/head/dynamic/feedback", "int4/head/asym/dynamic/clip1",
    "int8/head/dynamic/truncate", "int8/head/range2", "int8/asym/range2", "e5m2/range2",
    "int8/range2/pow2", "int8/asym/range2/s32", "e4m3/range2/s32",
    "int8/head/asym/dynamic/s32", "fp16/feedback", "bf16/feedback/clip1",
]  # fmt: skip


GROUPED = [
    "int8/group4/dynamic", "int5/group2/asym/dynamic/feedback", "int8/group8/pow2/stochastic",
    "int4/group8/dynamic/stochastic/s32", "log4/group4/dynamic/pow2", "int8/group4",
    "int6/group2/asym/range1/s32", "e4m3/group4/feedback", "int8/group2/clip0.1",
]  # fmt: skip
"""Of which rows have several scales; calibrated ones differ."""


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


def packed(model, plan: dict[str, str], x: torch.Tensor | None = None) -> Packed:
    """A model under {pattern: scheme}; x: what it is calibrated on."""
    chosen = Plan(tuple((p, parse(s)) for p, s in plan.items())).resolve(model.sites.values())
    applier = Applier(model) if x is None else Applier(model, observe(model, x))
    tap = applier.tap(chosen)
    weights = PackedWeights.of(stored(applier, chosen, tap), model.sites, chosen)
    return Packed(model, tap, Stream(model, weights, weights.scales()), chosen)


def held(memory: np.ndarray, model, plan: dict) -> dict[str, Carry]:
    """States read from one sequence's bytes by the documented layout: site by site in the order
    of the layers, each codes, dynamic scales, zero points, residuals."""
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
            out[site.name] = Carry(raw.float().view(shape), residual)
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
            residual = raw.view(torch.bfloat16).float().view(codes.shape)
        field = Field(torch.from_numpy(codes), bits, scale, zero)
        out[site.name] = (field, residual, scheme, site)
    assert at == memory.size
    return out


def values(entry, tap: RoundingTap) -> Carry:
    """The float32 state an entry of `held` stands for."""
    if isinstance(entry, Carry):
        return entry
    field, residual, scheme, site = entry
    if field.scale is None:
        scale, zero = tap.scales[site.name]
        kept = scale if scheme.scales is not Scales.S16 else scale.half()
        field = Field(field.codes, field.bits, kept, None if zero is None else zero.to(torch.int32))
    state = decode({"": field}, scheme, site)
    return Carry(torch.view_as_real(state) if state.is_complex() else state, residual)


def batched(memory: Carry, step: int) -> Carry:
    """One sequence's, as a batch after so many steps."""
    residual = None if memory.residual is None else memory.residual[None]
    return Carry(memory.state[None], residual, step)


def same(want: Carry, got: Carry) -> None:
    """Equal to the bit, residuals too."""
    torch.testing.assert_close(got.state, want.state, rtol=0, atol=0)
    if want.residual is not None:
        torch.testing.assert_close(got.residual, want.residual, rtol=0, atol=0)


def same_states(
    case: Packed, registers: dict, before: np.ndarray, after: np.ndarray, b: int, t: int
) -> None:
    """The bytes after step t of sequence b of a model of one layer are what the reference makes of
    those before and the inputs that the registers (batch, size) held, to the bit."""
    model, tap = case.model, case.tap.at(b)
    old, new = (held(memory, model, case.plan) for memory in (before, after))

    def register(name):
        return torch.as_tensor(registers[name])[b]

    def site(part):
        return model.sites[f"layers.0.{part}"]

    def weight(part):
        return tap(site(part), model.weights[site(part).name])

    def memory(part, states):
        return batched(values(states[site(part).name], tap), t)

    bias = weight("conv.bias") if "layers.0.conv.bias" in model.sites else None
    _, window = causal_conv(
        register("conv_in")[None, None], weight("conv"), bias, tap.storage(site("conv_state")),
        memory("conv_state", old),
    )  # fmt: skip
    same(window, memory("conv_state", new))
    storage, first = tap.storage(site("state")), memory("state", old)
    dt = register("dt")[None, None]
    if hasattr(model.config, "dt_rank"):
        x, B, C = (register(n)[None, None] for n in ("x", "B", "C"))
        _, kept = selective_scan(
            x, dt, weight("A"), B, C, tap.storage(site("decay")), storage, first
        )
    else:
        config = model.config
        x, B, C = model.parted(register("convolved")[None, None])
        _, kept = head_scan(x, dt, weight("A"), B, C, None, storage, first)
        torch.testing.assert_close(
            register("decay"), exponential(register("dt") * weight("A")), rtol=0, atol=0
        )
        assert config.heads == len(register("dt"))
    same(kept, memory("state", new))


def same_complex_state(
    case: Packed, u: torch.Tensor, before: np.ndarray, after: np.ndarray, b: int, t: int
) -> None:
    """The same of an S4D of one layer, given what its recurrence read, u (heads,)."""
    model, tap = case.model, case.tap.at(b)
    site = model.sites["layers.0.state"]
    old, new = (values(held(m, model, case.plan)[site.name], tap) for m in (before, after))
    A, B, C = (tap(model.sites[f"layers.0.{n}"], model.weights[f"layers.0.{n}"]) for n in "ABC")
    storage, first = tap.storage(site), batched(old, t)
    _, want = diagonal_scan(u[None, None], A, B, C, storage, first)
    same(want, batched(new, t + 1))


def same_modes(
    case: Packed, v: torch.Tensor, before: np.ndarray, after: np.ndarray, b: int, t: int
) -> None:
    """The same of an S5 of one layer, given what drove its recurrence, v (2 heads n,)."""
    model, tap = case.model, case.tap.at(b)
    site = model.sites["layers.0.state"]
    old, new = (values(held(m, model, case.plan)[site.name], tap) for m in (before, after))
    A = tap(model.sites["layers.0.A"], model.weights["layers.0.A"])
    _, want = modal_scan(v[None, None], A, tap.storage(site), batched(old, t))
    same(want, batched(new, t + 1))


def in_memory(shape: tuple[int, int], text: str, seed: int = 0):
    """A random matrix, packed: weights, table of tensors, and the numbers it stands for."""
    scheme, site = parse(text), Site("w", Part.HEAD, Kind.WEIGHT, shape, (Axis.OUT, Axis.IN))
    return packed_matrix(vector(*shape, seed=seed), site, scheme)


def packed_matrix(x, site: Site, scheme: Scheme):
    fields = encode(x, scheme, site)
    plan = {} if scheme == EXACT else {site.name: scheme}
    tensors = packed_fields(site, fields, layout({site.name: site}, plan))
    weights = PackedWeights.of(tensors, {site.name: site}, plan)
    table = np.zeros((1, FIELDS), np.int64)
    table[0] = describe.packed(site, weights)
    return weights, table, decode(fields, scheme, site)


def whole_numbers(weights: PackedWeights, name: str) -> tuple[torch.Tensor, torch.Tensor, int]:
    """A packed matrix as codes less zero points, scales (rows, groups) and the size of a group."""
    site, scheme = weights.sites[name], weights.plan[name]
    rows, columns = site.shape
    entries = layout({name: site}, weights.plan)
    fields = {
        end: weights.tensors[f"{name}.{end}"].clone().view(entry.dtype).view(entry.stored_shape)
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
