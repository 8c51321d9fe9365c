"""The parts around the mixers, the same in every family: encoder, norms, residual, pooling, head.

    encoder | embedding -> { [norm] -> mixer -> [+ residual] -> [norm] } … -> [norm] -> pool -> head

Here are its sizes, sites and parameters; `forward` runs it.

Weights have two sets of names. *Parameters* are what checkpoints hold, whole: `in_proj.weight`.
*Sites* are what a plan addresses: `in_proj.x`, `in_proj.z`. A family's `deploy` makes one of the
other. A tied head has no weight of its own: it multiplies by the embedding, which is stored once.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any, get_type_hints

from sensprobe.errors import UsageError
from sensprobe.models import output_head
from sensprobe.plans.sites import Axis, Kind, Part, Site

if TYPE_CHECKING:
    from torch import Tensor

CHOICES = {
    "encoder": ("linear", "embedding"),
    "norm": ("none", "pre", "post"),
    "norm_kind": ("rms", "layer", "affine", "layer-product"),
    "pooling": ("mean", "last", "none"),
}
FIRST_FIELDS = (
    "d_input d_output d_model layers encoder norm norm_kind norm_eps final_norm residual pooling "
    "head_bias tied_head"
)
"""The fields of the frame when names of models were made of their text (see `family.Earlier`)."""
Shapes = dict[str, tuple[int, ...]]
Products = list[tuple[str, str | None, int]]


@dataclass(frozen=True, slots=True, kw_only=True)
class FrameConfig:
    """Sizes and choices around the mixers. `pooling` "none" gives an output at every step."""

    d_input: int  # values a step; with an embedding the vocabulary
    d_output: int
    d_model: int
    layers: int = 1
    encoder: str = "linear"  # linear | embedding
    norm: str = "pre"  # none | pre | post (before the mixer, or after the residual)
    norm_kind: str = "rms"
    # rms | layer | affine (a batch norm, its statistics folded) | layer-product (the two factors of
    # a layer norm are sites, so that a plan can round them as Q-S5 does, arXiv 2406.09477)
    norm_eps: float = 1e-5
    final_norm: bool = True  # after the last block, at every step
    residual: bool = True
    pooling: str = "mean"  # mean | last | none
    head_bias: bool = True
    tied_head: bool = False  # the head multiplies by the embedding
    head: str = output_head.DEFAULT  # its layers, see `output_head`

    def __post_init__(self) -> None:
        output_head.normalise(self)
        check(self, CHOICES)
        output_head.layers(self)
        if self.tied_head and (self.encoder, self.d_output) != ("embedding", self.d_input):
            raise UsageError(
                f"tied_head needs an embedding of as many rows as there are outputs; the encoder "
                f"is {self.encoder}, with d_input {self.d_input} and d_output {self.d_output}."
            )


def check(config: Any, choices: Mapping[str, tuple[str, ...]]) -> None:
    """UsageError for a field of another type, below 1, not positive, or not among its choices."""
    kinds = get_type_hints(type(config))
    for name in (field.name for field in fields(config)):
        kind, value = kinds[name], getattr(config, name)
        if type(value) is not kind:
            raise UsageError(f"{name} is {value!r}, not {kind.__name__}.")
        if kind is int and value < 1:
            raise UsageError(f"{name} must be at least 1, not {value}.")
        if kind is float and not 0 <= value < float("inf"):
            raise UsageError(f"{name} must be a number from 0 upward, not {value}.")
        if value not in (known := choices.get(name, (value,))):
            listed = f"{', '.join(known[:-1])} or {known[-1]}"
            raise UsageError(f"{name} must be {listed}, not {value!r}.")


def require_window(d_conv: int) -> None:
    """UsageError for a convolution without a past: it has no state."""
    if d_conv < 2:
        raise UsageError(f"d_conv must be at least 2, not {d_conv}: a filter of 1 keeps no state.")


# -- sites, products and parameters ---------------------------------------------------------------


def vector(name: str, part: Part, size: int, kind: Kind = Kind.WEIGHT) -> Site:
    """A site of one axis of channels."""
    return Site(name, part, kind, (size,), (Axis.CHANNEL,))


def matrix(name: str, part: Part, rows: int, columns: int) -> Site:
    """The weight of a linear map."""
    return Site(name, part, Kind.WEIGHT, (rows, columns), (Axis.OUT, Axis.IN))


def biased(site: Site, has: bool) -> list[Site]:
    """A weight and, where it has one, its bias."""
    bias = vector(f"{site.name}.bias", Part.BIAS, site.shape[0])
    return [site, bias] if has else [site]


def _norm_sites(at: str, config: Any) -> list[Site]:
    h = config.d_model
    weight, bias = vector(at + "norm", Part.NORM, h), vector(at + "norm.bias", Part.BIAS, h)
    if config.norm_kind == "rms":
        return [weight]
    if config.norm_kind == "layer-product":
        centred = vector(at + "norm_in", Part.NORM_IN, h, Kind.ACTIVATION)
        factor = vector(at + "norm_factor", Part.NORM_FACTOR, h, Kind.ACTIVATION)
        return [weight, centred, factor, bias]
    return [weight, bias]


def frame_sites(config: Any, mixer: Callable[[str], list[Site]]) -> dict[str, Site]:
    """Every site of a model, in the order the forward pass meets them.

    `mixer` gives those of the mixer whose names start with "layers.I.".
    """
    h = config.d_model
    if config.encoder == "linear":
        out = [
            vector("input", Part.INPUT, config.d_input, Kind.ACTIVATION),
            matrix("encoder", Part.ENCODER, h, config.d_input),
            vector("encoder.bias", Part.BIAS, h),
        ]
    else:
        out = [matrix("embedding", Part.EMBEDDING, config.d_input, h)]
    for i in range(config.layers):
        at = f"layers.{i}."
        out += _norm_sites(at, config) if config.norm == "pre" else []
        out += mixer(at)
        out += _norm_sites(at, config) if config.norm == "post" else []
        out.append(vector(at + "out", Part.OUT, h, Kind.ACTIVATION))
    out += _norm_sites("final.", config) if config.final_norm else []
    return {site.name: site for site in out + output_head.sites(config)}


def frame_products(config: Any, mixer: list[tuple[str, str, int]]) -> Products:
    """(what is stored, what it multiplies, multiplications a time step); `mixer` has those of one
    layer's mixer, by names without "layers.I."."""
    out: Products = []
    if config.encoder == "linear":
        out.append(("encoder", "input", config.d_model * config.d_input))
    for i in range(config.layers):
        at = f"layers.{i}."
        out += [(at + stored, at + operand, count) for stored, operand, count in mixer]
    return [*out, *output_head.products(config)]


