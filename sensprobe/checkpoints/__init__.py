"""Reading and writing weights. Nothing here executes what a file contains."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from sensprobe.checkpoints import own, s4, toml
from sensprobe.checkpoints.files import require_file
from sensprobe.errors import CheckpointError, UsageError
from sensprobe.models import Model

NORMS = ("none", "pre", "post")


def read_checkpoint(path: Path, norm: str | None = None) -> tuple[Model, dict[str, Any]]:
    """The model in a checkpoint file or model.toml, and what the file records of itself.

    `norm` says where a state-spaces/s4 checkpoint has its LayerNorm (pre or post).
    """
    if norm is not None and norm not in NORMS:
        raise UsageError(f"norm {norm!r} is not one of {', '.join(NORMS)}.")
    require_file(path)
    if path.is_dir():
        raise CheckpointError(
            f"{path} is a folder without a sensprobe config.json; name a checkpoint file, a "
            "model.toml, or a folder that `sensprobe export` wrote."
        )
    if path.suffix == ".toml":
        return toml.read(path)
    if path.suffix == ".safetensors":
        return own.read(path)
    return s4.read(path, norm or "post")


def weights_fingerprint(weights: Mapping[str, Tensor], config: Any) -> str:
    """Identity of a model: its config and every weight, to the bit."""
    digest = hashlib.sha256(repr(config).encode())
    for name in sorted(weights):
        tensor = weights[name].detach()
        real = torch.view_as_real(tensor) if tensor.is_complex() else tensor
        digest.update(name.encode())
        digest.update(real.contiguous().numpy().tobytes())
    return digest.hexdigest()[:16]
