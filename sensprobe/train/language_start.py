"""The parameters a selective language model starts from, as mamba_ssm draws them.

    embedding ~ N(0, 0.02²)             linear maps and filters uniform within 1 / √(inputs)
    out_proj divided by √layers         so that the residual stream keeps its size
    dt ~ U(log dt_min, log dt_max), its bias the inverse of softplus
    A = -(1 … n) a channel (Mamba), -U(1, 16) a head (Mamba-2);  D and norms 1

All of it comes from one generator in the order of the checkpoint's names.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from sensprobe.checkpoints.own import parameter_shapes
from sensprobe.models.mamba import MambaConfig
from sensprobe.models.mamba2 import Mamba2Config
from sensprobe.train.recipe import Init

EMBEDDING_DEVIATION = 0.02
LARGEST_A = 16.0


def initial(config: MambaConfig | Mamba2Config, init: Init, seed: int) -> dict[str, Tensor]:
    """Parameters by the names of an own checkpoint, float32, gradients off."""
    generator = torch.Generator().manual_seed(seed)
    shapes = parameter_shapes(config)
    return {
        name: _drawn(name, shape, shapes, config, init, generator) for name, shape in shapes.items()
    }


def _drawn(
    name: str,
    shape: tuple[int, ...],
    shapes: dict[str, tuple[int, ...]],
    config: MambaConfig | Mamba2Config,
    init: Init,
    generator: torch.Generator,
) -> Tensor:
    """One parameter."""
    inner = name.rpartition(".")[0].rpartition(".")[2]  # the layer a weight or bias belongs to
    if name == "embedding.weight":
        return torch.randn(shape, generator=generator) * EMBEDDING_DEVIATION
    if name.endswith(".A_log"):
        return _log_A(shape, config, generator)
    if name.endswith((".dt_bias", ".dt_proj.bias")):
        low, high = math.log(init.dt_min), math.log(init.dt_max)
        dt = torch.exp(low + torch.rand(shape, generator=generator) * (high - low))
        return dt + torch.log(-torch.expm1(-dt))  # softplus of it is dt
    if name.endswith(".D") or (inner in ("norm", "gated_norm") and name.endswith("weight")):
        return torch.ones(shape)
    if inner == "norm":
        return torch.zeros(shape)
    weight = shapes[name.rpartition(".")[0] + ".weight"]
    width = math.prod(weight[1:]) ** -0.5
    drawn = (torch.rand(shape, generator=generator) * 2 - 1) * width
    return drawn / math.sqrt(config.layers) if name.endswith("out_proj.weight") else drawn


def _log_A(
    shape: tuple[int, ...], config: MambaConfig | Mamba2Config, generator: torch.Generator
) -> Tensor:
    if isinstance(config, MambaConfig):
        return torch.log(torch.arange(1, config.d_state + 1)).repeat(shape[0], 1)
    return torch.log(1 + torch.rand(shape, generator=generator) * (LARGEST_A - 1))
