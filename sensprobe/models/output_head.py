"""The head: what makes outputs of the features after pooling. One linear map, or several layers.

    head = "linear"                                          W u + b, as most models have it
    head = ["linear 64", "relu", "dropout", "linear"]        nn.Sequential(Linear, ReLU, …)

Layers are written as texts, in a list or with commas between, and a config keeps the latter:

    linear N, linear      a map to N values; the last one is to d_output. "linear 64 without bias"
    relu, gelu, silu      GELU is the exact one, x (1 + erf(x / √2)) / 2
    layer norm, rms norm  their eps is 1e-5 unless it follows: "layer norm 1e-6"
    dropout, identity     without effect; they count, as they do in nn.Sequential

Parameters are numbered as nn.Sequential numbers its members: `head.0.weight`, `head.3.bias`. The
sites of layer k are `head.k` and `head.k.bias` where it is a linear map, which reads `head.k_in`,
and `head.k.norm` and `head.k.norm.bias` where it is a norm. The first map reads `head_in` where
nothing but dropout stands before it. A head of a single "linear" has no numbers: `head.weight`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any

from sensprobe.errors import UsageError
from sensprobe.plans.sites import Axis, Kind, Part, Site

if TYPE_CHECKING:
    from torch import Tensor

DEFAULT = "linear"
INPUT = "head_in"
LAYERS = '"linear 64", "relu", "gelu", "silu", "layer norm", "rms norm", "dropout" and "identity"'
NORMS = ("layer norm", "rms norm")
MOST = 64
"""Layers a head may have."""
_NUMBER = r"\d{1,9}"
_LINEAR = re.compile(rf"linear( {_NUMBER})?( without bias)?")
_NORM = re.compile(r"(layer norm|rms norm)( \d{1,9}(?:\.\d{1,20})?(?:e-?\d{1,2})?)?")
_IDLE = re.compile(r"(dropout|identity)( \d?(?:\.\d{1,20})?)?")
FUNCTIONS = ("relu", "gelu", "silu")


@dataclass(frozen=True, slots=True)
class Layer:
    """One layer that does something. `kind` is linear, a norm or a function, as it is written.

    `at` begins the names of its parameters; `weight` and `bias` are its sites, "" where there is
    none, and `reads` the activation a linear map multiplies.
    """

    kind: str
    at: str
    inputs: int
    outputs: int
    weight: str = ""
    bias: str = ""
    reads: str = ""
    eps: float = 0.0


def normalise(config: Any) -> None:
    """Give a config's `head` the one form that it is kept in; what is no text stays as it is."""
    given = config.head
    if isinstance(given, list | tuple) and all(isinstance(text, str) for text in given):
        given = ", ".join(given)
    if not isinstance(given, str):
        return
    texts = [" ".join(text.lower().split()) for text in given.split(",")]
    texts = [found[1] if (found := _IDLE.fullmatch(text)) else text for text in texts]
    if texts[-1] == f"linear {config.d_output}":
        texts[-1] = DEFAULT
    object.__setattr__(config, "head", ", ".join(texts))


def layers(config: Any) -> tuple[Layer, ...]:
    """The layers of a config's head, in order; UsageError for what is none."""
    has_bias, tied = getattr(config, "head_bias", True), getattr(config, "tied_head", False)
    return _layers(config.head, config.d_model, config.d_output, has_bias, tied)


