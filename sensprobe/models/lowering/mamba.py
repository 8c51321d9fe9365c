"""Mamba's streaming step (see `models.mamba`)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sensprobe.models.lowering import frame
from sensprobe.models.lowering.builder import Builder

if TYPE_CHECKING:
    from sensprobe_kernels.program.ir import Register

    from sensprobe.models.mamba import MambaConfig


def lower(b: Builder, config: MambaConfig) -> Register:
    return frame.lower(b, config, lambda at, v: _mixer(b, at, v, config))


def _mixer(b: Builder, at: str, v: Register, config: MambaConfig) -> Register:
    d, n, r = config.d_inner, config.d_state, config.dt_rank
    b.passes(at + "in_proj_in", v)
    z = b.passes(at + "z", b.linear(at + "in_proj.z", v, b.register("z", d)))
    x = b.passes(at + "conv_in", b.linear(at + "in_proj.x", v, b.register("conv_in", d)))
    x = b.convolve(at + "conv", at + "conv_state", x, b.register("x", d))
    x = b.passes(at + "x", b.activation("silu", x), scanned=True)
    low = b.linear(at + "x_proj.dt", x, b.register("low", r))
    B = b.linear(at + "x_proj.B", x, b.register("B", n))
    C = b.linear(at + "x_proj.C", x, b.register("C", n))
    if config.inner_norm:
        for u in (low, B, C):
            b.rms(u, u, config.inner_norm_eps)
    dt = b.linear(at + "dt_proj", b.passes(at + "dt_proj_in", low), b.register("dt", d))
    b.passes(at + "dt", b.softplus(dt))
    b.passes(at + "B", B, scanned=True)
    b.passes(at + "C", C, scanned=True)
    y = b.channels(at, x, dt, B, C, b.register("y", d))
    b.passes(at + "y", b.skip(at + "D", y, x))
    b.passes(at + "out_proj_in", b.gate(y, z))
    return b.linear(at + "out_proj", y, b.register("mixed", config.d_model))
