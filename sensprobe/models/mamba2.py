"""Mamba-2 (Dao and Gu 2024, arXiv 2405.21060): a selective recurrence a head, one decay each.

    u ─┬ in_proj.{x, B, C} ─ conv ─ SiLU ─ x, B, C ─ recurrence ─ + D x ─ y ─ · ─ norm ─ out_proj
       ├ in_proj.dt ─ + bias ─ softplus ─ dt ─┘                               │
       └ in_proj.z ─ z ──────────────────────────────────────────────── SiLU ─┘

A is continuous and negative, as a deployment stores it, and the decay exp(dt A) is computed at run
time. The gated norm (y SiLU(z), then an RMS norm within each group) is what mamba_ssm calls
norm_before_gate=False. A deployment that keeps the state in full between chunk ends is a state
scheme with `everyK`.

Shapes: b batch, l length, h heads of p channels (h · p = expand · d_model), g groups of heads that
share B and C, n state variables a channel. The convolution runs over x, B and C together.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

from sensprobe.errors import UsageError
from sensprobe.models import frame
from sensprobe.models.family import Earlier, Family, deferred
from sensprobe.models.frame import FrameConfig, Products, Shapes
from sensprobe.models.layouts import UNLIMITED, External, Layout, limits_of_dt, linear
from sensprobe.plans.sites import Axis, Kind, Part, Site


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
    mixer = [
        *(
            (f"in_proj.{name}", "in_proj_in", rows * config.d_model)
            for name, rows in config.rows.items()
        ),
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


_TENSORS = (
    *linear("in_proj", *(f"in_proj.{name}" for name in _PROJECTIONS)),
    External("conv1d.weight", ("conv",), shaped="filters"),
    External("conv1d.bias", ("conv.bias",)),
    External("dt_bias", ("dt.bias",)),
    External("A_log", ("A",), shaped="logarithm"),
    External("D", ("D",)),
    External("norm.weight", ("gated_norm",)),
    *linear("out_proj", "out_proj"),
)


def _transformers(around: Mapping[str, Any], given: Mapping[str, Any]) -> Mamba2Config:
    dt_min, dt_max = limits_of_dt(given["time_step_limit"])
    config = Mamba2Config(
        **around,
        d_head=given["head_dim"],
        groups=given["n_groups"],
        dt_min=dt_min,
        dt_max=dt_max,
    )
    if given["num_heads"] not in (None, config.heads):
        raise UsageError(
            f"num_heads is {given['num_heads']!r}, and expand · hidden_size / head_dim is "
            f"{config.heads}."
        )
    return config


def _mamba_ssm(around: Mapping[str, Any], given: Mapping[str, Any]) -> Mamba2Config:
    dt_min, dt_max = limits_of_dt(given["dt_limit"])
    config = Mamba2Config(
        **around,
        d_head=given["headdim"],
        groups=given["ngroups"],
        gated_norm=given["rmsnorm"],
        D_per_channel=given["D_has_hdim"],
        dt_min=dt_min,
        dt_max=dt_max,
    )
    if given["norm_before_gate"]:
        raise UsageError("norm_before_gate is not known here, only the gate first.")
    if given["d_ssm"] not in (None, config.d_inner):
        raise UsageError(
            f"d_ssm is {given['d_ssm']} of {config.d_inner} channels; the rest would be an MLP, "
            "which is not known here."
        )
    return config


def _keys(config: Mamba2Config) -> dict[str, Any]:
    """The keys of transformers that Mamba-2 alone has."""
    own: dict[str, Any] = {
        "num_heads": config.heads,
        "head_dim": config.d_head,
        "n_groups": config.groups,
        "rms_norm": True,
    }
    if (config.dt_min, config.dt_max) != (0.0, UNLIMITED):
        own["time_step_limit"] = [config.dt_min, config.dt_max]
    return own


_LAYERS = "sensprobe.models.mamba2_layers"
FAMILY = Family(
    name="mamba2",
    config=Mamba2Config,
    sites=sites,
    products=products,
    parameter_shapes=parameter_shapes,
    deploy=deferred(_LAYERS, "deploy"),
    initial=deferred(_LAYERS, "initial"),
    model=deferred(_LAYERS, "Mamba2"),
    lower=deferred("sensprobe.models.lowering.mamba2", "lower"),
    layouts=(
        Layout(
            package="transformers",
            kind="mamba2",
            architecture="Mamba2ForCausalLM",
            defaults={
                "vocab_size": 32768,
                "hidden_size": 4096,
                "state_size": 128,
                "num_hidden_layers": 64,
                "tie_word_embeddings": False,
                "head_dim": 64,
                "num_heads": 128,
                "n_groups": 8,
            },
            read=_transformers,
            writes=lambda config: True,
            write=_keys,
            tensors=_TENSORS,
        ),
        Layout(
            package="mamba_ssm",
            kind="Mamba2",
            same_as="mamba2",
            defaults={
                "d_state": 128,
                "d_conv": 4,
                "expand": 2,
                "headdim": 64,
                "ngroups": 1,
                "d_ssm": None,
                "rmsnorm": True,
                "norm_before_gate": False,
                "D_has_hdim": False,
                "dt_limit": [0.0, float("inf")],
            },
            read=_mamba_ssm,
        ),
    ),
    earlier=Earlier(
        f"{frame.FIRST_FIELDS} d_state d_conv expand d_head groups bias conv_bias gated_norm "
        "D_per_channel dt_min dt_max",
        deferred("sensprobe.models.selective", "earlier_weights"),
    ),
)
