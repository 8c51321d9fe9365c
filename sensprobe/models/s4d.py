"""S4D: diagonal state space layers (Gu et al. 2022, arXiv 2206.11893), as a deployment runs them.

    encoder -> [norm] -> SSM -> GELU -> out_proj -> GLU -> [+ residual] -> [norm] -> … -> head

Weights are kept as the hardware keeps them, under the names of their sites: A is the discretised
A_bar = exp(dt A), B is B_bar = (A_bar - 1) / A · B (zero-order hold), so dt is not a weight here.
The recurrence is the truth; the convolution (`mode="fft"`) is the same function while the state is
exact, and refuses any other.

Shapes: b batch, l length, h heads (d_model), n complex pairs a head (d_state).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from functools import cache, cached_property
from typing import ClassVar, Never, get_type_hints

import torch
import torch.nn.functional as F
from torch import Tensor

from sensprobe import ops
from sensprobe.errors import DataError, UnsupportedError, UsageError
from sensprobe.models import output_head
from sensprobe.numerics.arithmetic import complex_exp, exp, joined, magnitude, over, pair, times
from sensprobe.numerics.storage import Carry, Storage, fresh
from sensprobe.numerics.taps import EXACT, RoundingTap, Tap, single
from sensprobe.ops.convolution import fft_conv, ssm_kernel, traced_conv
from sensprobe.plans.sites import Axis, Kind, Part, Site

FAMILY = "s4d"
CHOICES = {
    "norm": ("none", "pre", "post"),
    "activation": ("gelu", "qgelu"),
    "pooling": ("mean", "last"),
    "discretization": ("zoh", "bilinear"),
}
MODES = ("recurrent", "fft", "traced")


@dataclass(frozen=True, slots=True)
class S4DConfig:
    """Sizes and choices of an S4D classifier. `d_state` counts complex pairs a head."""

    d_input: int
    d_output: int
    d_model: int
    d_state: int
    layers: int = 1
    norm: str = "none"  # none | pre | post (LayerNorm before the SSM, or after the residual)
    residual: bool = True
    activation: str = "gelu"  # gelu | qgelu (x · min(max(0, x + 2), 1), arXiv 2506.12480)
    pooling: str = "mean"  # mean | last
    discretization: str = "zoh"  # zoh | bilinear
    head: str = output_head.DEFAULT  # its layers, see `output_head`

    # What other families choose of the frame, and this one does not.
    encoder: ClassVar[str] = "linear"
    norm_kind: ClassVar[str] = "layer"
    norm_eps: ClassVar[float] = 1e-5  # PyTorch's own
    final_norm: ClassVar[bool] = False
    head_bias: ClassVar[bool] = True
    tied_head: ClassVar[bool] = False

    def __post_init__(self) -> None:
        output_head.normalise(self)
        kinds = get_type_hints(S4DConfig)
        for name in (field.name for field in fields(self)):
            kind, value = kinds[name], getattr(self, name)
            if type(value) is not kind:
                raise UsageError(f"{name} is {value!r}, not {kind.__name__}.")
            if kind is int and value < 1:
                raise UsageError(f"{name} must be at least 1, not {value}.")
            if value not in (known := CHOICES.get(name, (value,))):
                listed = f"{', '.join(known[:-1])} or {known[-1]}"
                raise UsageError(f"{name} must be {listed}, not {value!r}.")
        output_head.layers(self)


@cache
def sites(config: S4DConfig) -> dict[str, Site]:
    """Every site of the model, in the order the forward pass meets them."""
    h, n, W, ACT = config.d_model, config.d_state, Kind.WEIGHT, Kind.ACTIVATION
    out = [
        Site("input", Part.INPUT, ACT, (config.d_input,), (Axis.CHANNEL,)),
        Site("encoder", Part.ENCODER, W, (h, config.d_input), (Axis.OUT, Axis.IN)),
        Site("encoder.bias", Part.BIAS, W, (h,), (Axis.CHANNEL,)),
    ]
    ssm = ((h, n), (Axis.HEAD, Axis.N), True)
    for i in range(config.layers):
        at = f"layers.{i}."
        norm = [
            Site(at + "norm", Part.NORM, W, (h,), (Axis.CHANNEL,)),
            Site(at + "norm.bias", Part.BIAS, W, (h,), (Axis.CHANNEL,)),
        ]
        out += norm if config.norm == "pre" else []
        out += [
            Site(at + "x", Part.X, ACT, (h,), (Axis.HEAD,)),
            Site(at + "A", Part.A, W, *ssm),
            Site(at + "B", Part.B, W, *ssm),
            Site(at + "state", Part.STATE, Kind.STATE, *ssm),
            Site(at + "C", Part.C, W, *ssm),
            Site(at + "D", Part.D, W, (h,), (Axis.HEAD,)),
            Site(at + "y", Part.Y, ACT, (h,), (Axis.HEAD,)),
            Site(at + "out_proj_in", Part.OUT_PROJ_IN, ACT, (h,), (Axis.CHANNEL,)),
            Site(at + "out_proj", Part.OUT_PROJ, W, (2 * h, h), (Axis.OUT, Axis.IN)),
            Site(at + "out_proj.bias", Part.BIAS, W, (2 * h,), (Axis.CHANNEL,)),
            Site(at + "out_proj_out", Part.OUT_PROJ_OUT, ACT, (2 * h,), (Axis.CHANNEL,)),
        ]
        out += norm if config.norm == "post" else []
        out += [Site(at + "out", Part.OUT, ACT, (h,), (Axis.CHANNEL,))]
    return {site.name: site for site in out + output_head.sites(config)}


def products(config: S4DConfig) -> list[tuple[str, str | None, int]]:
    """(weight, what it multiplies, multiplications a time step)."""
    h, n = config.d_model, config.d_state
    out: list[tuple[str, str | None, int]] = [("encoder", "input", h * config.d_input)]
    for i in range(config.layers):
        at = f"layers.{i}."
        out += [
            (at + "A", at + "state", 4 * h * n),
            (at + "B", at + "x", 2 * h * n),
            (at + "C", at + "state", 2 * h * n),
            (at + "D", at + "x", h),
            (at + "out_proj", at + "out_proj_in", 2 * h * h),
        ]
    return [*out, *output_head.products(config)]


def discretize(A: Tensor, B: Tensor, dt: Tensor, method: str) -> tuple[Tensor, Tensor]:
    """A_bar, B_bar of one layer. A, B: (h, n) complex; dt: (h,), positive.

    zoh: A_bar = exp(dt A), B_bar = (A_bar - 1) / A · B. bilinear: A_bar = (1 + dt A / 2) /
    (1 - dt A / 2), B_bar = dt B / (1 - dt A / 2). Computed in the arithmetic of `arithmetic`, so
    that every machine stores the same bits.
    """
    a, b, step = pair(A), pair(B), dt[:, None]
    scaled = (a[0] * step, a[1] * step)
    if method == "zoh":
        A_bar = complex_exp(scaled)
        return joined(A_bar), joined(times(over((A_bar[0] - 1, A_bar[1]), a), b))
    half = (scaled[0] / 2, scaled[1] / 2)
    below = (1 - half[0], -half[1])
    A_bar = over((1 + half[0], half[1]), below)
    return joined(A_bar), joined(over((step * b[0], step * b[1]), below))


def deploy(params: Mapping[str, Tensor], config: S4DConfig) -> dict[str, Tensor]:
    """Trained parameters (own checkpoint names) -> weights by site name, in params' precision.

    Differentiable, so that training runs the deployed forward.
    """
    weights = {
        "encoder": params["encoder.weight"],
        "encoder.bias": params["encoder.bias"],
        **output_head.weights(params, config),
    }
    for i in range(config.layers):
        at = f"layers.{i}."
        A = joined((-exp(params[at + "log_A_real"]), params[at + "A_imag"]))
        B = torch.view_as_complex(params[at + "B"])
        A_bar, B_bar = discretize(A, B, exp(params[at + "log_dt"]), config.discretization)
        weights |= {
            at + "A": A_bar,
            at + "B": B_bar,
            at + "C": torch.view_as_complex(params[at + "C"]),
            at + "D": params[at + "D"],
            at + "out_proj": params[at + "out_proj.weight"],
            at + "out_proj.bias": params[at + "out_proj.bias"],
        }
        if config.norm != "none":
            weights |= {
                at + "norm": params[at + "norm.weight"],
                at + "norm.bias": params[at + "norm.bias"],
            }
    return weights


@dataclass(frozen=True, slots=True)
class Recurrence:
    """The sites around one state: h_t = A h_{t-1} + B x_t, y_t = 2 Re(C h_t) + …"""

    state: str
    A: str
    B: str
    C: str
    x: str
    y: str


@dataclass(frozen=True, slots=True)
class StreamState:
    """What `step` carries: one memory a layer, the sum of the outputs to pool, and steps taken."""

    memories: tuple[Carry, ...]
    pooled: Tensor
    steps: int


@dataclass(frozen=True)
class S4D:
    """An S4D model: config, and weights by site name (float64 / complex128 as loaded)."""

    config: S4DConfig
    weights: Mapping[str, Tensor]
    family = FAMILY
    radius_name = "max|A|"
    radius_reads = ("A",)
    """The sites of a layer that `spectral_radius` is computed from."""

    @cached_property
    def sites(self) -> dict[str, Site]:
        return sites(self.config)

    @property
    def products(self) -> list[tuple[str, str | None, int]]:
        return products(self.config)

    @property
    def recurrences(self) -> list[Recurrence]:
        """The diagonal recurrence behind each state."""
        names = ("state", "A", "B", "C", "x", "y")
        return [
            Recurrence(*(f"layers.{i}.{name}" for name in names)) for i in range(self.config.layers)
        ]

    @property
    def replays(self) -> list[Never]:
        """Operations to run again: none, recurrences say it all."""
        return []

    @property
    def reads_tokens(self) -> bool:
        return False

    def __call__(self, x: Tensor, tap: Tap = EXACT, mode: str = "recurrent") -> Tensor:
        """x (b, l, d_input) float32 -> outputs (b, d_output).

        mode "recurrent" is the truth; "fft" convolves, and raises UnsupportedError when the plan
        rounds a state; "traced" convolves in plain operations, for torch.func's transforms.
        """
        if mode not in MODES:
            raise ValueError(f"mode {mode!r} is not one of {', '.join(MODES)}")
        u = self._encode(x, tap)
        for i in range(self.config.layers):
            v = self._norm(i, u, tap) if self.config.norm == "pre" else u
            v = self._mix(i, self._ssm(i, v, tap, mode), tap)
            u = self._join(i, u, v, tap)
        pooled = u.mean(1) if self.config.pooling == "mean" else u[:, -1]
        return self._head(pooled, tap)

    def _at(self, tap: Tap, name: str) -> Tensor:
        return tap(self.sites[name], self.weights[name])

    def _encode(self, x: Tensor, tap: Tap) -> Tensor:
        x = tap(self.sites["input"], x)
        return F.linear(x, self._at(tap, "encoder"), self._at(tap, "encoder.bias"))

    def _norm(self, i: int, u: Tensor, tap: Tap) -> Tensor:
        weight, bias = (self._at(tap, f"layers.{i}.norm{end}") for end in ("", ".bias"))
        return F.layer_norm(u, (self.config.d_model,), weight, bias)

    def _ssm(self, i: int, v: Tensor, tap: Tap, mode: str) -> Tensor:
        at = f"layers.{i}."
        x = tap(self.sites[at + "x"], v)  # (b, l, h)
        A, B, C, D = (self._at(tap, at + part) for part in "ABCD")
        storage = tap.storage(self.sites[at + "state"])
        if mode == "recurrent":
            y, _ = ops.diagonal_scan(x, A, B, C, storage)
        elif storage is not None:
            raise UnsupportedError(
                f"the convolution keeps no state, and this plan rounds {at}state. "
                "Use mode='recurrent'."
            )
        elif mode == "fft":
            y = fft_conv(x, ssm_kernel(A, B, C, x.shape[1]))
        else:
            y = traced_conv(x, A, B, C)
        return tap(self.sites[at + "y"], y + D * x)

    def _mix(self, i: int, y: Tensor, tap: Tap) -> Tensor:
        at = f"layers.{i}."
        v = F.gelu(y) if self.config.activation == "gelu" else y * (y + 2).clamp(0, 1)
        v = tap(self.sites[at + "out_proj_in"], v)
        v = F.linear(v, self._at(tap, at + "out_proj"), self._at(tap, at + "out_proj.bias"))
        return F.glu(tap(self.sites[at + "out_proj_out"], v), dim=-1)

    def _join(self, i: int, u: Tensor, v: Tensor, tap: Tap) -> Tensor:
        u = u + v if self.config.residual else v
        if self.config.norm == "post":
            u = self._norm(i, u, tap)
        return tap(self.sites[f"layers.{i}.out"], u)

    def _head(self, pooled: Tensor, tap: Tap) -> Tensor:
        return output_head.run(
            self.config,
            pooled,
            lambda name: self._at(tap, name),
            lambda name, u: tap(self.sites[name], u),
        )

    def start(self, batch: int, tap: Tap = EXACT) -> StreamState:
        """The state before the first step."""
        shape = (self.config.d_model, self.config.d_state, 2)
        memories = (
            fresh(batch, shape, tap.storage(self.sites[f"layers.{i}.state"]))
            for i in range(self.config.layers)
        )
        return StreamState(tuple(memories), torch.zeros(batch, self.config.d_model), 0)

    def step(self, x: Tensor, state: StreamState, tap: Tap = EXACT) -> tuple[Tensor, StreamState]:
        """One time step: x (b, d_input) -> outputs as if the sequence ended here, the new state."""
        self._check_state(state, len(x))
        tap = tap.after(state.steps) if isinstance(tap, RoundingTap) else tap
        u, memories = self._encode(x[:, None], tap), []  # (b, 1, h): a sequence of one step
        for i in range(self.config.layers):
            at = f"layers.{i}."
            v = self._norm(i, u, tap) if self.config.norm == "pre" else u
            v = tap(self.sites[at + "x"], v)
            A, B, C, D = (self._at(tap, at + part) for part in "ABCD")
            storage = tap.storage(self.sites[at + "state"])
            y, memory = self.recur(v, A, B, C, storage, state.memories[i])
            memories.append(memory)
            y = tap(self.sites[at + "y"], y + D * v)
            u = self._join(i, u, self._mix(i, y, tap), tap)
        steps, last = state.steps + 1, u[:, 0]
        pooled = state.pooled + last if self.config.pooling == "mean" else last
        mean = pooled / steps if self.config.pooling == "mean" else pooled
        return self._head(mean, tap), StreamState(tuple(memories), pooled, steps)

    def recur(
        self, v: Tensor, A: Tensor, B: Tensor, C: Tensor, storage: Storage, memory: Carry
    ) -> tuple[Tensor, Carry]:
        """The recurrence over the step of v (b, 1, h): y, and the state after it."""
        return ops.diagonal_scan(v, A, B, C, storage, memory)

    def _check_state(self, state: object, batch: int) -> None:
        """DataError unless the state is one of `batch` sequences of this model."""
        shape = (batch, self.config.d_model, self.config.d_state, 2)
        fits = (
            isinstance(state, StreamState)
            and state.pooled.shape == shape[:2]
            and [m.state.shape for m in state.memories] == [shape] * self.config.layers
        )
        if not fits:
            raise DataError(
                f"the state is not one of {batch} sequence(s) of this model, which x holds a step "
                f"of; make one with start({batch})."
            )

    def spectral_radius(self, tap: Tap = EXACT) -> float:
        """max |A_bar| as the tap leaves it: above 1 the recurrence is unstable."""
        stored = (self._at(tap, f"layers.{i}.A") for i in range(self.config.layers))
        return max(magnitude(single(A).to(torch.complex128)).max().item() for A in stored)
