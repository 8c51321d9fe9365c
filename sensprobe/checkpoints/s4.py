"""Checkpoints of state-spaces/s4's `example.py`: `{"model": state_dict, "acc": …, "epoch": …}`.

Its S4D layers store log_dt, log_A_real, A_imag and C; B is 1 and the kernel is ZOH. Whether
LayerNorm stands before the SSM or after the residual is not in the file: the reader takes it
from the caller, or assumes post-norm (the script's default) and says so.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from sensprobe.checkpoints.files import read_torch
from sensprobe.checkpoints.own import build
from sensprobe.errors import CheckpointError
from sensprobe.models.s4d import S4D, S4DConfig

_LAYER = {
    "s4_layers.{i}.D": "layers.{i}.D",
    "s4_layers.{i}.kernel.C": "layers.{i}.C",
    "s4_layers.{i}.kernel.log_dt": "layers.{i}.log_dt",
    "s4_layers.{i}.kernel.log_A_real": "layers.{i}.log_A_real",
    "s4_layers.{i}.kernel.A_imag": "layers.{i}.A_imag",
    "s4_layers.{i}.output_linear.0.weight": "layers.{i}.out_proj.weight",
    "s4_layers.{i}.output_linear.0.bias": "layers.{i}.out_proj.bias",
    "norms.{i}.weight": "layers.{i}.norm.weight",
    "norms.{i}.bias": "layers.{i}.norm.bias",
}
_OUTSIDE = {
    "encoder.weight": "encoder.weight",
    "encoder.bias": "encoder.bias",
    "decoder.weight": "head.weight",
    "decoder.bias": "head.bias",
}


def looks_like_s4(state: Mapping[str, Any]) -> bool:
    """Whether a state_dict has the names of example.py's model."""
    return "encoder.weight" in state and any(name.startswith("s4_layers.") for name in state)


def read(path: Path, norm: str = "post") -> tuple[S4D, dict[str, Any]]:
    """Model, and what the file records of itself: {"accuracy": fraction, "epoch": …} where "
    "present."""
    loaded = read_torch(path)
    state = loaded.get("model", loaded)
    if not (isinstance(state, Mapping) and looks_like_s4(state)):
        names = ", ".join(list(state)[:5]) if isinstance(state, Mapping) else type(state).__name__
        raise CheckpointError(
            f"{path} is not a checkpoint of state-spaces/s4 example.py: it has no s4_layers. "
            "It holds "
            f"{names} …. {family_hint(state)}Describe another kind of file in a model.toml."
        )
    state = {name.removeprefix("module."): t for name, t in state.items()}
    layers = 1 + max(int(m[1]) for name in state if (m := re.match(r"s4_layers\.(\d+)\.", name)))
    params = _rename(state, layers)
    try:
        h, n = params["layers.0.log_A_real"].shape
        d_output, d_input = params["head.weight"].shape[0], params["encoder.weight"].shape[1]
    except (KeyError, ValueError) as error:
        raise CheckpointError(
            f"{path}: an S4D tensor is missing or of another shape ({error})."
        ) from None
    for i in range(layers):
        params[f"layers.{i}.B"] = torch.view_as_real(torch.ones(h, n, dtype=torch.complex128))
        name = f"layers.{i}.out_proj.weight"
        if name in params:
            params[name] = params[name].squeeze(-1)  # a 1x1 convolution
    config = S4DConfig(d_input, d_output, h, n, layers, norm, residual=True)
    recorded = {"epoch": loaded["epoch"]} if isinstance(loaded.get("epoch"), int) else {}
    if isinstance(loaded.get("acc"), float | int):
        recorded["accuracy"] = float(loaded["acc"]) / 100
    return build(params, config, path), {"recorded": recorded, "norm_given": norm}


def _rename(state: Mapping[str, Tensor], layers: int) -> dict[str, Tensor]:
    """Tensors under our names; unknown names stay, so that the shape check lists them."""
    names = dict(_OUTSIDE)
    for i in range(layers):
        names |= {ours.format(i=i): theirs.format(i=i) for ours, theirs in _LAYER.items()}
    return {names.get(name, name): tensor for name, tensor in state.items()}


def family_hint(state: Any) -> str:
    """What a state_dict of another family looks like, from its names."""
    if not isinstance(state, Mapping):
        return ""
    names = " ".join(map(str, state))
    for mark, family in (
        ("mixer.x_proj", "Mamba"),
        ("mixer.dt_bias", "Mamba-2"),
        ("Lambda", "S5"),
        ("self_attn", "Transformer"),
    ):
        if mark in names:
            return f"It looks like {family}. "
    return ""
