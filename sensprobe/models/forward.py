"""Running what `frame` describes around the mixers of a family.

A family gives its mixer; the sequence and one streaming step are the same function, `run`, over
pieces of any length. Everything is float32, the residual stream included.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from sensprobe.errors import DataError, UnsupportedError
from sensprobe.models import output_head
from sensprobe.models.sited import Sited
from sensprobe.numerics.noise import NoiseTap
from sensprobe.numerics.storage import Carry, fresh
from sensprobe.numerics.taps import EXACT, RoundingTap, Tap
from sensprobe.plans.sites import Site

Carries = tuple[Carry | None, ...]
"""The carry of each state of a layer, in the order of the sites; None before the first step."""


class Mixing(Sited, Protocol):
    """The part of a model that `run` needs."""

    @property
    def states(self) -> tuple[tuple[Site, ...], ...]:
        """The state sites of every layer."""
        ...

    def mix(self, i: int, u: Tensor, tap: Tap, carries: Carries) -> tuple[Tensor, Carries]:
        """Layer i's mixer: u (b, l, d_model) -> the same shape, and its carries after it."""
        ...


@dataclass(frozen=True, slots=True)
class StreamState:
    """The state of a stream: a carry of every state site, by layer; the sum of the features to
    pool (b, d_model); and the number of steps taken."""

    carries: tuple[Carries, ...]
    pooled: Tensor
    steps: int


@dataclass(frozen=True, slots=True)
class At:
    """The tensors under one prefix, as the tap leaves them."""

    model: Mixing
    tap: Tap
    prefix: str = ""

    def __call__(self, name: str) -> Tensor:
        """A weight."""
        name = self.prefix + name
        return self.tap(self.model.sites[name], self.model.weights[name])

    def bias(self, name: str) -> Tensor | None:
        """The bias of a linear map; None where there is none."""
        return self(f"{name}.bias") if f"{self.prefix}{name}.bias" in self.model.sites else None

    def linear(self, name: str, x: Tensor) -> Tensor:
        """x times the weight of a linear map, plus its bias where it has one."""
        bias = f"{name}.bias"
        return self.product(name, bias if self.prefix + bias in self.model.sites else "", x)

    def product(self, weight: str, bias: str, x: Tensor) -> Tensor:
        """x times a weight, plus a bias where one is named; by what the tap multiplies with in the
        weight's place, where it has that."""
        products = self.tap.products if isinstance(self.tap, RoundingTap | NoiseTap) else {}
        if (multiply := products.get(self.prefix + weight)) is None:
            return F.linear(x, self(weight), self(bias) if bias else None)
        return multiply(x) + self(bias) if bias else multiply(x)

    def passes(self, name: str, x: Tensor) -> Tensor:
        """An activation."""
        return self.tap(self.model.sites[self.prefix + name], x)

    def storage(self, name: str) -> Any:
        return self.tap.storage(self.model.sites[self.prefix + name])


_FUNCTIONS: dict[str, Callable[[Tensor], Tensor]] = {"relu": F.relu, "gelu": F.gelu, "silu": F.silu}


def rms(x: Tensor, eps: float) -> Tensor:
    """x over the root of its mean square along the last axis."""
    return x * torch.rsqrt(x.square().mean(-1, keepdim=True) + eps)


def _norm(at: At, u: Tensor, config: Any) -> Tensor:
    if config.norm_kind == "rms":
        return rms(u, config.norm_eps) * at("norm")
    if config.norm_kind == "affine":
        return u * at("norm") + at("norm.bias")
    if config.norm_kind == "layer-product":
        centred = u - u.mean(-1, keepdim=True)
        factor = torch.rsqrt(centred.square().mean(-1, keepdim=True) + config.norm_eps) * at("norm")
        return at.passes("norm_in", centred) * at.passes("norm_factor", factor) + at("norm.bias")
    return F.layer_norm(u, (config.d_model,), at("norm"), at("norm.bias"), config.norm_eps)


def require_recurrent(mode: str, known: str = "recurrent, fft, traced") -> None:
    """ValueError for a mode there is not, UnsupportedError for one that convolves, in a family that
    has no convolution."""
    if mode in ("fft", "traced"):
        raise UnsupportedError(
            f"mode {mode!r} convolves, and models of this family have no convolution in place of "
            "their recurrence. Use mode='recurrent'."
        )
    if mode != "recurrent":
        raise ValueError(f"mode {mode!r} is not one of {known}")


def one_layer(
    model: Mixing, i: int, u: Tensor, tap: Tap, carries: Carries
) -> tuple[Tensor, Carries]:
    """Layer i: norms, mixer and residual; and the carries of its mixer."""
    config, inner = model.config, At(model, tap, f"layers.{i}.")
    v = _norm(inner, u, config) if config.norm == "pre" else u
    v, carry = model.mix(i, v, tap, carries)
    u = u + v if config.residual else v
    u = _norm(inner, u, config) if config.norm == "post" else u
    return inner.passes("out", u), carry


Layer = Callable[[Mixing, int, Tensor, Tap, Carries], tuple[Tensor, Carries]]
"""`one_layer`, or what computes the same."""


def outputs(model: Mixing, x: Tensor, tap: Tap, layer: Layer = one_layer) -> Tensor:
    """The outputs of `run` from the start. No carry is kept: long-lived small allocations between
    short-lived large ones would fragment the heap."""
    return run(model, x, tap, keep=False, layer=layer)[0]


