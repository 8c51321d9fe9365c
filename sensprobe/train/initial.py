"""The parameters a run starts from: S4D-Lin (arXiv 2206.11893), and uniform layers around it.

    A_n = -1/2 + i pi n        modes at evenly spaced frequencies, decaying alike
    log dt ~ U(log dt_min, log dt_max)        so that heads remember from 1/dt_max to 1/dt_min steps
    B = 1,  C ~ complex normal of variance 1,  D ~ normal

All of it comes from one generator in the order written here, so a seed names one start for good.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from sensprobe.models import output_head
from sensprobe.models.s4d import S4DConfig
from sensprobe.train.recipe import Init


def initial(config: S4DConfig, init: Init, seed: int) -> dict[str, Tensor]:
    """Parameters by the names of an own checkpoint, float32, gradients off."""
    generator = torch.Generator().manual_seed(seed)

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
