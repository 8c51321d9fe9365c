"""A model under a plan -> the program of its streaming step."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import prod

import numpy as np
from numpy.typing import NDArray
from sensprobe_kernels.program import tables as op
from sensprobe_kernels.program.cpu import Program, Register

from sensprobe.errors import UnsupportedError
from sensprobe.models import Model, output_head
from sensprobe.models.mamba import MambaConfig
from sensprobe.models.mamba2 import Mamba2Config
from sensprobe.models.mamba2_layers import Mamba2
from sensprobe.models.mamba_layers import Mamba
from sensprobe.models.s4d import S4DConfig
from sensprobe.models.s4d_layers import S4D
from sensprobe.numerics.taps import StaticScale
from sensprobe.packed import describe, states
from sensprobe.packed.arena import Arena
from sensprobe.packed.builder import Builder
from sensprobe.plans.scheme import EXACT

NORM_EPS = 1e-5
"""Of S4D's layer norms, PyTorch's own."""
LOWEST, HIGHEST = float(np.finfo(np.float32).min), float(np.finfo(np.float32).max)


@dataclass(frozen=True)
class Compiled:
    """A program, the register of its outputs, a sequence's state at rest, and values it pools.

    `registers` by name; those of one layer are the next one's too, and hold its values after.
    States are in memory after every `chunk` steps. Where that is not every step, `no_steps` says
    why no single one runs: whole sequences do, chunk by chunk, on a GPU.
    """

    program: Program
    outputs: Register
    fresh: NDArray[np.uint8]
    pooled: int
    registers: Mapping[str, Register]
    chunk: int
    no_steps: str


def compiled(model: Model, arena: Arena, scales: Mapping[str, StaticScale], batch: int) -> Compiled:
    """The program of `batch` sequences, to be finished where it is run; UnsupportedError names a
    site no kernel has a way for."""
    build = Builder(model, arena, scales, Program(arena.data, batch))
    if isinstance(model, S4D):
        outputs, pooled = _s4d(build, model.config)
    elif isinstance(model, Mamba | Mamba2):
        outputs, pooled = _framed(build, model)
    else:
        raise UnsupportedError(f"no streaming kernel for models of family {model.family}")
    assert not build.untaken, f"numbers that may not be written are read: {list(build.untaken)}"
    registers = {name: register for (name, _), register in build.registers.items()}
    fresh = np.concatenate([np.zeros(0, np.uint8), *build.fresh])
    return Compiled(
        build.program, outputs, fresh, pooled, registers, build.chunk, build.no_steps
    )  # fmt: skip


# -- around the mixers ----------------------------------------------------------------------------


def _framed(b: Builder, model: Mamba | Mamba2) -> tuple[Register, int]:
    config = model.config
    h, u = config.d_model, b.register("u", config.d_model)
    if config.encoder == "embedding":
        b.program.add(op.EMBED, b.tensor("embedding"), u.at, u.pitch)
    else:
        _encoded(b, config.d_input, u)
    for i in range(config.layers):
        at, v = f"layers.{i}.", b.register("v", h)
        v = _norm(b, at, u, v) if config.norm == "pre" else b.copy(u, v)
        if isinstance(config, MambaConfig):
            out = _mamba(b, at, v, config)
        else:
            out = _mamba2(b, at, v, config)
        u = b.add(u, out, u) if config.residual else b.copy(out, u)
        if config.norm == "post":
            u = _norm(b, at, u, u)
        b.passes(at + "out", u)
    if config.final_norm:
        u = _norm(b, "final.", u, u)
    if config.pooling == "mean":
        b.program.add(op.MEAN, u.at, u.at, u.pitch, u.size)
    return _head(b, u), h if config.pooling == "mean" else 0


def _encoded(b: Builder, d_input: int, u: Register) -> None:
    x = b.register("input", d_input)
    b.program.add(op.INPUT, x.at, x.pitch, x.size)
    b.linear("encoder", b.passes("input", x), u)


def _norm(b: Builder, at: str, u: Register, to: Register) -> Register:
    config = b.model.config
    normed = _rms if config.norm_kind == "rms" else _layer_norm
    return normed(b, at + "norm", config.norm_eps, u, to)


def _rms(b: Builder, name: str, eps: float, u: Register, to: Register) -> Register:
    weight = b.tensor(name, whole=True)
    b.program.add(op.RMS, u.at, to.at, u.pitch, u.size, 1, b.eps(eps), weight)
    return to


def _layer_norm(b: Builder, name: str, eps: float, u: Register, to: Register) -> Register:
    b.program.decodes(2 * u.pitch)
    weight, bias = b.tensor(name, whole=True), b.tensor(f"{name}.bias", whole=True)
    b.program.add(op.LAYER_NORM, u.at, to.at, u.pitch, u.size, b.eps(eps), weight, bias)
    return to


HEAD_FUNCTIONS = {"relu": op.RELU, "gelu": op.GELU, "silu": op.SILU}


def _head(b: Builder, u: Register) -> Register:
    """Outputs: a linear map to a register of its own, the layers between in place."""
    b.passes(output_head.INPUT, u)
    found = output_head.layers(b.model.config)
    for layer in found:
        if layer.kind == "linear":
            if layer.reads != output_head.INPUT:
                b.passes(layer.reads, u)
            to = b.register("outputs" if layer is found[-1] else layer.at, layer.outputs)
            u = b.linear(layer.weight, u, to, bias=layer.bias)
        elif layer.kind in HEAD_FUNCTIONS:
            b.program.add(HEAD_FUNCTIONS[layer.kind], u.at, u.at, u.pitch)
        else:
            normed = _rms if layer.kind == "rms norm" else _layer_norm
            normed(b, layer.weight, layer.eps, u, u)
    return u


def _convolved(b: Builder, at: str, x: Register, to: Register) -> Register:
    """SiLU of the convolution."""
    state = b.state(at + "conv_state")
    weight, bias = b.tensor(at + "conv", whole=True), b.tensor(at + "conv.bias", whole=True)
    b.program.decodes(prod(b.site(at + "conv").shape) + x.pitch)
    b.program.add(op.CONVOLVE, weight, bias, x.at, to.at, to.pitch, state)
    b.program.add(op.SILU, to.at, to.at, to.pitch)
    return to


def _softplus(b: Builder, x: Register, low: float = LOWEST, high: float = HIGHEST) -> Register:
    first = b.program.constants(low, high)
    b.program.add(op.SOFTPLUS, x.at, x.at, x.pitch, first, first + 1)
    return x


# -- mixers ---------------------------------------------------------------------------------------


def _mamba(b: Builder, at: str, v: Register, config: MambaConfig) -> Register:
    d, n, r = config.d_inner, config.d_state, config.dt_rank
    b.passes(at + "in_proj_in", v)
    z = b.passes(at + "z", b.linear(at + "in_proj.z", v, b.register("z", d)))
    x = b.passes(at + "conv_in", b.linear(at + "in_proj.x", v, b.register("conv_in", d)))
    x = b.passes(at + "x", _convolved(b, at, x, b.register("x", d)), scanned=True)
    low = b.linear(at + "x_proj.dt", x, b.register("low", r))
    B = b.linear(at + "x_proj.B", x, b.register("B", n))
    C = b.linear(at + "x_proj.C", x, b.register("C", n))
    if config.inner_norm:
        eps = b.eps(config.inner_norm_eps)
        for u in (low, B, C):
            b.program.add(op.RMS, u.at, u.at, u.pitch, u.size, 1, eps, -1)
    dt = b.linear(at + "dt_proj", b.passes(at + "dt_proj_in", low), b.register("dt", d))
    b.passes(at + "dt", _softplus(b, dt))
    b.passes(at + "B", B, scanned=True)
    b.passes(at + "C", C, scanned=True)
    y, A = b.register("y", d), b.tensor(at + "A", whole=True)
    state, decay = b.state(at + "state"), _decay(b, at + "decay")
    b.program.add(
        op.CHANNELS, x.at, dt.at, A, B.at, C.at, y.at, y.pitch, B.pitch, state, decay,
        b.operands(at + "x", at + "B", at + "C"),
    )  # fmt: skip
    D = b.tensor(at + "D", whole=True)
    b.program.add(op.SKIP, y.at, x.at, y.at, y.pitch, D, 1, d, x.pitch)
    b.passes(at + "y", y)
    b.program.add(op.GATE, y.at, z.at, y.at, y.pitch)
    b.passes(at + "out_proj_in", y)
    return b.linear(at + "out_proj", y, b.register("mixed", config.d_model))


def _decay(b: Builder, name: str) -> int:
    """The store of Mamba's decays, which a kernel rounds inside the recurrence."""
    scheme = b.arena.plan.get(name)
    if scheme is None:
        return describe.exact(b.program)
    return states.inside(b.program, b.site(name), scheme, b.scales.get(name), b.arena)


