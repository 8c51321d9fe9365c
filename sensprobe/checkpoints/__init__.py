"""Reading weights. Nothing here executes what a file contains.

`open_checkpoint` returns a model; `describe` returns what is known of it without its weights, and
imports no torch where the weights are safetensors.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sensprobe.checkpoints import exported, folder, own, s4, s5, toml
from sensprobe.checkpoints.exported import is_artefact
from sensprobe.checkpoints.files import (
    ReadTensors,
    read_headers,
    read_safetensors,
    read_torch,
    require_file,
)
from sensprobe.checkpoints.headers import bytes_a_value
from sensprobe.checkpoints.identity import earlier_name, fingerprint
from sensprobe.checkpoints.own import Parameters
from sensprobe.checkpoints.stored import stored_dtypes
from sensprobe.errors import CheckpointError, UsageError
from sensprobe.models import Model, family_of
from sensprobe.models.family import Family
from sensprobe.plans.plan import Resolved
from sensprobe.plans.sites import Site

__all__ = [
    "NORMS",
    "Checkpoint",
    "Description",
    "bytes_a_value",
    "describe",
    "is_artefact",
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


@dataclass(frozen=True, slots=True)
class Description:
    """A model's description, known without its weights.

    `stored` has the type of every weight site in the file ("bfloat16"); `plan` is that of an
    exported model, None for any other. `header` is what the file says of itself: the header
    of an own checkpoint, the config.json of an exported folder; empty where it says nothing.
    """

    family: Family
    config: Any
    header: Mapping[str, Any]
    stored: Mapping[str, str]
    plan: Resolved | None = None

    @property
    def sites(self) -> dict[str, Site]:
        return self.family.sites(self.config)

    @property
    def products(self) -> list[tuple[str, str | None, int]]:
        return self.family.products(self.config)

    @property
    def name(self) -> str:
        """The name of the model in its file; "" if there is none."""
        return str(self.header.get("name", ""))


def describe(path: Path, norm: str | None = None) -> Description:
    """The description of the model in a checkpoint or an exported folder.

    The errors are those of `open_checkpoint` and `load_artefact`, but for what only the numbers
    show (weights that are not finite, a tied head that differs, a damaged weight file). A file that
    torch wrote, and not safetensors, is read with torch.
    """
    if not folder.is_checkpoint(path) and is_artefact(path):
        document, config, plan = exported.read(path)
        return Description(family_of(config), config, document, {}, plan)
    found = parameters(path, norm, read_headers)
    family = family_of(found.config)
    dtypes = stored_dtypes(found.tensors, family.sites(found.config).values())
    return Description(family, found.config, found.header, dtypes)


def read_checkpoint(path: Path, norm: str | None = None) -> tuple[Model, Mapping[str, Any]]:
    """The model in a checkpoint and the file's header, as `open_checkpoint`."""
    found = open_checkpoint(path, norm)
    return found.model, found.header


def open_checkpoint(path: Path, norm: str | None = None) -> Checkpoint:
    """The model in a checkpoint, with its header and its name.

    A checkpoint is a file, a model.toml, or a folder that mamba_ssm or transformers wrote.

    `norm` says where a state-spaces/s4 checkpoint has its LayerNorm (none, pre or post; post where
    nothing is said), or one of S5 its norm (pre where nothing is said); other files say so
    themselves. Raises CheckpointError for a file that is missing, damaged, unsafe or of another
    kind of model, UsageError for a norm there is not.
    """
    stored = parameters(path, norm)
    model = own.build(stored.tensors, stored.config, stored.source)
    name = fingerprint(model.family, stored.config, stored.tensors)
    dtypes = stored_dtypes(stored.tensors, model.sites.values())
    return Checkpoint(model, stored.header, name, dtypes)


def earlier_names(path: Path, norm: str | None = None) -> frozenset[str]:
    """The names that the model of a checkpoint had in earlier versions, as this machine computes
    them."""
    stored = parameters(path, norm)
    earlier = family_of(stored.config).earlier
    if earlier is None:
        return frozenset()
    model = own.build(stored.tensors, stored.config, stored.source)
    weights = earlier.weights(model.weights, stored.tensors, stored.config)
    return frozenset([earlier_name(stored.config, weights)])


def parameters(
    path: Path, norm: str | None = None, read_tensors: ReadTensors = read_safetensors
) -> Parameters:
    """The parameters in a checkpoint, under our names, with their config; the errors are those of
    `open_checkpoint`."""
    if norm is not None and norm not in NORMS:
        raise UsageError(f"norm {norm!r} is not one of {', '.join(NORMS)}.")
    if folder.is_checkpoint(path):
        return folder.read(path, read_tensors)
    require_file(path)
    if path.name in folder.FILES and folder.is_checkpoint(path.parent):
        raise CheckpointError(
            f"{path} has its config.json beside it; name its folder: {path.parent}."
        )
    if path.suffix == ".toml":
        return toml.read(path, read_tensors)
    options = {} if norm is None else {"norm": norm}
    if path.suffix == ".safetensors":
        tensors, header = read_tensors(path)
        if not header and s5.has_layers(tensors):
            return s5.read(tensors, path, options)
        if norm is not None:
            raise UsageError(
                f"norm {norm!r} is for checkpoints of state-spaces/s4 and S5; {path} says so "
                "itself, under `norm` of its config. Leave it out."
            )
        return own.found_in(tensors, header, path)
    if s5.only_here(path):
        return s5.read(s5.load(path), path, options, headers=read_tensors is read_headers)
    loaded = read_torch(path)
    if s5.has_layers(loaded):
        return s5.read(loaded, path, options)
    return s4.found_in(loaded, path, norm or "post")
