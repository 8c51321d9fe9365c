"""What a model is called: a fingerprint of what its files hold, the same on every machine.

    2-6f0c…    16 hex digits of SHA-256 over the config and every parameter as it is stored

The number before the dash says how the name was made. Before there was one, names were made of
weights as they run (S4D's discretised A and B, Mamba's exp(A_log)), whose last bits are those of a
processor's exp. `earlier_names` are the names of that kind that can be proved to be a model's: what
this machine computes, and of models that ship what other machines are known to have computed.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import MISSING, fields
from typing import TYPE_CHECKING, Any

from sensprobe.models import family_of, mamba, mamba2, s4d

if TYPE_CHECKING:
    from torch import Tensor

NAMING = 2


def fingerprint(family: str, config: Any, tensors: Mapping[str, Tensor], more: str = "") -> str:
    """The name of a model: family, config and tensors (any dtype; names, shapes, dtypes and bytes).

    Fields of the config that have their default are left out, so that a field that is added later
    changes no name. `more` is anything else that decides what the model computes.
    """
    digest = hashlib.sha256(json.dumps([family, described(config), more]).encode())
    for name in sorted(tensors):
        tensor = tensors[name].detach().contiguous()
        digest.update(json.dumps([name, str(tensor.dtype), list(tensor.shape)]).encode())
        digest.update(bytes_of(tensor))
    return f"{NAMING}-{digest.hexdigest()[:16]}"


def described(config: Any) -> dict[str, Any]:
    """The fields of a config that differ from their defaults, by name in alphabetical order."""
    values = ((f.name, getattr(config, f.name), f.default) for f in fields(config))
    return dict(sorted((n, v) for n, v, usual in values if usual is MISSING or v != usual))


def bytes_of(tensor: Tensor) -> bytes:
    """A tensor's numbers, row by row, each as it lies in (little-endian) RAM."""
    import torch

    flat = tensor.contiguous().reshape(-1)
    return (flat.view(torch.uint8) if flat.numel() else flat).numpy().tobytes()


def earlier_name(config: Any, weights: Mapping[str, Tensor]) -> str:
    """The name that a model had before: its config's text and weights as they run."""
    import torch

    known = FIRST_FIELDS[family_of(config).name].split()
    said = ", ".join(f"{name}={getattr(config, name)!r}" for name in known)
    digest = hashlib.sha256(f"{type(config).__name__}({said})".encode())
    for name in sorted(weights):
        tensor = weights[name].detach()
        real = torch.view_as_real(tensor) if tensor.is_complex() else tensor
        digest.update(name.encode())
        digest.update(real.contiguous().numpy().tobytes())
    return digest.hexdigest()[:16]


def earlier_weights(
    weights: Mapping[str, Tensor], params: Mapping[str, Tensor], config: Any
) -> dict[str, Tensor]:
    """A model's weights as they were once computed, by the machine's exp and complex division."""
    import torch

    out = dict(weights)
    for i in range(config.layers):
        at = f"layers.{i}."
        if not isinstance(config, s4d.S4DConfig):
            out[at + "A"] = -torch.exp(params[at + "A_log"].float().double())
            continue
        A = torch.complex(
            -torch.exp(params[at + "log_A_real"].double()), params[at + "A_imag"].double()
        )
        B = torch.view_as_complex(params[at + "B"].double())
        dt = torch.exp(params[at + "log_dt"].double())
        scaled = A * dt[:, None]
        if config.discretization == "zoh":
            out[at + "A"] = torch.exp(scaled)
            out[at + "B"] = (out[at + "A"] - 1) / A * B
        else:
            out[at + "A"] = (1 + scaled / 2) / (1 - scaled / 2)
            out[at + "B"] = dt[:, None] * B / (1 - scaled / 2)
    return out


_AROUND = (
    "d_input d_output d_model layers encoder norm norm_kind norm_eps final_norm residual pooling "
    "head_bias tied_head"
)
FIRST_FIELDS = {
    s4d.FAMILY.name: (
        "d_input d_output d_model d_state layers norm residual activation pooling discretization"
    ),
    mamba.FAMILY.name: (
        f"{_AROUND} dt_rank d_state d_conv expand bias conv_bias inner_norm inner_norm_eps"
    ),
    mamba2.FAMILY.name: (
        f"{_AROUND} d_state d_conv expand d_head groups bias conv_bias gated_norm D_per_channel "
        "dt_min dt_max"
    ),
}
"""Family -> the fields that its config had, in this order, when names were made of their text."""