def run(
    model: Mixing,
    x: Tensor,
    tap: Tap,
    state: StreamState | None = None,
    *,
    keep: bool = True,
    layer: Layer = one_layer,
) -> tuple[Tensor, StreamState]:
    """(outputs, state): x (b, l, d_input) float32, or tokens (b, l), after what `state` has seen.

    Outputs are (b, d_output), or (b, l, d_output) where nothing is pooled. Without `keep` the state
    lacks its carries.
    """
    config = model.config
    if state is None:
        state = _nothing(model, len(x))
    tap = tap.after(state.steps) if isinstance(tap, RoundingTap | NoiseTap) else tap
    u, carries = _entered(model, x, tap), []
    for i in range(config.layers):
        u, carry = layer(model, i, u, tap, state.carries[i])
        carries.append(carry if keep else (None,) * len(carry))
        del carry
    outputs, pooled = _left(model, u, tap, state)
    return outputs, StreamState(tuple(carries), pooled, state.steps + x.shape[1])


def hidden(model: Mixing, x: Tensor) -> list[Tensor]:
    """The inputs of every layer and the output of the last, in full precision: layers + 1 tensors
    of shape (b, l, d_model)."""
    found, nothing = [_entered(model, x, EXACT)], _nothing(model, len(x))
    for i, carries in enumerate(nothing.carries):
        found.append(one_layer(model, i, found[-1], EXACT, carries)[0])
    return found


def resume(model: Mixing, u: Tensor, layer: int, tap: Tap) -> Tensor:
    """`outputs` of sequences of which `layer` (the number of layers: none) reads u (b, l, d)."""
    nothing = _nothing(model, len(u))
    for i in range(layer, model.config.layers):
        u = one_layer(model, i, u, tap, nothing.carries[i])[0]
    return _left(model, u, tap, nothing)[0]


def first_layer(names: Iterable[str], config: Any) -> int | None:
    """The first layer that sites of these names have a part in; the number of layers where only
    what follows them does, None where what precedes them does."""
    found = config.layers
    for name in names:
        if name.startswith("layers."):
            found = min(found, int(name.split(".")[1]))
        elif not name.startswith(("head", "final.")):
            return None
    return found


def _entered(model: Mixing, x: Tensor, tap: Tap) -> Tensor:
    """The input of the first layer: (b, l, d_model)."""
    at = At(model, tap)
    if model.config.encoder == "linear":
        return at.linear("encoder", at.passes("input", x))
    return F.embedding(x, at("embedding"))


def _left(model: Mixing, u: Tensor, tap: Tap, state: StreamState) -> tuple[Tensor, Tensor]:
    """Outputs from what the last layer writes (b, l, d_model), and the sum of what is pooled."""
    config, at, length = model.config, At(model, tap), u.shape[1]
    u = _norm(At(model, tap, "final."), u, config) if config.final_norm else u
    pooled = state.pooled
    if config.pooling == "mean":
        pooled = pooled + u.sum(1)
        u = pooled / (state.steps + length)
    elif config.pooling == "last":
        u = u[:, -1]
    return _headed(at, u), pooled


def _headed(at: At, u: Tensor) -> Tensor:
    """Outputs (…, d_output) of the head from features u (…, d_model)."""
    u = at.passes(output_head.INPUT, u)
    for layer in output_head.layers(at.model.config):
        if layer.kind == "linear":
            u = u if layer.reads == output_head.INPUT else at.passes(layer.reads, u)
            u = at.product(layer.weight, layer.bias, u)
        elif layer.kind == "layer norm":
            u = F.layer_norm(u, (layer.inputs,), at(layer.weight), at(layer.bias), layer.eps)
        elif layer.kind == "rms norm":
            u = rms(u, layer.eps) * at(layer.weight)
        else:
            u = _FUNCTIONS[layer.kind](u)
    return u


def _shape(state: Site) -> tuple[int, ...]:
    """The shape of a state of one sequence in its carry, complex numbers as pairs."""
    return (*state.shape, 2) if state.is_complex else state.shape


def _check_state(model: Mixing, state: object, batch: int) -> None:
    """DataError unless the state is one of `batch` sequences of a model of these sizes."""
    wanted = [[(batch, *_shape(site)) for site in layer] for layer in model.states]
    fits = (
        isinstance(state, StreamState)
        and state.pooled.shape == (batch, model.config.d_model)
        and [[m.state.shape for m in layer if m] for layer in state.carries] == wanted
    )
    if not fits:
        raise DataError(
            f"the state is not one of {batch} sequence(s) of this model, which x holds a step of; "
            f"make one with start({batch})."
        )


def _nothing(model: Mixing, batch: int) -> StreamState:
    """The state before the first step, without carries."""
    carries = tuple((None,) * len(layer) for layer in model.states)
    return StreamState(carries, torch.zeros(batch, model.config.d_model), 0)


def chosen(state: StreamState, rows: Tensor) -> StreamState:
    """The state of some of its sequences, in the order of rows (n,); one may be named twice."""

    def of(carry: Carry | None) -> Carry | None:
        if carry is None:
            return None
        residual = None if carry.residual is None else carry.residual[rows]
        return Carry(carry.state[rows], residual, carry.step)

    carries = tuple(tuple(map(of, kept)) for kept in state.carries)
    return StreamState(carries, state.pooled[rows], state.steps)


def start(model: Mixing, batch: int, tap: Tap) -> StreamState:
    """The state before the first step, with carries as the tap keeps them."""
    carries = (
        tuple(fresh(batch, _shape(site), tap.storage(site)) for site in layer)
        for layer in model.states
    )
    return StreamState(tuple(carries), torch.zeros(batch, model.config.d_model), 0)


def step(model: Mixing, x: Tensor, state: StreamState, tap: Tap) -> tuple[Tensor, StreamState]:
    """One time step of `run`: x (b, d_input), or tokens (b,) -> outputs (b, d_output)."""
    _check_state(model, state, len(x))
    outputs, state = run(model, x[:, None], tap, state)
    return (outputs[:, 0] if model.config.pooling == "none" else outputs), state
