"""S4D's streaming step (see `models.s4d`)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sensprobe.models.lowering import frame
from sensprobe.models.lowering.builder import Builder
from sensprobe.models.s4d import kernels

if TYPE_CHECKING:
    from sensprobe_kernels.program.ir import Register

    from sensprobe.models.s4d import S4DConfig


def lower(b: Builder, config: S4DConfig) -> Register:
    return frame.lower(b, config, lambda at, v: _mixer(b, at, v, config))


def _mixer(b: Builder, at: str, v: Register, config: S4DConfig) -> Register:
    h = config.d_model
    x, y = b.passes(at + "x", v), b.register("y", h)
    heads = kernels(config, int(at.split(".")[1]))
    if heads is None:
        b.diagonal(at, x, y)
    else:
        driven = b.pick(x, b.register("driven", len(heads)), heads)
        read = b.diagonal(at, driven, b.register("read", len(heads)))
        places = {head: k for k, head in enumerate(heads)}
        b.pick(read, y, [places.get(head, -1) for head in range(h)])
    b.passes(at + "y", b.skip(at + "D", y, x))
    b.passes(at + "out_proj_in", b.activation(config.activation, y))
    wide = b.linear(at + "out_proj", y, b.register("wide", 2 * h))
    b.passes(at + "out_proj_out", wide)
    return b.half_glu(wide, b.register("mixed", h))
