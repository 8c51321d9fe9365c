"""Reading weights. Nothing here executes what a file contains."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sensprobe.checkpoints import folder, own, s4, toml
from sensprobe.checkpoints.files import require_file
from sensprobe.checkpoints.identity import earlier_name, earlier_weights, fingerprint
from sensprobe.checkpoints.own import Parameters
from sensprobe.checkpoints.stored import bytes_a_value, stored_dtypes
from sensprobe.errors import CheckpointError, UsageError
from sensprobe.models import Model

__all__ = [
    "NORMS",
    "Checkpoint",
    "bytes_a_value",
    "is_checkpoint_folder",
    "open_checkpoint",
    "read_checkpoint",
]

is_checkpoint_folder = folder.is_checkpoint

NORMS = ("none", "pre", "post")


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A model, what its file says of itself, and its name: of what the file holds, not of what a
    processor makes of it (see `identity`)."""

    model: Model
    header: Mapping[str, Any]
    fingerprint: str
    stored: Mapping[str, str]  # the type of every weight site in the file


def read_checkpoint(path: Path, norm: str | None = None) -> tuple[Model, Mapping[str, Any]]:
    """The model in a checkpoint and the file's header, as `open_checkpoint`."""
    found = open_checkpoint(path, norm)
    return found.model, found.header


def open_checkpoint(path: Path, norm: str | None = None) -> Checkpoint:
    """The model in a checkpoint, with its header and its name.

    A checkpoint is a file, a model.toml, or a folder that mamba_ssm or transformers wrote.

    `norm` says where a state-spaces/s4 checkpoint has its LayerNorm (none, pre or post; post where
    nothing is said); other files say so themselves. Raises CheckpointError for a file that is
    missing, damaged, unsafe or of another kind of model, UsageError for a norm there is not.
    """
    stored = _parameters(path, norm)
    model = own.build(stored.tensors, stored.config, stored.source)
    name = fingerprint(model.family, stored.config, stored.tensors)
    dtypes = stored_dtypes(stored.tensors, model.sites.values())
    return Checkpoint(model, stored.header, name, dtypes)


def earlier_names(path: Path, norm: str | None = None) -> frozenset[str]:
    """What `open_checkpoint`'s model was called before, as this machine computes it."""
    stored = _parameters(path, norm)
    model = own.build(stored.tensors, stored.config, stored.source)
    weights = earlier_weights(model.weights, stored.tensors, stored.config)
    return frozenset([earlier_name(stored.config, weights)])


def _parameters(path: Path, norm: str | None) -> Parameters:
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
