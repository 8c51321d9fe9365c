"""Mamba (Gu and Dao 2023, arXiv 2312.00752): a selective recurrence a channel.

    u ─ in_proj.x ─ conv ─ SiLU ─ x ─┬───────────────────── recurrence ─ + D x ─ y ─ · ─ out_proj
      │                              ├ x_proj.B, x_proj.C ─ B, C ┤                   │
      │                              └ x_proj.dt ─ dt_proj ─ dt ─┘                   │
      └ in_proj.z ─ z ─────────────────────────────────────────────────────── SiLU ──┘

dt = softplus(dt_proj · (low rank) + bias); A is continuous and negative, as a deployment stores it,
and the decay exp(dt A) is computed at run time. With `inner_norm` (FalconMamba, arXiv 2410.05355)
an RMS norm without weights stands on low-rank dt, B and C.

Shapes: b batch, l length, d channels (expand · d_model), n state variables a channel, r rank of dt.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

from sensprobe.models import frame
from sensprobe.models.family import Earlier, Family, deferred
from sensprobe.models.frame import FrameConfig, Products, Shapes
from sensprobe.models.layouts import External, Layout, linear, rank_of_dt
from sensprobe.plans.sites import Axis, Kind, Part, Site


@dataclass(frozen=True, slots=True, kw_only=True)
class MambaConfig(FrameConfig):
    """Sizes and choices of a Mamba model. The paper's rank of dt is ceil(d_model / 16)."""

    dt_rank: int
    d_state: int = 16
    d_conv: int = 4
    expand: int = 2
    bias: bool = False  # of in_proj and out_proj
    conv_bias: bool = True
    inner_norm: bool = False
    inner_norm_eps: float = 1e-6

    def __post_init__(self) -> None:
        FrameConfig.__post_init__(self)
        frame.require_window(self.d_conv)

    @property
    def d_inner(self) -> int:
        return self.expand * self.d_model


@cache
def sites(config: MambaConfig) -> dict[str, Site]:
    """Every site of the model, in the order the forward pass meets them."""
    return frame.frame_sites(config, lambda at: _mixer_sites(at, config))


def _mixer_sites(at: str, config: MambaConfig) -> list[Site]:
    h, d, n, r = config.d_model, config.d_inner, config.d_state, config.dt_rank
    k, W, ACT, CHANNEL = config.d_conv, Kind.WEIGHT, Kind.ACTIVATION, (Axis.HEAD,)
    two = (Axis.HEAD, Axis.N)

    return [
        frame.vector(at + "in_proj_in", Part.IN_PROJ_IN, h, ACT),
        *frame.biased(frame.matrix(at + "in_proj.z", Part.IN_PROJ_Z, d, h), config.bias),
        Site(at + "z", Part.Z, ACT, (d,), CHANNEL),
        *frame.biased(frame.matrix(at + "in_proj.x", Part.IN_PROJ_X, d, h), config.bias),
        Site(at + "conv_in", Part.CONV_IN, ACT, (d,), CHANNEL),
        *frame.biased(
            Site(at + "conv", Part.CONV, W, (d, k), (Axis.CHANNEL, Axis.LAG)), config.conv_bias
        ),
        Site(at + "conv_state", Part.CONV_STATE, Kind.STATE, (d, k - 1), (Axis.CHANNEL, Axis.LAG)),
        Site(at + "x", Part.X, ACT, (d,), CHANNEL),
        frame.matrix(at + "x_proj.dt", Part.X_PROJ_DT, r, d),
        frame.matrix(at + "x_proj.B", Part.X_PROJ_B, n, d),
        frame.matrix(at + "x_proj.C", Part.X_PROJ_C, n, d),
        frame.vector(at + "dt_proj_in", Part.DT_PROJ_IN, r, ACT),
        *frame.biased(frame.matrix(at + "dt_proj", Part.DT_PROJ, d, r), True),
        Site(at + "dt", Part.DT, ACT, (d,), CHANNEL),
        Site(at + "A", Part.A, W, (d, n), two),
        Site(at + "decay", Part.DECAY, ACT, (d, n), two),
        Site(at + "B", Part.B, ACT, (n,), (Axis.N,)),
        Site(at + "state", Part.STATE, Kind.STATE, (d, n), two),
        Site(at + "C", Part.C, ACT, (n,), (Axis.N,)),
        Site(at + "D", Part.D, W, (d,), CHANNEL),
        Site(at + "y", Part.Y, ACT, (d,), CHANNEL),
        frame.vector(at + "out_proj_in", Part.OUT_PROJ_IN, d, ACT),
        *frame.biased(frame.matrix(at + "out_proj", Part.OUT_PROJ, h, d), config.bias),
    ]


