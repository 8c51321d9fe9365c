"""The forward pass of S4D, and its weights as a deployment keeps them (see `s4d`)."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor

from sensprobe import ops
from sensprobe.errors import UnsupportedError
from sensprobe.models import forward, frame, s4d
from sensprobe.models.discretize import discretize
from sensprobe.models.forward import At, Carries
from sensprobe.models.framed import Framed, Recurrence, columns
from sensprobe.models.initial import drawn, log_steps
from sensprobe.models.s4d import S4DConfig
from sensprobe.numerics.arithmetic import exp, joined, magnitude
from sensprobe.numerics.storage import Carry, Storage
from sensprobe.numerics.taps import EXACT, Tap, single
from sensprobe.ops.convolution import fft_conv, ssm_kernel, traced_conv

MODES = ("recurrent", "fft", "traced")
_BY_PAIR = ("log_A_real", "A_imag", "A", "B", "C")
"""The parameters that have numbers for every complex pair."""


def deploy(params: Mapping[str, Tensor], config: S4DConfig) -> dict[str, Tensor]:
    """Trained parameters (own checkpoint names) -> weights by site name, in params' precision.

    Differentiable, so that training runs the deployed forward.
    """
    weights = frame.frame_weights(params, config)
    for i in range(config.layers):
        at = f"layers.{i}."
        B = B_bar = torch.view_as_complex(params[at + "B"])
        if config.discretization == "none":
            A_bar = torch.view_as_complex(params[at + "A"])
        else:
            A = joined((-exp(params[at + "log_A_real"]), params[at + "A_imag"]))
            A_bar, B_bar = discretize(A, B, exp(params[at + "log_dt"]), config.discretization)
        weights |= {
            at + "A": A_bar,
            at + "B": B_bar,
            at + "C": torch.view_as_complex(params[at + "C"]),
            at + "D": params[at + "D"],
            at + "out_proj": params[at + "out_proj.weight"],
            at + "out_proj.bias": params[at + "out_proj.bias"],
        }
    return weights


def discretized(
    params: Mapping[str, Tensor], config: S4DConfig
) -> tuple[dict[str, Tensor], S4DConfig]:
    """The parameters and the config of the same model with A_bar and B_bar as parameters, to
    float32's rounding."""
    weights = deploy({name: p.double() for name, p in params.items()}, config)
    found = replace(config, discretization="none")

    def one(name: str) -> Tensor:
        if name.rpartition(".")[2] in ("A", "B"):
            return torch.view_as_real(weights[name]).float()
        return params[name]

    return {name: one(name) for name in s4d.parameter_shapes(found)}, found


def shares(product: Tensor, config: S4DConfig) -> Tensor:
    """Numbers of the shape of C (h, n, 2), added up to one for each pair: (h, n)."""
    return product.sum(-1)


def kept(
    params: Mapping[str, Tensor], config: S4DConfig, chosen: Sequence[Tensor]
) -> tuple[dict[str, Tensor], S4DConfig]:
    """The parameters and the config of the model with the pairs of every head that are chosen."""
    found = replace(config, d_state=chosen[0].shape[1])

    def one(name: str, p: Tensor) -> Tensor:
        if not name.startswith("layers.") or name.rpartition(".")[2] not in _BY_PAIR:
            return p
        rows = chosen[int(name.split(".")[1])]
        return p.gather(1, rows if p.ndim == 2 else rows[..., None].expand(-1, -1, 2))

    return {name: one(name, p) for name, p in params.items()}, found


def kept_kernels(
    params: Mapping[str, Tensor], config: S4DConfig, chosen: Sequence[Tensor]
) -> tuple[dict[str, Tensor], S4DConfig]:
    """The parameters and the config of the model with the kernels of every layer that are chosen,
    by their rows."""
    texts = []
    for i, rows in enumerate(chosen):
        heads = s4d.kernels(config, i) or range(config.d_model)
        some = len(rows) < config.d_model
        texts.append(" ".join(str(heads[k]) for k in rows.tolist()) if some else s4d.ALL)
    found = replace(config, kernels=", ".join(texts) if set(texts) != {s4d.ALL} else s4d.ALL)

    def one(name: str, p: Tensor) -> Tensor:
        layer = s4d.kernel_layer(name)
        return p if layer is None else p[chosen[layer]]

    return {name: one(name, p) for name, p in params.items()}, found


def unread(values: Mapping[str, Tensor], config: S4DConfig, layer: int) -> Tensor:
    """What out_proj reads (b, l, h) without any kernel of a layer: the activation of D x."""
    return _activated(values[f"layers.{layer}.D"] * values[f"layers.{layer}.x"], config)