def frame_parameters(config: Any, mixer: Mapping[str, tuple[int, ...]]) -> Shapes:
    """Name and shape of every parameter; `mixer` has those of one layer's mixer, and may say where
    among them the norm's stand (training sums gradients in this order)."""
    h = config.d_model
    norm: Shapes = {"norm.weight": (h,)}
    if config.norm_kind != "rms":
        norm["norm.bias"] = (h,)
    if config.encoder == "linear":
        shapes: Shapes = {"encoder.weight": (h, config.d_input), "encoder.bias": (h,)}
    else:
        shapes = {"embedding.weight": (config.d_input, h)}
    for i in range(config.layers):
        block = mixer if config.norm == "none" or "norm.weight" in mixer else {**norm, **mixer}
        shapes |= {f"layers.{i}.{name}": shape for name, shape in block.items()}
    shapes |= {f"final.{name}": shape for name, shape in norm.items()} if config.final_norm else {}
    return shapes | output_head.parameter_shapes(config)


def frame_weights(params: Mapping[str, Tensor], config: Any) -> dict[str, Tensor]:
    """Weights by site name of what stands around the mixers: `norm.weight` is site `norm`."""
    around = ("encoder.", "embedding.", "norm.", "final.norm.")
    weights = output_head.weights(params, config)
    for name, value in params.items():
        inner = name.split(".", 2)[2] if name.startswith("layers.") else name
        if inner.startswith(around):
            weights[name.removesuffix(".weight")] = value
    return weights
