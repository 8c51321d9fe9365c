"""Mamba-2 (Dao and Gu 2024, arXiv 2405.21060): a selective recurrence a head, one decay each.

    u ─┬ in_proj.{x, B, C} ─ conv ─ SiLU ─ x, B, C ─ recurrence ─ + D x ─ y ─ · ─ norm ─ out_proj
       ├ in_proj.dt ─ + bias ─ softplus ─ dt ─┘                               │
       └ in_proj.z ─ z ──────────────────────────────────────────────── SiLU ─┘

A is continuous and negative, as memory holds it, and the decay exp(dt A) is computed at run time.
The gated norm (y SiLU(z), then an RMS norm within each group) is what mamba_ssm calls
norm_before_gate=False. A deployment that keeps the state in full between chunk ends is a state
scheme with `everyK`.

Shapes: b batch, l length, h heads of p channels (h · p = expand · d_model), g groups of heads that
share B and C, n state variables a channel. The convolution runs over x, B and C together.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cache, cached_property

import torch
import torch.nn.functional as F
from torch import Tensor

from sensprobe import ops
from sensprobe.errors import UsageError
from sensprobe.models import forward, frame
from sensprobe.models.forward import At, Memories
from sensprobe.models.frame import FrameConfig, Products, Shapes
from sensprobe.models.selective import Scan, Selective
from sensprobe.numerics.arithmetic import exp, softplus
from sensprobe.numerics.storage import Carry
from sensprobe.numerics.taps import EXACT, Tap
from sensprobe.ops.head_chunks import head_chunks
from sensprobe.plans.sites import Axis, Kind, Part, Site

FAMILY = "mamba2"
UNLIMITED = 3.4028234663852886e38
"""The largest float32: a limit on dt that limits nothing."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Mamba2Config(FrameConfig):
    """Sizes and choices of a Mamba-2 model. `d_head` is p, the channels of a head."""

    d_state: int = 128
    d_conv: int = 4
    expand: int = 2
    d_head: int = 64
    groups: int = 1
    bias: bool = False  # of in_proj and out_proj
    conv_bias: bool = True
    gated_norm: bool = True  # without it only the gate
    D_per_channel: bool = False  # D is one number a head otherwise
    dt_min: float = 0.0  # dt is clamped after softplus
    dt_max: float = UNLIMITED

    def __post_init__(self) -> None:
        FrameConfig.__post_init__(self)
        frame.require_window(self.d_conv)
        if self.d_inner % self.d_head:
            raise UsageError(
                f"d_head {self.d_head} does not divide expand · d_model = {self.d_inner}."
            )
        if self.heads % self.groups:
            raise UsageError(f"groups {self.groups} does not divide the {self.heads} heads.")
        if self.dt_min >= self.dt_max:
            raise UsageError(f"dt_min {self.dt_min} must lie below dt_max {self.dt_max}.")

    @property
    def d_inner(self) -> int:
        return self.expand * self.d_model

    @property
    def heads(self) -> int:
        return self.d_inner // self.d_head

    @property
    def rows(self) -> dict[str, int]:
        """Rows of in_proj by what they project to, in the order of the file."""
        shared = self.groups * self.d_state
        return {"z": self.d_inner, "x": self.d_inner, "B": shared, "C": shared, "dt": self.heads}

    @property
    def d_window(self) -> int:
        """Channels of the convolution: x, B and C."""
        return self.d_inner + 2 * self.groups * self.d_state


_PROJECTIONS = {
    "z": Part.IN_PROJ_Z,
    "x": Part.IN_PROJ_X,
    "B": Part.IN_PROJ_B,
    "C": Part.IN_PROJ_C,
    "dt": Part.IN_PROJ_DT,
}


@cache
def sites(config: Mamba2Config) -> dict[str, Site]:
    """Every site of the model, in the order the forward pass meets them."""
    return frame.frame_sites(config, lambda at: _mixer_sites(at, config))


