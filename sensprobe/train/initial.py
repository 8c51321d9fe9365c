"""The parameters that training starts from.

S4D-Lin (arXiv 2206.11893), and uniform layers around it:

    A_n = -1/2 + i pi n        modes at evenly spaced frequencies, decaying alike
    log dt ~ U(log dt_min, log dt_max)        so that heads remember from 1/dt_max to 1/dt_min steps
    B = 1,  C ~ complex normal of variance 1,  D ~ normal

Mamba and Mamba-2 as mamba_ssm draws them:

    embedding ~ N(0, 0.02²)             linear maps and filters uniform within 1 / √(inputs)
    out_proj divided by √layers         so that the residual stream keeps its size
    dt ~ U(log dt_min, log dt_max), its bias the inverse of softplus
    A = -(1 … n) a channel (Mamba), -U(1, 16) a head (Mamba-2);  D and norms 1

All of it comes from one generator in the order written here, for Mamba in that of the checkpoint's
names, so a seed names one start for good.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from sensprobe.checkpoints.own import parameter_shapes
from sensprobe.models import output_head
from sensprobe.models.mamba import MambaConfig
from sensprobe.models.mamba2 import Mamba2Config
from sensprobe.models.s4d import S4DConfig
from sensprobe.train.recipe import Init

EMBEDDING_DEVIATION = 0.02
LARGEST_A = 16.0


def initial(
    config: S4DConfig | MambaConfig | Mamba2Config, init: Init, seed: int
) -> dict[str, Tensor]:
    """Parameters by the names of an own checkpoint, float32, gradients off."""
    generator = torch.Generator().manual_seed(seed)
    if isinstance(config, S4DConfig):
        return _s4d(config, init, generator)
    return _selective(config, init, generator)


def _s4d(config: S4DConfig, init: Init, generator: torch.Generator) -> dict[str, Tensor]:
    """S4D-Lin and uniform layers around it."""

    def uniform(*shape: int, width: float) -> Tensor:
        return (torch.rand(*shape, generator=generator) * 2 - 1) * width

    h, width = config.d_model, config.d_model**-0.5
    params = {
        "encoder.weight": uniform(h, config.d_input, width=config.d_input**-0.5),
        "encoder.bias": uniform(h, width=config.d_input**-0.5),
    }
    for i in range(config.layers):
        at = f"layers.{i}."
        ssm = _ssm(h, config.d_state, init, generator)
        params |= {at + name: value for name, value in ssm.items()}
        params[at + "out_proj.weight"] = uniform(2 * h, h, width=width)
        params[at + "out_proj.bias"] = uniform(2 * h, width=width)
        if config.norm != "none":
            params |= {at + "norm.weight": torch.ones(h), at + "norm.bias": torch.zeros(h)}
    for layer in output_head.layers(config):
        if layer.kind == "linear":
            width = layer.inputs**-0.5
            params[f"{layer.at}.weight"] = uniform(layer.outputs, layer.inputs, width=width)
            if layer.bias:
                params[f"{layer.at}.bias"] = uniform(layer.outputs, width=width)
        elif layer.weight:
            params[f"{layer.at}.weight"] = torch.ones(layer.inputs)
            if layer.bias:
                params[f"{layer.at}.bias"] = torch.zeros(layer.inputs)
    return params


def _ssm(h: int, n: int, init: Init, generator: torch.Generator) -> dict[str, Tensor]:
    """One layer's state space: h heads of n complex pairs."""
    low, high = math.log(init.dt_min), math.log(init.dt_max)
    one, zero = torch.ones(h, n), torch.zeros(h, n)
    return {
        "log_dt": low + torch.rand(h, generator=generator) * (high - low),
        "log_A_real": torch.full((h, n), math.log(0.5)),
        "A_imag": (math.pi * torch.arange(n)).repeat(h, 1),
        "B": torch.stack([one, zero], dim=-1),
        "C": torch.randn(h, n, 2, generator=generator) * math.sqrt(0.5),
        "D": torch.randn(h, generator=generator),
    }


def _selective(
    config: MambaConfig | Mamba2Config, init: Init, generator: torch.Generator
) -> dict[str, Tensor]:
    """Mamba and Mamba-2 as mamba_ssm draws them."""
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