def _mamba2(b: Builder, at: str, v: Register, config: Mamba2Config) -> Register:
    d, h, p = config.d_inner, config.heads, config.d_head
    shared = config.groups * config.d_state
    b.passes(at + "in_proj_in", v)
    z = b.passes(at + "z", b.linear(at + "in_proj.z", v, b.register("z", d)))
    together = b.register("conv_in", config.d_window)
    first = {"x": 0, "B": d, "C": d + shared}
    for name, column in first.items():
        b.linear(f"{at}in_proj.{name}", v, together.part(column, config.rows[name]))
    b.passes(at + "conv_in", together)
    dt = b.linear(at + "in_proj.dt", v, b.register("dt", h))
    mixed = _convolved(b, at, together, b.register("convolved", config.d_window))
    scanned = not _chunked(b, at)
    x, B, C = (
        b.passes(at + name, mixed.part(column, config.rows[name]), scanned=scanned)
        for name, column in first.items()
    )
    b.program.add(op.BIAS, b.tensor(at + "dt.bias", whole=True), dt.at, dt.pitch, h)
    b.passes(at + "dt", _softplus(b, dt, config.dt_min, config.dt_max))
    y = _heads(b, at, (x, dt, B, C), config)
    D = b.tensor(at + "D", whole=True)
    span, count = (1, d) if config.D_per_channel else (p, h)
    b.program.add(op.SKIP, y.at, x.at, y.at, y.pitch, D, span, count, x.pitch)
    b.passes(at + "y", y)
    b.program.add(op.GATE, y.at, z.at, y.at, y.pitch)
    if config.gated_norm:
        eps, weight = b.eps(config.norm_eps), b.tensor(at + "gated_norm", whole=True)
        b.program.add(op.RMS, y.at, y.at, y.pitch, d, config.groups, eps, weight)
    b.passes(at + "out_proj_in", y)
    return b.linear(at + "out_proj", y, b.register("mixed", config.d_model))


