"""Reading weights. Nothing here executes what a file contains."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from sensprobe.checkpoints import folder, own, s4, toml
from sensprobe.checkpoints.files import require_file
from sensprobe.errors import CheckpointError, UsageError
from sensprobe.models import Model

__all__ = ["NORMS", "is_checkpoint_folder", "read_checkpoint", "weights_fingerprint"]

is_checkpoint_folder = folder.is_checkpoint

NORMS = ("none", "pre", "post")


def read_checkpoint(path: Path, norm: str | None = None) -> tuple[Model, dict[str, Any]]:
    """The model in a checkpoint, and the file's header or what it records.

    A checkpoint is a file, a model.toml, or a folder that mamba_ssm or transformers wrote.

    `norm` says where a state-spaces/s4 checkpoint has its LayerNorm (none, pre or post; post where
    nothing is said); other files say so themselves. Raises CheckpointError for a file that is
    missing, damaged, unsafe or of another kind of model, UsageError for a norm there is not.
    """
    if norm is not None and norm not in NORMS:
        raise UsageError(f"norm {norm!r} is not one of {', '.join(NORMS)}.")
    if folder.is_checkpoint(path):
        return folder.read(path)
    require_file(path)
    if path.name in folder.FILES and folder.is_checkpoint(path.parent):
        raise CheckpointError(
            f"{path} has its config.json beside it; name its folder: {path.parent}."
        )
    if path.suffix == ".toml":
        return toml.read(path)
    if path.suffix == ".safetensors":
        return own.read(path)
    return s4.read(path, norm or "post")


def weights_fingerprint(weights: Mapping[str, Tensor], config: Any) -> str:
    """Identity of a model: its config and every weight, to the bit."""
    digest = hashlib.sha256(repr(config).replace(", head='linear'", "").encode())
    for name in sorted(weights):
        tensor = weights[name].detach()
        real = torch.view_as_real(tensor) if tensor.is_complex() else tensor
        digest.update(name.encode())
        digest.update(real.contiguous().numpy().tobytes())
    return digest.hexdigest()[:16]