def _mixer_sites(at: str, config: Mamba2Config) -> list[Site]:
    h, p, n, g = config.heads, config.d_head, config.d_state, config.groups
    d, c, k = config.d_inner, config.d_window, config.d_conv
    W, ACT, HEAD, LAGS = Kind.WEIGHT, Kind.ACTIVATION, (Axis.HEAD,), (Axis.CHANNEL, Axis.LAG)
    inner, shared = (Axis.HEAD, Axis.CHANNEL), (Axis.GROUP, Axis.N)
    skip = ((h, p), inner) if config.D_per_channel else ((h,), HEAD)
    out = [frame.vector(at + "in_proj_in", Part.IN_PROJ_IN, config.d_model, ACT)]
    for name, rows in config.rows.items():
        weight = frame.matrix(f"{at}in_proj.{name}", _PROJECTIONS[name], rows, config.d_model)
        out += frame.biased(weight, config.bias)
    out += [
        Site(at + "z", Part.Z, ACT, (h, p), inner),
        frame.vector(at + "conv_in", Part.CONV_IN, c, ACT),
        *frame.biased(Site(at + "conv", Part.CONV, W, (c, k), LAGS), config.conv_bias),
        Site(at + "conv_state", Part.CONV_STATE, Kind.STATE, (c, k - 1), LAGS),
        Site(at + "x", Part.X, ACT, (h, p), inner),
        Site(at + "dt.bias", Part.BIAS, W, (h,), HEAD),
        Site(at + "dt", Part.DT, ACT, (h,), HEAD),
        Site(at + "A", Part.A, W, (h,), HEAD),
        Site(at + "decay", Part.DECAY, ACT, (h,), HEAD),
        Site(at + "B", Part.B, ACT, (g, n), shared),
        Site(at + "state", Part.STATE, Kind.STATE, (h, p, n), (*inner, Axis.N)),
        Site(at + "C", Part.C, ACT, (g, n), shared),
        Site(at + "D", Part.D, W, *skip),
        Site(at + "y", Part.Y, ACT, (h, p), inner),
    ]
    out += [frame.vector(at + "gated_norm", Part.GATED_NORM, d)] if config.gated_norm else []
    out.append(frame.vector(at + "out_proj_in", Part.OUT_PROJ_IN, d, ACT))
    projection = frame.matrix(at + "out_proj", Part.OUT_PROJ, config.d_model, d)
    return out + frame.biased(projection, config.bias)


def products(config: Mamba2Config) -> Products:
    """(what is multiplied, by what, multiplications a time step)."""
    h, d, n = config.heads, config.d_inner, config.d_state
    rest: Products = [
        ("conv", "conv_in", config.d_window * config.d_conv),
        ("A", "dt", h),
        ("x", "dt", d),
        ("B", "x", d * n),
        ("decay", "state", d * n),
        ("C", "state", d * n),
        ("D", "x", d),
        ("y", "z", d),
        ("out_proj", "out_proj_in", config.d_model * d),
    ]

    def mixer(at: str) -> Products:
        projections = [
            (f"in_proj.{name}", "in_proj_in", rows * config.d_model)
            for name, rows in config.rows.items()
        ]
        return [(at + one, f"{at}{other}", count) for one, other, count in [*projections, *rest]]

    return frame.frame_products(config, mixer)


def parameter_shapes(config: Mamba2Config) -> Shapes:
    """Name and shape of every trained parameter. Rows of in_proj are z, x, B, C, dt."""
    h, d, c = config.heads, config.d_inner, config.d_window
    rows = sum(config.rows.values())
    mixer: Shapes = {"in_proj.weight": (rows, config.d_model), "conv.weight": (c, 1, config.d_conv)}
    if config.bias:
        mixer |= {"in_proj.bias": (rows,), "out_proj.bias": (config.d_model,)}
    if config.conv_bias:
        mixer["conv.bias"] = (c,)
    mixer |= {"dt_bias": (h,), "A_log": (h,), "D": (d,) if config.D_per_channel else (h,)}
    if config.gated_norm:
        mixer["gated_norm.weight"] = (d,)
    return frame.frame_parameters(config, {**mixer, "out_proj.weight": (config.d_model, d)})


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


@dataclass(frozen=True)
class Mamba2(Selective):
    """A Mamba-2 model. `scan` takes the place of the fastest recurrence there is."""

    config: Mamba2Config
    weights: Mapping[str, Tensor]
    scan: Scan | None = None

    family = FAMILY
    radius_reads = ("A", "dt.bias")
    convolved = ("x", "B", "C")

    @cached_property
    def sites(self) -> dict[str, Site]:
        return sites(self.config)

    @property
    def products(self) -> Products:
        return products(self.config)

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

    def mix(
        self, i: int, u: Tensor, tap: Tap, memories: Memories
    ) -> tuple[Tensor, tuple[Carry, Carry]]:
        at, config = At(self, tap, f"layers.{i}."), self.config
        u = at.passes("in_proj_in", u)
        projected = {name: at.linear(f"in_proj.{name}", u) for name in config.rows}
        z = at.passes("z", projected["z"].unflatten(-1, (config.heads, config.d_head)))
        together = torch.cat([projected[name] for name in self.convolved], dim=-1)
        v, window = self.convolve(at, at.passes("conv_in", together), memories[0])
        x, B, C = (at.passes(name, part) for name, part in zip(self.convolved, v, strict=True))
        dt = F.softplus(projected["dt"] + at("dt.bias")).clamp(config.dt_min, config.dt_max)
        y, state = self.recur(at, x, at.passes("dt", dt), B, C, memories[1])
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
