"""S5's streaming step (see `models.s5`)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sensprobe.errors import UnsupportedError
from sensprobe.models.lowering import frame
from sensprobe.models.lowering.builder import Builder

if TYPE_CHECKING:
    from sensprobe_kernels.program.ir import Register

    from sensprobe.models.s5 import S5Config


def lower(b: Builder, config: S5Config) -> Register:
    if config.bidirectional:
        raise UnsupportedError(
            "a bidirectional model reads a sequence from both ends, so there is no streaming step "
            "of it. Give it whole sequences."
        )
    return frame.lower(b, config, lambda at, v: _mixer(b, at, v, config))


def _mixer(b: Builder, at: str, v: Register, config: S5Config) -> Register:
    h, n, gate = config.d_model, config.d_state, config.gate
    x = b.passes(at + "x", v)
    drive = b.linear(at + "B", x, b.register("drive", 2 * n))
    states = b.modes(at, drive, b.register("modes", 2 * n))
    y = b.linear(at + "C", states, b.register("y", h))
    b.passes(at + "y", b.skip(at + "D", y, x))
    wide = b.register("wide", 2 * h)
    if gate == "half2":
        b.copy(y, wide.part(0, h))
    g = b.activation(config.activation, y)
    g = b.passes(at + "out_proj_in", g, shared=gate == "half1")
    if gate == "none":
        return g
    if gate == "half1":
        b.copy(g, wide.part(0, h))
    half = wide if gate == "full" else wide.part(h, h)
    b.passes(at + "out_proj_out", b.linear(at + "out_proj", g, half))
    glu = b.hard_glu if config.sigmoid == "hard" else b.half_glu
    return glu(wide, b.register("mixed", h))
