"""A head as PyTorch's own modules have it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

MODULES: dict[str, type[nn.Module]] = {
    "relu": nn.ReLU,
    "gelu": nn.GELU,
    "silu": nn.SiLU,
    "dropout": nn.Dropout,
    "identity": nn.Identity,
}


def modules(config: Any) -> nn.Sequential:
    """nn.Sequential of a config's head, with the weights that PyTorch starts from."""
    out, size = [], config.d_model
    for text in config.head.split(", "):
        kind, *words = text.split()
        if kind == "linear":
            rows = int(words[0]) if words and words[0].isdigit() else config.d_output
            has_bias = "without" not in words and getattr(config, "head_bias", True)
            out.append(nn.Linear(size, rows, bias=has_bias))
            size = rows
        elif text.startswith("layer norm"):
            out.append(nn.LayerNorm(size))
        elif text.startswith("rms norm"):
            out.append(nn.RMSNorm(size, eps=1e-5))
        else:
            out.append(MODULES[kind]())
    return nn.Sequential(*out).eval()


def head_by_hand(config: Any, params: Mapping[str, Tensor], u: Tensor) -> Tensor:
    """Outputs in float64 of features u (…, d_model), from parameters by checkpoint name."""
    head = modules(config).double()
    inside = {n.removeprefix("head."): p for n, p in params.items() if n.startswith("head.")}
    if config.head == "linear":
        inside = {f"0.{name}": p for name, p in inside.items()}
    if getattr(config, "tied_head", False):
        inside["0.weight"] = params["embedding.weight"]
    head.load_state_dict(inside)
    with torch.no_grad():
        return head(u.double())