def initial(config: S4DConfig, dt: tuple[float, float], seed: int) -> dict[str, Tensor]:
    """The parameters that training starts from, S4D-Lin (arXiv 2206.11893): A_n = -1/2 + i pi n,
    B = 1, C complex normal of variance 1, D normal, and log dt uniform between dt's ends."""
    if config.discretization == "none":
        continuous = replace(config, discretization="zoh")
        return discretized(initial(continuous, dt, seed), continuous)[0]

    def own(name: str, shape: tuple[int, ...], generator: torch.Generator) -> Tensor | None:
        match name.rpartition(".")[2]:
            case "log_dt":
                return log_steps(shape, dt, generator)
            case "log_A_real":
                return torch.full(shape, math.log(0.5))
            case "A_imag":
                return (math.pi * torch.arange(shape[1])).repeat(shape[0], 1)
            case "B":
                return torch.stack([torch.ones(shape[:2]), torch.zeros(shape[:2])], dim=-1)
            case "C":
                return torch.randn(shape, generator=generator) * math.sqrt(0.5)
            case "D":
                return torch.randn(shape, generator=generator)
        return None

    return drawn(s4d.parameter_shapes(config), own, seed)


def earlier_weights(
    weights: Mapping[str, Tensor], params: Mapping[str, Tensor], config: S4DConfig
) -> dict[str, Tensor]:
    """A model's weights with A and B as they were once computed, by the machine's own exp and
    complex division."""
    out = dict(weights)
    if config.discretization == "none":
        return out
    for i in range(config.layers):
        at = f"layers.{i}."
        A = torch.complex(
            -torch.exp(params[at + "log_A_real"].double()), params[at + "A_imag"].double()
        )
        B = torch.view_as_complex(params[at + "B"].double())
        dt = torch.exp(params[at + "log_dt"].double())
        scaled = A * dt[:, None]
        if config.discretization == "zoh":
            out[at + "A"] = torch.exp(scaled)
            out[at + "B"] = (out[at + "A"] - 1) / A * B
        else:
            out[at + "A"] = (1 + scaled / 2) / (1 - scaled / 2)
            out[at + "B"] = dt[:, None] * B / (1 - scaled / 2)
    return out


def _spread(y: Tensor, heads: tuple[int, ...] | None, x: Tensor) -> Tensor:
    """y (b, l, k) in the columns of its heads, of as many as x (b, l, h) has; 0 in the others."""
    if heads is None:
        return y
    return torch.zeros_like(x).index_copy(-1, torch.tensor(heads, device=x.device), y)


def _activated(y: Tensor, config: S4DConfig) -> Tensor:
    return F.gelu(y) if config.activation == "gelu" else y * (y + 2).clamp(0, 1)


@dataclass(frozen=True)
class S4D(Framed):
    """An S4D model: config, and weights by site name (float64 / complex128 as loaded).

    `mode` says how the recurrence is computed (see `__call__`).
    """

    config: S4DConfig
    weights: Mapping[str, Tensor]
    mode: str = "recurrent"

    described = s4d.FAMILY
    radius_name = "max|A|"
    radius_reads = ("A",)

    @property
    def recurrences(self) -> list[Recurrence]:
        """The diagonal recurrence behind each state."""
        names = ("state", "A", "B", "C", "x", "y")
        return [
            Recurrence(*(f"layers.{i}.{name}" for name in names), heads=s4d.kernels(self.config, i))
            for i in range(self.config.layers)
        ]

    def __call__(self, x: Tensor, tap: Tap = EXACT, mode: str = "recurrent") -> Tensor:
        """x (b, l, d_input) float32 -> outputs (b, d_output).

        mode "recurrent" is the truth; "fft" convolves, and raises UnsupportedError when the plan
        rounds a state; "traced" convolves in plain operations, for torch.func's transforms.
        """
        if mode not in MODES:
            raise ValueError(f"mode {mode!r} is not one of {', '.join(MODES)}")
        return forward.outputs(replace(self, mode=mode), x, tap)

    def mix(self, i: int, u: Tensor, tap: Tap, carries: Carries) -> tuple[Tensor, Carries]:
        at = At(self, tap, f"layers.{i}.")
        x = at.passes("x", u)  # (b, l, h)
        A, B, C, D = (at(part) for part in "ABCD")
        storage = at.storage("state")
        if storage is not None and self.mode != "recurrent":
            raise UnsupportedError(
                f"the convolution keeps no state, and this plan rounds {at.prefix}state. "
                "Use mode='recurrent'."
            )
        heads = s4d.kernels(self.config, i)
        y, state = self.recur(columns(x, heads), A, B, C, storage, carries[0])
        y = at.passes("y", _spread(y, heads, x) + D * x)
        y = at.linear("out_proj", at.passes("out_proj_in", _activated(y, self.config)))
        return F.glu(at.passes("out_proj_out", y), dim=-1), (state,)

    def recur(
        self, x: Tensor, A: Tensor, B: Tensor, C: Tensor, storage: Storage, carry: Carry | None
    ) -> tuple[Tensor, Carry | None]:
        """The recurrence over x (b, l, h): y, and the state after it (None of a convolution)."""
        if self.mode == "recurrent":
            return ops.diagonal_scan(x, A, B, C, storage, carry)
        if self.mode == "fft":
            return fft_conv(x, ssm_kernel(A, B, C, x.shape[1])), None
        return traced_conv(x, A, B, C), None

    def layer_radius(self, i: int, tap: Tap = EXACT) -> float:
        """max |A_bar| of a layer as the tap leaves it. Above 1 the recurrence is unstable."""
        A = At(self, tap, f"layers.{i}.")("A")
        return magnitude(single(A).to(torch.complex128)).max().item()
