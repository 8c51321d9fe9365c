"""Mamba-2's streaming step (see `models.mamba2`)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sensprobe.models.lowering import frame
from sensprobe.models.lowering.builder import Builder

if TYPE_CHECKING:
    from sensprobe_kernels.program.ir import Register

    from sensprobe.models.mamba2 import Mamba2Config


def lower(b: Builder, config: Mamba2Config) -> Register:
    return frame.lower(b, config, lambda at, v: _mixer(b, at, v, config))


def _mixer(b: Builder, at: str, v: Register, config: Mamba2Config) -> Register:
    d, shared = config.d_inner, config.groups * config.d_state
    b.passes(at + "in_proj_in", v)
    z = b.passes(at + "z", b.linear(at + "in_proj.z", v, b.register("z", d)))
    together = b.register("conv_in", config.d_window)
    first = {"x": 0, "B": d, "C": d + shared}
    for name, column in first.items():
        b.linear(f"{at}in_proj.{name}", v, together.part(column, config.rows[name]))
    b.passes(at + "conv_in", together)
    dt = b.linear(at + "in_proj.dt", v, b.register("dt", config.heads))
    to = b.register("convolved", config.d_window)
    mixed = b.activation("silu", b.convolve(at + "conv", at + "conv_state", together, to))
    scanned = not b.in_chunks(at)
    x, B, C = (
        b.passes(at + name, mixed.part(column, config.rows[name]), scanned=scanned)
        for name, column in first.items()
    )
    b.add_bias(at + "dt.bias", dt)
    b.passes(at + "dt", b.softplus(dt, config.dt_min, config.dt_max))
    y = _recurrence(b, at, x, dt, B, C, config)
    b.passes(at + "y", b.skip(at + "D", y, x))
    b.gate(y, z)
    if config.gated_norm:
        b.rms(y, y, config.norm_eps, at + "gated_norm", config.groups)
    b.passes(at + "out_proj_in", y)
    return b.linear(at + "out_proj", y, b.register("mixed", config.d_model))


def _recurrence(
    b: Builder, at: str, x: Register, dt: Register, B: Register, C: Register, config: Mamba2Config
) -> Register:
    """Step by step, or in chunks where the plan allows it."""
    y, shape = b.register("y", config.d_inner), {"heads": config.heads, "groups": config.groups}
    if b.in_chunks(at):
        return b.chunks(at, x, dt, B, C, y, **shape)
    decay = b.decay(at + "A", dt, b.register("decay", config.heads))
    b.passes(at + "decay", decay)
    return b.heads(at, x, dt, decay, B, C, y, **shape)