def products(config: MambaConfig) -> Products:
    """(what is multiplied, by what, multiplications a time step)."""
    h, d, n, r = config.d_model, config.d_inner, config.d_state, config.dt_rank
    mixer = [
        ("in_proj.z", "in_proj_in", d * h),
        ("in_proj.x", "in_proj_in", d * h),
        ("conv", "conv_in", d * config.d_conv),
        ("x_proj.dt", "x", r * d),
        ("x_proj.B", "x", n * d),
        ("x_proj.C", "x", n * d),
        ("dt_proj", "dt_proj_in", d * r),
        ("A", "dt", d * n),
        ("x", "dt", d),
        ("B", "x", d * n),
        ("decay", "state", d * n),
        ("C", "state", d * n),
        ("D", "x", d),
        ("y", "z", d),
        ("out_proj", "out_proj_in", h * d),
    ]
    return frame.frame_products(config, mixer)


def parameter_shapes(config: MambaConfig) -> Shapes:
    """Name and shape of every trained parameter. Rows of in_proj are x, z; of x_proj dt, B, C."""
    h, d, n, r = config.d_model, config.d_inner, config.d_state, config.dt_rank
    mixer: Shapes = {"in_proj.weight": (2 * d, h), "conv.weight": (d, 1, config.d_conv)}
    if config.bias:
        mixer |= {"in_proj.bias": (2 * d,), "out_proj.bias": (h,)}
    if config.conv_bias:
        mixer["conv.bias"] = (d,)
    mixer |= {
        "x_proj.weight": (r + 2 * n, d),
        "dt_proj.weight": (d, r),
        "dt_proj.bias": (d,),
        "A_log": (d, n),
        "D": (d,),
        "out_proj.weight": (h, d),
    }
    return frame.frame_parameters(config, mixer)


_TENSORS = (
    *linear("in_proj", "in_proj.x", "in_proj.z"),
    External("conv1d.weight", ("conv",), shaped="filters"),
    External("conv1d.bias", ("conv.bias",)),
    External("x_proj.weight", ("x_proj.dt", "x_proj.B", "x_proj.C"), matrix="x_proj"),
    *linear("dt_proj", "dt_proj"),
    External("A_log", ("A",), shaped="logarithm"),
    External("D", ("D",)),
    *linear("out_proj", "out_proj"),
)
_DEFAULTS = {
    "vocab_size": 50280,
    "hidden_size": 768,
    "state_size": 16,
    "num_hidden_layers": 32,
    "tie_word_embeddings": True,
}


def _transformers(around: Mapping[str, Any], given: Mapping[str, Any]) -> MambaConfig:
    rank = rank_of_dt(given["time_step_rank"], given["hidden_size"])
    return MambaConfig(**around, dt_rank=rank)


def _falcon(around: Mapping[str, Any], given: Mapping[str, Any]) -> MambaConfig:
    inner: dict[str, Any] = {"inner_norm": True, "inner_norm_eps": given.get("mixer_rms_eps")}
    return _transformers({**around, **inner}, given)


def _mamba_ssm(around: Mapping[str, Any], given: Mapping[str, Any]) -> MambaConfig:
    return MambaConfig(**around, dt_rank=rank_of_dt(given["dt_rank"], around["d_model"]))


def _keys(config: MambaConfig) -> dict[str, Any]:
    """The keys of transformers that Mamba alone has."""
    own: dict[str, Any] = {
        "intermediate_size": config.d_inner,
        "time_step_rank": config.dt_rank,
    }
    return own | ({"mixer_rms_eps": config.inner_norm_eps} if config.inner_norm else {})


_LAYERS = "sensprobe.models.mamba_layers"
FAMILY = Family(
    name="mamba",
    config=MambaConfig,
    sites=sites,
    products=products,
    parameter_shapes=parameter_shapes,
    deploy=deferred(_LAYERS, "deploy"),
    initial=deferred(_LAYERS, "initial"),
    model=deferred(_LAYERS, "Mamba"),
    lower=deferred("sensprobe.models.lowering.mamba", "lower"),
    layouts=(
        Layout(
            package="transformers",
            kind="mamba",
            architecture="MambaForCausalLM",
            defaults=_DEFAULTS,
            read=_transformers,
            writes=lambda config: not config.inner_norm,
            write=_keys,
            tensors=_TENSORS,
        ),
        Layout(
            package="transformers",
            kind="falcon_mamba",
            architecture="FalconMambaForCausalLM",
            defaults={**_DEFAULTS, "mixer_rms_eps": 1e-6},
            read=_falcon,
            writes=lambda config: config.inner_norm,
            write=_keys,
            tensors=_TENSORS,
        ),
        Layout(
            package="mamba_ssm",
            kind="Mamba1",
            same_as="mamba",
            defaults={"d_state": 16, "d_conv": 4, "expand": 2, "dt_rank": "auto"},
            read=_mamba_ssm,
        ),
    ),
    earlier=Earlier(
        f"{frame.FIRST_FIELDS} dt_rank d_state d_conv expand bias conv_bias inner_norm "
        "inner_norm_eps",
        deferred("sensprobe.models.selective", "earlier_weights"),
    ),
)
