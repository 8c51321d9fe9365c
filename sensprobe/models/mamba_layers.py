"""The forward pass of Mamba, and its weights as a deployment keeps them (see `mamba`)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from sensprobe import ops
from sensprobe.models import forward, frame, mamba, selective
from sensprobe.models.forward import At, Carries
from sensprobe.models.mamba import MambaConfig
from sensprobe.models.selective import Scan, Selective
from sensprobe.numerics.arithmetic import exp, softplus
from sensprobe.numerics.taps import Tap


def deploy(params: Mapping[str, Tensor], config: MambaConfig) -> dict[str, Tensor]:
    """Trained parameters -> weights by site name: A = -exp(A_log) in float64, the rest as given."""
    weights, d, n = frame.frame_weights(params, config), config.d_inner, config.d_state
    for i in range(config.layers):
        at = f"layers.{i}."
        for kind, end in (("weight", ""), ("bias", ".bias")):
            if (whole := params.get(f"{at}in_proj.{kind}")) is not None:
                x, z = whole.split([d, d])
                weights |= {f"{at}in_proj.x{end}": x, f"{at}in_proj.z{end}": z}
            if (out := params.get(f"{at}out_proj.{kind}")) is not None:
                weights[f"{at}out_proj{end}"] = out
        dt, B, C = params[at + "x_proj.weight"].split([config.dt_rank, n, n])
        weights |= {
            at + "conv": params[at + "conv.weight"].squeeze(1),
            at + "x_proj.dt": dt,
            at + "x_proj.B": B,
            at + "x_proj.C": C,
            at + "dt_proj": params[at + "dt_proj.weight"],
            at + "dt_proj.bias": params[at + "dt_proj.bias"],
            at + "A": -exp(params[at + "A_log"].double()),
            at + "D": params[at + "D"],
        }
        if config.conv_bias:
            weights[at + "conv.bias"] = params[at + "conv.bias"]
    return weights


def initial(config: MambaConfig, dt: tuple[float, float], seed: int) -> dict[str, Tensor]:
    """The parameters that training starts from; A is -(1 … n) in every channel."""

    def log_A(shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
        return torch.log(torch.arange(1, config.d_state + 1)).repeat(shape[0], 1)

    return selective.initial(mamba.parameter_shapes(config), config.layers, dt, log_A, seed)


@dataclass(frozen=True)
class Mamba(Selective):
    """A Mamba model."""

    config: MambaConfig
    weights: Mapping[str, Tensor]

    described = mamba.FAMILY
    radius_reads = ("A", "dt_proj.bias")
    convolved = ("x",)

    @property
    def recurrence(self) -> Scan:
        return ops.selective_scan

    def parted(self, v: Tensor) -> tuple[Tensor, ...]:
        return (v,)

    def dt_at_rest(self, at: At) -> Tensor:
        return softplus(at("dt_proj.bias").double())[:, None]

    def mix(self, i: int, u: Tensor, tap: Tap, carries: Carries) -> tuple[Tensor, Carries]:
        at, config = At(self, tap, f"layers.{i}."), self.config
        u = at.passes("in_proj_in", u)
        z = at.passes("z", at.linear("in_proj.z", u))  # (b, l, d)
        x = at.passes("conv_in", at.linear("in_proj.x", u))
        (x,), window = self.convolve(at, x, carries[0])
        x = at.passes("x", x)
        low, B, C = (at.linear(f"x_proj.{part}", x) for part in ("dt", "B", "C"))
        if config.inner_norm:
            low, B, C = (forward.rms(v, config.inner_norm_eps) for v in (low, B, C))
        dt = at.passes("dt", F.softplus(at.linear("dt_proj", at.passes("dt_proj_in", low))))
        B, C = at.passes("B", B), at.passes("C", C)  # (b, l, n)
        y, state = self.recur(at, x, dt, B, C, carries[1])
        y = at.passes("y", y + at("D") * x)
        y = at.passes("out_proj_in", y * F.silu(z))
        return at.linear("out_proj", y), (window, state)
