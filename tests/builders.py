"""Small deterministic models, sites and inputs that the tests share."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from sensprobe.checkpoints.own import parameter_shapes
from sensprobe.models.s4d import S4DConfig
from sensprobe.models.s4d_layers import S4D, deploy
from sensprobe.numerics.calibrate import weight_range
from sensprobe.numerics.rounding import Fields, encode
from sensprobe.plans.scheme import Scheme
from sensprobe.plans.sites import Axis, Kind, Part, Site

HEADS, PAIRS = 4, 3
MATRIX = Site("layers.0.A", Part.A, Kind.WEIGHT, (HEADS, PAIRS), (Axis.HEAD, Axis.N), True)
STATE = Site("layers.0.state", Part.STATE, Kind.STATE, (HEADS, PAIRS), (Axis.HEAD, Axis.N), True)
RAGGED = Site("w", Part.OUT_PROJ, Kind.WEIGHT, (3, 7), (Axis.OUT, Axis.IN))
PROJECTION = Site("layers.0.out_proj", Part.OUT_PROJ, Kind.WEIGHT, (8, 5), (Axis.OUT, Axis.IN))
BIAS = Site("encoder.bias", Part.BIAS, Kind.WEIGHT, (HEADS,), (Axis.CHANNEL,))
SKIP = Site("layers.0.D", Part.D, Kind.WEIGHT, (HEADS,), (Axis.HEAD,))
ACTIVATION = Site("layers.0.x", Part.X, Kind.ACTIVATION, (HEADS,), (Axis.HEAD,))
SITES = [MATRIX, STATE, PROJECTION, BIAS, SKIP, ACTIVATION]

PLAIN = S4DConfig(d_input=1, d_output=3, d_model=4, d_state=3)
CONFIGS = {
    "plain": PLAIN,
    "deep": S4DConfig(2, 3, d_model=4, d_state=2, layers=2, norm="post"),
    "pre": S4DConfig(1, 2, d_model=3, d_state=4, layers=2, norm="pre", activation="qgelu"),
    "pruned": S4DConfig(2, 3, d_model=5, d_state=3, layers=3, norm="post", kernels="0 2 3, all, 1"),
    "last": S4DConfig(1, 1, d_model=2, d_state=1, residual=False, pooling="last"),
    "discrete": S4DConfig(1, 3, d_model=3, d_state=4, discretization="none"),
    "bilinear": S4DConfig(
        3, 2, d_model=3, d_state=2, discretization="bilinear",
        head="linear 5, layer norm, relu, dropout, linear",
    ),
}  # fmt: skip


def vector(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> Tensor:
    """Normal numbers."""
    return torch.randn(*shape, dtype=dtype, generator=torch.Generator().manual_seed(seed))


def parameters(config: S4DConfig, seed: int = 0) -> dict[str, Tensor]:
    """Random parameters at the scales S4D trains at; float32, by own checkpoint name."""
    out = {}
    for k, (name, shape) in enumerate(parameter_shapes(config).items()):
        x = vector(*shape, seed=1000 * seed + k)
        match name.rsplit(".", 1)[-1]:
            case "log_dt":
                x = math.log(0.05) + x / 2
            case "log_A_real":
                x = math.log(0.5) + x / 4
            case "A":
                x = x / 4
            case "A_imag":
                x = math.pi * torch.arange(shape[1]) + x / 4
            case "weight" if len(shape) == 1:  # of a norm
                x = 1 + x / 4
        out[name] = x.float()
    return out


def tiny(config: S4DConfig = PLAIN, seed: int = 0) -> S4D:
    """A random model, discretised in float64 as checkpoints are."""
    return S4D(config, deploy({k: p.double() for k, p in parameters(config, seed).items()}, config))


def inputs(config: S4DConfig, batch: int = 3, length: int = 7, seed: int = 0) -> Tensor:
    """Sequences (batch, length, d_input) float32."""
    return vector(batch, length, config.d_input, seed=seed, dtype=torch.float32)


def site(**changes: Any) -> Site:
    """A real weight matrix unless told otherwise."""
    fields = {
        "name": "w",
        "part": Part.OUT_PROJ,
        "kind": Kind.WEIGHT,
        "shape": (6, 10),
        "axes": (Axis.OUT, Axis.IN),
    }
    return Site(**(fields | changes))


def values_of(shape: tuple[int, ...], is_complex: bool, seed: int = 0) -> Tensor:
    """Normal numbers of a site's shape, complex where it is."""
    if is_complex:
        return torch.view_as_complex(vector(*shape, 2, seed=seed))
    return vector(*shape, seed=seed)


def stored(x: Tensor, scheme: Scheme, where: Site) -> Fields:
    """A weight as memory holds it, in the range its scheme asks for."""
    return encode(x, scheme, where, weight_range(x, scheme, where))
