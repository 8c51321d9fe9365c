"""Small deterministic models of the selective families, and inputs for them."""

from __future__ import annotations

import math
from typing import Any

import torch
from builders import vector
from torch import Tensor

from sensprobe.models import family_of
from sensprobe.models.mamba import MambaConfig
from sensprobe.models.mamba2 import Mamba2Config
from sensprobe.models.mamba2_layers import Mamba2
from sensprobe.models.mamba_layers import Mamba

TOKENS: dict[str, Any] = {
    "encoder": "embedding",
    "d_input": 11,
    "d_output": 11,
    "d_model": 6,
    "pooling": "none",
    "head_bias": False,
}
WIDE: dict[str, Any] = TOKENS | {"d_input": 24, "d_output": 24, "d_model": 32, "layers": 2}
SMALL: dict[str, Any] = {"d_input": 2, "d_output": 3, "d_model": 4}
MAMBAS = {
    "bare": MambaConfig(
        **SMALL, dt_rank=2, d_state=3, norm="none", residual=False, final_norm=False
    ),
    "deep": MambaConfig(**SMALL, dt_rank=1, d_state=2, layers=2, bias=True, pooling="last"),
    "post": MambaConfig(
        **SMALL, dt_rank=1, d_state=1, d_conv=2, norm="post", norm_kind="layer", conv_bias=False,
        head="rms norm, linear 5 without bias, gelu, linear",
    ),
    "tokens": MambaConfig(**TOKENS, dt_rank=2, d_state=3, layers=2),
    "tied": MambaConfig(**TOKENS, dt_rank=2, d_state=3, tied_head=True, inner_norm=True),
}  # fmt: skip
MAMBA2S = {
    "bare": Mamba2Config(
        **SMALL, d_state=3, d_head=2, norm="none", residual=False, final_norm=False
    ),
    "groups": Mamba2Config(**SMALL, d_state=2, d_head=2, groups=2, layers=2, bias=True),
    "ungated": Mamba2Config(
        **SMALL, d_state=3, d_head=8, d_conv=2, gated_norm=False, conv_bias=False, norm="post",
        head="dropout, silu, linear",
    ),
    "channels": Mamba2Config(
        **SMALL, d_state=2, d_head=4, D_per_channel=True, dt_min=0.02, dt_max=0.5, pooling="last"
    ),
    "tokens": Mamba2Config(**TOKENS, d_state=3, d_head=4, groups=3, layers=2),
    "tied": Mamba2Config(**TOKENS, d_state=3, d_head=4, tied_head=True, norm_kind="layer"),
}  # fmt: skip
Config = MambaConfig | Mamba2Config


def parameters(config: Config, seed: int = 0) -> dict[str, Tensor]:
    """Random parameters at the scales the families train at; float32, by own checkpoint name."""
    out = {}
    for k, (name, shape) in enumerate(family_of(config).parameter_shapes(config).items()):
        x = vector(*shape, seed=1000 * seed + k)
        match name.split("."):
            case [*_, "A_log"]:
                x = x / 2
            case [*_, "dt_bias"] | [*_, "dt_proj", "bias"]:
                x = math.log(0.3) + x / 2
            case [*_, "norm" | "gated_norm", "weight"]:
                x = 1 + x / 4
            case [*_, "weight"] if len(shape) == 1:  # of a norm in the head
                x = 1 + x / 4
            case [*_, "weight"]:
                x = x / math.sqrt(shape[-1])
        out[name] = x.float()
    return out


def tiny(config: Config, seed: int = 0) -> Mamba | Mamba2:
    """A random model."""
    family = family_of(config)
    return family.model(config, family.deploy(parameters(config, seed), config))


def inputs(config: Config, batch: int = 3, length: int = 7, seed: int = 0) -> Tensor:
    """Sequences (batch, length, d_input) float32, or tokens (batch, length)."""
    if config.encoder == "linear":
        return vector(batch, length, config.d_input, seed=seed, dtype=torch.float32)
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, config.d_input, (batch, length), generator=generator)
