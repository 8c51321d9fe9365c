"""The forward pass of Mamba-2, and its weights as a deployment keeps them (see `mamba2`)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor

from sensprobe import ops
from sensprobe.models import forward, frame, mamba2, selective
from sensprobe.models.forward import At, Carries
from sensprobe.models.mamba2 import Mamba2Config
from sensprobe.models.selective import Scan, Selective
from sensprobe.numerics.arithmetic import exp, softplus
from sensprobe.numerics.taps import EXACT, Tap
from sensprobe.ops.head_chunks import head_chunks


def deploy(params: Mapping[str, Tensor], config: Mamba2Config) -> dict[str, Tensor]:
    """Trained parameters -> weights by site name: A = -exp(A_log) in float64, the rest as given."""
    weights, rows = frame.frame_weights(params, config), config.rows
    for i in range(config.layers):
        at = f"layers.{i}."
        for kind, end in (("weight", ""), ("bias", ".bias")):
            if (whole := params.get(f"{at}in_proj.{kind}")) is not None:
                pieces = whole.split(list(rows.values()))
                weights |= {
                    f"{at}in_proj.{name}{end}": piece
                    for name, piece in zip(rows, pieces, strict=True)
                }
            if (out := params.get(f"{at}out_proj.{kind}")) is not None:
                weights[f"{at}out_proj{end}"] = out
        D = params[at + "D"]
        weights |= {
            at + "conv": params[at + "conv.weight"].squeeze(1),
            at + "dt.bias": params[at + "dt_bias"],
            at + "A": -exp(params[at + "A_log"].double()),
            at + "D": D.view(config.heads, config.d_head) if config.D_per_channel else D,
        }
        if config.conv_bias:
            weights[at + "conv.bias"] = params[at + "conv.bias"]
        if config.gated_norm:
            weights[at + "gated_norm"] = params[at + "gated_norm.weight"]
    return weights


LARGEST_A = 16.0


def initial(config: Mamba2Config, dt: tuple[float, float], seed: int) -> dict[str, Tensor]:
    """The parameters that training starts from; A is -U(1, 16) in every head."""

    def log_A(shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
        return torch.log(1 + torch.rand(shape, generator=generator) * (LARGEST_A - 1))

    return selective.initial(mamba2.parameter_shapes(config), config.layers, dt, log_A, seed)


@dataclass(frozen=True)
class Mamba2(Selective):
    """A Mamba-2 model. `scan` takes the place of the fastest recurrence there is."""

    config: Mamba2Config
    weights: Mapping[str, Tensor]
    scan: Scan | None = None

    described = mamba2.FAMILY
    radius_reads = ("A", "dt.bias")
    convolved = ("x", "B", "C")

    @property
    def recurrence(self) -> Scan:
        return self.scan or ops.head_scan

    def parted(self, v: Tensor) -> tuple[Tensor, ...]:
        """x (b, l, h, p), B and C (b, l, g, n)."""
        config = self.config
        x, B, C = v.split([config.rows[name] for name in self.convolved], dim=-1)
        shared = (config.groups, config.d_state)
        inner = (config.heads, config.d_head)
        return x.unflatten(-1, inner), B.unflatten(-1, shared), C.unflatten(-1, shared)

    def dt_at_rest(self, at: At) -> Tensor:
        dt = softplus(at("dt.bias").double())
        return dt.clamp(self.config.dt_min, self.config.dt_max)

    def __call__(self, x: Tensor, tap: Tap = EXACT, mode: str = "recurrent") -> Tensor:
        """x (b, l, d_input) float32, or tokens (b, l) -> outputs (b, d_output).

        Outputs are (b, l, d_output) where nothing is pooled. mode "recurrent" is the truth;
        "chunked" multiplies matrices and is an UnsupportedError unless decays are exact and states
        stay exact inside a chunk (see `ops.head_chunks`).
        """
        if mode == "chunked":
            return forward.outputs(replace(self, scan=head_chunks), x, tap)
        forward.require_recurrent(mode, "recurrent, chunked")
        return forward.outputs(self, x, tap)

    def mix(self, i: int, u: Tensor, tap: Tap, carries: Carries) -> tuple[Tensor, Carries]:
        at, config = At(self, tap, f"layers.{i}."), self.config
        u = at.passes("in_proj_in", u)
        projected = {name: at.linear(f"in_proj.{name}", u) for name in config.rows}
        z = at.passes("z", projected["z"].unflatten(-1, (config.heads, config.d_head)))
        together = torch.cat([projected[name] for name in self.convolved], dim=-1)
        v, window = self.convolve(at, at.passes("conv_in", together), carries[0])
        x, B, C = (at.passes(name, part) for name, part in zip(self.convolved, v, strict=True))
        dt = F.softplus(projected["dt"] + at("dt.bias")).clamp(config.dt_min, config.dt_max)
        y, state = self.recur(at, x, at.passes("dt", dt), B, C, carries[1])
        D = at("D") if config.D_per_channel else at("D")[:, None]
        y = at.passes("y", y + D * x) * F.silu(z)
        y = at.passes("out_proj_in", self._gated_norm(at, y.flatten(2)))
        return at.linear("out_proj", y), (window, state)

    def _gated_norm(self, at: At, y: Tensor) -> Tensor:
        """An RMS norm within each group of channels: y (b, l, d), gated already."""
        if not self.config.gated_norm:
            return y
        grouped = forward.rms(y.unflatten(-1, (self.config.groups, -1)), self.config.norm_eps)
        return grouped.flatten(2) * at("gated_norm")
