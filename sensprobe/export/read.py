"""Reading an artefact: JSON and safetensors, checked against each other before anything is decoded.

config.json -> model family and sizes -> sites
plan.json   -> a scheme a site        -> which tensors there must be, to the byte
model.safetensors                     -> those tensors, and nothing else
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from sensprobe import ops
from sensprobe.checkpoints.exported import (
    CONFIG,
    KEY,
    PLAN,
    WEIGHTS,
    plan_of,
    read_config,
    require_files,
    sizes_of,
)
from sensprobe.checkpoints.files import read_safetensors, require_finite
from sensprobe.checkpoints.fit import require_shapes
from sensprobe.checkpoints.unchanged import (
    require_complete,
    require_unchanged,
)
from sensprobe.documents import read_json
from sensprobe.errors import CheckpointError
from sensprobe.export import compact, document
from sensprobe.export.tensors import Entry, layout, scales_of, weights_of
from sensprobe.memory import free_bytes, room
from sensprobe.models import FAMILIES, Model
from sensprobe.numerics.rounding import real_view
from sensprobe.numerics.taps import RoundingTap
from sensprobe.plans.plan import Resolved
from sensprobe.plans.sites import Kind, Site


@dataclass(frozen=True)
class Artefact:
    """An exported model. `model` has the decoded weights; `tap` runs it under `plan`, as simulated.

    `plan` names sites in full; `config` is the document in config.json; `tensors` is what the file
    holds, packed.
    """

    model: Model
    tap: RoundingTap
    plan: Resolved
    config: dict[str, Any]
    tensors: Mapping[str, Tensor]


def load_artefact(folder: Path) -> Artefact:
    """The model in a folder that `export_model` wrote; CheckpointError says what is wrong."""
    require_files(folder)
    config = read_config(folder / CONFIG)
    if config[KEY] == 1:
        require_complete(config, folder / CONFIG)
    name, sizes = sizes_of(config, folder)
    family = FAMILIES[name]
    sites = family.sites(sizes)
    plan = plan_of(folder, config, sites)
    entries = layout(sites, plan)
    if document.described(entries, config) != config["tensors"]:
        raise CheckpointError(
            f"{folder}: {CONFIG} and {PLAN} do not describe the same tensors: one of them was "
            "changed. Copy the folder again, or export it again."
        )
    if config[KEY] > 1:
        require_unchanged(config, read_json(folder / PLAN), folder / CONFIG)
    with _room(folder, entries, sites):
        tensors = _tensors(folder / WEIGHTS, entries, config)
        weights = weights_of(tensors, sites, plan)
    require_finite({name: real_view(w) for name, w in weights.items()}, folder / WEIGHTS)
    scales = scales_of(tensors, sites, plan)
    tap = RoundingTap(plan, weights, scales, round=ops.rounded)
    return Artefact(family.model(sizes, weights), tap, plan, config, tensors)


def _room(
    folder: Path, entries: Mapping[str, Entry], sites: Mapping[str, Site]
) -> AbstractContextManager[None]:
    """Of the packed weights, and of them decoded: both are held while a file is checked."""
    packed = sum(entry.size_bytes for entry in entries.values())
    decoded = sum(4 * site.reals for site in sites.values() if site.kind is Kind.WEIGHT)
    return room(
        packed + decoded,
        free_bytes(),
        f"{folder}: {packed:,} bytes of packed weights, and {decoded:,} as they are decoded while "
        "the file is checked",
        "Free some memory, or load it on a machine with more.",
    )


def _tensors(
    path: Path, entries: Mapping[str, Entry], config: Mapping[str, Any]
) -> dict[str, Tensor]:
    tensors, _ = read_safetensors(path)
    if isinstance(config["tensors"], list):
        tensors = _split(tensors, entries, path)
    shapes = {name: entry.stored_shape for name, entry in entries.items()}
    require_shapes(tensors, shapes, path, config["family"])
    for name, entry in entries.items():
        if tensors[name].dtype != entry.dtype:
            raise CheckpointError(
                f"{path}: {name} is {tensors[name].dtype}, and the plan needs {entry.dtype}. "
                "Export it again."
            )
    _require_scales(tensors, entries, path)
    if document.sha256_of(path) != config["weights"]["sha256"]:
        raise CheckpointError(
            f"{path} is not the file {CONFIG} was written with (its SHA-256 differs): it is "
            "damaged or was changed. Copy the folder again, or export it again."
        )
    return tensors


def _split(
    tensors: Mapping[str, Tensor], entries: Mapping[str, Entry], path: Path
) -> dict[str, Tensor]:
    """The tensors of a file of the compact form."""
    size = sum(entry.size_bytes for entry in entries.values())
    packed = tensors.get(compact.NAME)
    fits = packed is not None and packed.dtype == torch.uint8 and packed.shape == (size,)
    if packed is None or not fits or len(tensors) > 1:
        raise CheckpointError(
            f"{path} must hold one tensor, {compact.NAME}, of {size:,} bytes, as {CONFIG} says. "
            "Copy the folder again, or export it again."
        )
    return compact.split(packed, entries)


def _require_scales(
    tensors: Mapping[str, Tensor], entries: Mapping[str, Entry], path: Path
) -> None:
    """CheckpointError where a scale is one that no export writes: they are positive and finite."""
    for name, entry in entries.items():
        if not (name.endswith(".scale") and entry.dtype.is_floating_point):
            continue
        values = tensors[name].flatten()
        wrong = values[~(torch.isfinite(values) & (values > 0))]
        if len(wrong):
            raise CheckpointError(
                f"{path}: the scales of {entry.site} are not all positive numbers ({name}: "
                f"{len(wrong)} of {len(values)}, the first is {wrong[0].item():g}): the file is "
                "damaged. Copy the folder again, or export it again."
            )