def _heads(b: Builder, at: str, reads: tuple[Register, ...], config: Mamba2Config) -> Register:
    """The recurrence: step by step, or in chunks where decays are exact and the state is stored
    at their ends only."""
    (x, dt, B, C), name = reads, at + "state"
    y, A = b.register("y", config.d_inner), b.tensor(at + "A", whole=True)
    if _chunked(b, at):
        every = b.arena.plan[name].every
        state = b.state(name, heads=config.heads, groups=config.groups, every=every)
        b.program.add(
            op.CHUNKS, x.at, x.pitch, dt.at, dt.pitch, A, B.at, C.at, y.at, y.pitch, state, every
        )  # fmt: skip
        return y
    decay = b.register("decay", config.heads)
    b.program.add(op.DECAY, dt.at, dt.pitch, A, decay.at, decay.pitch)
    b.passes(at + "decay", decay)
    state = b.state(name, heads=config.heads, groups=config.groups)
    b.program.add(
        op.HEADS, x.at, x.pitch, dt.at, decay.at, dt.pitch, B.at, C.at, y.at, y.pitch, state,
        b.operands(at + "x", at + "B", at + "C"),
    )  # fmt: skip
    return y


def _chunked(b: Builder, at: str) -> bool:
    """Whether a layer's state is in memory at the ends of chunks only, whose decays are exact."""
    plan = b.arena.plan
    return plan.get(at + "state", EXACT).every > 1 and at + "decay" not in plan


# -- S4D ------------------------------------------------------------------------------------------


def _s4d(b: Builder, config: S4DConfig) -> tuple[Register, int]:
    h, u = config.d_model, b.register("u", config.d_model)
    _encoded(b, config.d_input, u)
    for i in range(config.layers):
        at, v = f"layers.{i}.", b.register("v", h)
        v = _layer_norm(b, at + "norm", NORM_EPS, u, v) if config.norm == "pre" else b.copy(u, v)
        out = _s4d_mixed(b, at, b.passes(at + "x", v), config)
        u = b.add(u, out, u) if config.residual else b.copy(out, u)
        if config.norm == "post":
            u = _layer_norm(b, at + "norm", NORM_EPS, u, u)
        b.passes(at + "out", u)
    if config.pooling == "mean":
        b.program.add(op.MEAN, u.at, u.at, u.pitch, u.size)
    return _head(b, u), h if config.pooling == "mean" else 0


def _s4d_mixed(b: Builder, at: str, x: Register, config: S4DConfig) -> Register:
    h, y = config.d_model, b.register("y", config.d_model)
    A, B, C = (b.tensor(at + part, whole=True) for part in "ABC")
    b.program.decodes(3 * b.site(at + "A").reals)
    state = b.complex_state(at + "state")
    b.program.add(op.DIAGONAL, x.at, y.at, y.pitch, A, B, C, state)
    D = b.tensor(at + "D", whole=True)
    b.program.add(op.SKIP, y.at, x.at, y.at, y.pitch, D, 1, h, x.pitch)
    b.passes(at + "y", y)
    b.program.add(op.GELU if config.activation == "gelu" else op.RAMP, y.at, y.at, y.pitch)
    b.passes(at + "out_proj_in", y)
    wide = b.linear(at + "out_proj", y, b.register("wide", 2 * h))
    b.passes(at + "out_proj_out", wide)
    out = b.register("mixed", h)
    b.program.add(op.HALF_GLU, wide.at, wide.pitch, out.at, out.pitch, h)
    return out
