"""Small deterministic S5 models, and inputs for them."""

from __future__ import annotations

from dataclasses import replace
from math import log, pi

import torch
from builders import vector
from torch import Tensor

from sensprobe.models.s5 import S5Config, parameter_shapes
from sensprobe.models.s5_layers import S5, deploy

PLAIN = S5Config(d_input=2, d_output=3, d_model=5, d_state=6, layers=2, blocks=2)
CONFIGS = {
    "plain": PLAIN,
    "post": replace(
        PLAIN, norm="post", gate="half1", sigmoid="hard", activation="qgelu", d_state=19, blocks=1
    ),
    "folded": replace(
        PLAIN, norm_kind="affine", gate="half2", discretization="bilinear", activation="gelu-tanh"
    ),
    "bare": replace(
        PLAIN,
        activation="qgelu4",
        gate="none",
        pooling="last",
        norm="none",
        residual=False,
        blocks=3,
    ),
    "tokens": replace(PLAIN, d_input=7, encoder="embedding", pooling="none", conjugate=False),
    "stored": replace(PLAIN, discretization="none", layers=1),
    "product": replace(PLAIN, norm_kind="layer-product", norm="post"),
}


def parameters(config: S5Config, seed: int = 0) -> dict[str, Tensor]:
    """Random parameters at the scales S5 trains at; float32, by own checkpoint name."""
    out = {}
    for k, (name, shape) in enumerate(parameter_shapes(config).items()):
        x = vector(*shape, seed=1000 * seed + k)
        match name.rsplit(".", 1)[-1]:
            case "log_dt":
                x = log(0.05) + x / 2
            case "A_real":
                x = -0.5 - x.abs() / 4
            case "A_imag":
                x = pi * torch.arange(shape[0]) + x / 4
            case "A":
                x = x / 4
            case "weight" if len(shape) == 1:
                x = 1 + x / 4
        out[name] = x.float()
    return out


def tiny(config: S5Config, seed: int = 0) -> S5:
    params = {name: value.double() for name, value in parameters(config, seed).items()}
    return S5(config, deploy(params, config))


def inputs(config: S5Config, batch: int = 3, length: int = 7) -> Tensor:
    if config.encoder == "linear":
        return vector(batch, length, config.d_input, dtype=torch.float32)
    generator = torch.Generator().manual_seed(0)
    return torch.randint(0, config.d_input, (batch, length), generator=generator)
