"""Checkpoints in the layouts that are read, made of random weights."""

from __future__ import annotations

import json
import math
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
import selective
import torch
from builders import PLAIN, parameters, vector
from safetensors.torch import save_file
from torch import Tensor

from sensprobe.checkpoints import describe, read_checkpoint
from sensprobe.checkpoints.files import METADATA_KEY
from sensprobe.errors import CheckpointError
from sensprobe.models.s4d import S4DConfig

HEADS, PAIRS, LAYERS, INPUTS, OUTPUTS = 3, 4, 2, 2, 5


def s4_state(layers: int = LAYERS) -> dict[str, Tensor]:
    """The state_dict of state-spaces/s4 example.py: names and shapes as its modules give them."""
    state: dict[str, Tensor] = {}

    def put(name: str, *shape: int, around: float = 0.0, spread: float = 0.5) -> None:
        x = around + spread * vector(*shape, seed=len(state), dtype=torch.float32)
        state[name] = x

    put("encoder.weight", HEADS, INPUTS)
    put("encoder.bias", HEADS)
    for i in range(layers):
        at = f"s4_layers.{i}."
        put(at + "D", HEADS)
        put(at + "kernel.C", HEADS, PAIRS, 2)
        put(at + "kernel.log_dt", HEADS, around=math.log(0.05))
        put(at + "kernel.log_A_real", HEADS, PAIRS, around=math.log(0.5), spread=0.2)
        put(at + "kernel.A_imag", HEADS, PAIRS, spread=6.0)
        put(at + "output_linear.0.weight", 2 * HEADS, HEADS, 1)
        put(at + "output_linear.0.bias", 2 * HEADS)
    for i in range(layers):
        put(f"norms.{i}.weight", HEADS, around=1.0)
        put(f"norms.{i}.bias", HEADS)
    put("decoder.weight", OUTPUTS, HEADS)
    put("decoder.bias", OUTPUTS)
    return state


def write_s4(path: Path, **changes: Any) -> Path:
    """{"model": …, "acc": 91.25, "epoch": 7}, less or more as `changes` say; None takes away."""
    content = {"model": s4_state(), "acc": 91.25, "epoch": 7} | changes
    torch.save({k: v for k, v in content.items() if v is not None}, path)
    return path


def write_own(
    path: Path,
    config: S4DConfig = PLAIN,
    header: dict[str, Any] | None = None,
    params: dict[str, Tensor] | None = None,
) -> Path:
    """An own checkpoint; `header` replaces entries of the one that belongs there."""
    described = {"format": 1, "family": "s4d", "config": asdict(config)} | (header or {})
    save_file(params or parameters(config), path, {METADATA_KEY: json.dumps(described)})
    return path


CONFIG = selective.MAMBAS["bare"]
DOCUMENT = """
file = "w.safetensors"
family = "mamba"
[config]
d_input = 2
d_output = 3
d_model = 4
d_state = 3
dt_rank = 2
norm = "none"
residual = false
final_norm = false
[keys]
"""
KEYS = """
"linear_in.*" = "encoder.*"
"mamba.conv1d.*" = "layers.0.conv.*"
"mamba.*" = "layers.0.*"
"classifier.*" = "head.*"
"""


def one_block() -> dict[str, Tensor]:
    """The parameters of CONFIG as a file of one bare block names them."""
    names = {"encoder": "linear_in", "head": "classifier"}
    out = {}
    for name, tensor in selective.parameters(CONFIG).items():
        first, _, rest = name.partition(".")
        if first == "layers":
            out["mamba." + rest.removeprefix("0.").replace("conv.", "conv1d.")] = tensor
        else:
            out[f"{names[first]}.{rest}"] = tensor
    return out


NUMBERS = ("NaN or infinite", "ties the head to the embedding", "is not a finite")
"""Said of a file whose numbers are wrong; what is known of a model without them shows no error."""


def refusal(path: Path, norm: str | None = None) -> str:
    """The CheckpointError of a file, which `describe` raises too unless the numbers are wrong."""
    with pytest.raises(CheckpointError) as error:
        read_checkpoint(path, norm)
    if not any(mark in str(error.value) for mark in NUMBERS):
        with pytest.raises(CheckpointError) as same:
            describe(path, norm)
        assert str(same.value) == str(error.value)
    return str(error.value)
