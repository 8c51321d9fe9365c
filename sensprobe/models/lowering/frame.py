"""The streaming step around the mixers: encoder, norms, residual, pooling and head."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from sensprobe.models import output_head
from sensprobe.models.lowering.builder import Builder

if TYPE_CHECKING:
    from sensprobe_kernels.program.ir import Register


def lower(b: Builder, config: Any, mixer: Callable[[str, Register], Register]) -> Register:
    """The whole step. `mixer(at, v)` writes a layer's mixer, whose sites begin with `at`."""
    h, u = config.d_model, b.register("u", config.d_model)
    if config.encoder == "embedding":
        b.embed("embedding", u)
    else:
        b.linear("encoder", b.passes("input", b.input(config.d_input)), u)
    for i in range(config.layers):
        at, v = f"layers.{i}.", b.register("v", h)
        v = _norm(b, at, u, v, config) if config.norm == "pre" else b.copy(u, v)
        out = mixer(at, v)
        u = b.add(u, out, u) if config.residual else b.copy(out, u)
        if config.norm == "post":
            u = _norm(b, at, u, u, config)
        b.passes(at + "out", u)
    if config.final_norm:
        u = _norm(b, "final.", u, u, config)
    if config.pooling == "mean":
        b.mean(u)
    return _head(b, u, config)


def _norm(b: Builder, at: str, u: Register, to: Register, config: Any) -> Register:
    if config.norm_kind == "affine":
        return b.affine(u, to, at + "norm")
    if config.norm_kind == "layer-product":
        return b.layer_product(u, to, config.norm_eps, at)
    normed = b.rms if config.norm_kind == "rms" else b.layer_norm
    return normed(u, to, config.norm_eps, at + "norm")


def _head(b: Builder, u: Register, config: Any) -> Register:
    """A linear map to a register of its own, layers between linear maps in place."""
    b.passes(output_head.INPUT, u)
    found = output_head.layers(config)
    for layer in found:
        if layer.kind == "linear":
            if layer.reads != output_head.INPUT:
                b.passes(layer.reads, u)
            to = b.register("outputs" if layer is found[-1] else layer.at, layer.outputs)
            u = b.linear(layer.weight, u, to, bias=layer.bias)
        elif layer.kind == "rms norm":
            b.rms(u, u, layer.eps, layer.weight)
        elif layer.kind == "layer norm":
            b.layer_norm(u, u, layer.eps, layer.weight)
        else:
            b.activation(layer.kind, u)
    return u
