"""The name of a model: a fingerprint of what its files hold, the same on every machine.

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

from sensprobe.models import family_of

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

    earlier = family_of(config).earlier
    assert earlier is not None
    known = earlier.fields.split()
    said = ", ".join(f"{name}={getattr(config, name)!r}" for name in known)
    digest = hashlib.sha256(f"{type(config).__name__}({said})".encode())
    for name in sorted(weights):
        tensor = weights[name].detach()
        real = torch.view_as_real(tensor) if tensor.is_complex() else tensor
        digest.update(name.encode())
        digest.update(real.contiguous().numpy().tobytes())
    return digest.hexdigest()[:16]