@cache
def _layers(head: str, size: int, d_output: int, has_bias: bool, tied: bool) -> tuple[Layer, ...]:
    texts = head.split(", ")
    if len(texts) > MOST:
        raise UsageError(f"head has {len(texts)} layers; at most {MOST} are read.")
    if tied and head != DEFAULT:
        raise UsageError(
            f'head is "{head}", and a tied head is one linear map: leave out tied_head or head.'
        )
    out: list[Layer] = []
    for k, text in enumerate(texts):
        at = "head" if head == DEFAULT else f"head.{k}"
        if _IDLE.fullmatch(text):
            continue
        if found := _LINEAR.fullmatch(text):
            rows = int(found[1]) if found[1] else d_output if k == _last(texts) else 0
            _check_rows(rows, text, k == _last(texts), d_output)
            bias = f"{at}.bias" if has_bias and not found[2] else ""
            reads = f"{at}_in" if out else INPUT
            weight = "embedding" if tied else at
            out.append(Layer("linear", at, size, rows, weight, bias, reads))
            size = rows
        elif found := _NORM.fullmatch(text):
            weight, bias = f"{at}.norm", f"{at}.norm.bias" if found[1] == "layer norm" else ""
            eps = float(found[2] or 1e-5)
            out.append(Layer(found[1], at, size, size, weight, bias, eps=eps))
        elif text in FUNCTIONS:
            out.append(Layer(text, at, size, size))
        else:
            raise UsageError(f'head: "{text[:40]}" is no layer of a head; known are {LAYERS}.')
    if not out or out[-1].kind != "linear":
        raise UsageError(f'head must end in "linear", which gives outputs; it is "{head[:80]}".')
    return tuple(out)


def _last(texts: list[str]) -> int:
    """The index of the last linear map."""
    return max(k for k, text in enumerate(texts) if _LINEAR.fullmatch(text))


def _check_rows(rows: int, text: str, last: bool, d_output: int) -> None:
    if rows < 1:
        raise UsageError(
            f'head: "{text}" must say to how many values it maps, as "linear 64" does; the last '
            "linear map alone needs no number."
        )
    if last and rows != d_output:
        raise UsageError(f'head ends in "{text}", and d_output is {d_output}.')


# -- what a family says of it ---------------------------------------------------------------------


def sites(config: Any) -> list[Site]:
    """Its sites, in the order the forward pass meets them; a tied weight is none of its own."""
    W, ACT, CHANNEL = Kind.WEIGHT, Kind.ACTIVATION, (Axis.CHANNEL,)
    out = [Site(INPUT, Part.HEAD_IN, ACT, (config.d_model,), CHANNEL)]
    for layer in layers(config):
        if layer.kind == "linear":
            if layer.reads != INPUT:
                out.append(Site(layer.reads, Part.HEAD_IN, ACT, (layer.inputs,), CHANNEL))
            if layer.weight == layer.at:
                shape = (layer.outputs, layer.inputs)
                out.append(Site(layer.weight, Part.HEAD, W, shape, (Axis.OUT, Axis.IN)))
        elif layer.weight:
            out.append(Site(layer.weight, Part.NORM, W, (layer.inputs,), CHANNEL))
        if layer.bias:
            out.append(Site(layer.bias, Part.BIAS, W, (layer.outputs,), CHANNEL))
    return out


def products(config: Any) -> list[tuple[str, str | None, int]]:
    """(weight, what it multiplies, multiplications) of its linear maps."""
    maps = (layer for layer in layers(config) if layer.kind == "linear")
    return [(layer.weight, layer.reads, layer.outputs * layer.inputs) for layer in maps]


def _parameters(config: Any) -> list[tuple[str, str, tuple[int, ...]]]:
    """(parameter, the site it is, its shape)."""
    out: list[tuple[str, str, tuple[int, ...]]] = []
    for layer in layers(config):
        if layer.weight and layer.weight != "embedding":
            linear = layer.kind == "linear"
            shape = (layer.outputs, layer.inputs) if linear else (layer.inputs,)
            out.append((f"{layer.at}.weight", layer.weight, shape))
        if layer.bias:
            out.append((f"{layer.at}.bias", layer.bias, (layer.outputs,)))
    return out


def parameter_shapes(config: Any) -> dict[str, tuple[int, ...]]:
    """Name and shape of its trained parameters."""
    return {name: shape for name, _, shape in _parameters(config)}


def weights(params: Mapping[str, Tensor], config: Any) -> dict[str, Tensor]:
    """Its weights by site name, from a model's parameters."""
    return {site: params[name] for name, site, _ in _parameters(config)}
