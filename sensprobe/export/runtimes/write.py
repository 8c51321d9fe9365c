"""Writing a folder for another runtime: whole or not at all, and read back before it is there."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save

from sensprobe.checkpoints.exported import CARD, CONFIG, FILES, PLAN, WEIGHTS
from sensprobe.checkpoints.to_hf import hf_document
from sensprobe.documents.files import named_path
from sensprobe.errors import RunError
from sensprobe.export.document import OPTIONAL, to_bytes
from sensprobe.export.folder import require_place, write_folder
from sensprobe.export.runtimes.card import card_text
from sensprobe.export.runtimes.emit import Emitted
from sensprobe.export.runtimes.fit import Fit
from sensprobe.models.apply import Applier
from sensprobe.plans.cost import cost
from sensprobe.plans.plan import Plan


@dataclass(frozen=True, slots=True)
class Written:
    """Where a folder lies, what its tensors weigh, and how it is loaded from where it was written.

    `weight_bytes` and `state_bytes` are pairs: under the plan, and as the runtime keeps it. (What
    llama.cpp keeps is not in the folder: it makes a file of its own.)
    """

    path: Path
    weight_bytes: tuple[int, int]
    state_bytes: tuple[int, int]
    folder_bytes: int
    use: tuple[str, ...]


def write_for(
    fit: Fit,
    applier: Applier,
    out: Path,
    *,
    name: str,
    batch: int = 1,
    overwrite: bool = False,
    text_files: Mapping[str, bytes] | None = None,
    ids: Mapping[str, Any] | None = None,
) -> Written:
    """Write a fitted plan as folder `out`.

    `text_files` are those the model's text is read with, `ids` what config.json says of the tokens
    that start, end and fill it up.

    Raises UnsupportedError for a model that transformers has no class for, UsageError where `out`
    is taken, RunError where the disk refuses.
    """
    path = named_path(out).resolve()
    document = hf_document(fit.model)
    require_place(path, FILES, overwrite, OPTIONAL)
    emitted = fit.runtime.emit(fit, applier)
    weights, states = _sizes(fit, emitted, batch)
    sizes = [("weights and scales", *weights), (f"state, batch {batch}", *states)]
    files = emitted.files | {
        WEIGHTS: save(emitted.tensors, emitted.metadata),
        CONFIG: to_bytes(document | dict(ids or {}) | {"dtype": emitted.dtype} | emitted.config),
        PLAN: to_bytes(Plan(tuple(fit.plan.items()), name).to_json()),
        CARD: card_text(name, fit, fit.runtime.use(fit, path.name), sizes).encode(),
    }
    files |= text_files or {}
    write_folder(path, files, lambda draft: _require_same(draft, emitted))
    whole = sum(len(content) for content in files.values())
    return Written(path, weights, states, whole, tuple(fit.runtime.use(fit, str(out))))


def _sizes(fit: Fit, emitted: Emitted, batch: int) -> tuple[tuple[int, int], tuple[int, int]]:
    """Bytes of weights and of states: each under the plan, and as the runtime keeps them."""
    sites = fit.model.sites.values()
    before, after = (cost(sites, plan, batch=batch) for plan in (fit.asked, fit.plan))
    data = sum(tensor.nbytes for tensor in emitted.tensors.values())
    kept = after.weight_bytes if emitted.converted else data
    return (before.weight_bytes, kept), (before.state_bytes, after.state_bytes)


def _require_same(folder: Path, emitted: Emitted) -> None:
    """RunError unless the files read back as what was made."""
    json.loads((folder / CONFIG).read_text())
    with safe_open(folder / WEIGHTS, framework="pt") as file:
        names = set(file.keys())
        same = names == set(emitted.tensors) and all(
            torch.equal(_bits(file.get_tensor(n)), _bits(t)) for n, t in emitted.tensors.items()
        )
    if not same:
        raise RunError(
            f"what was written to {folder.parent} does not read back as what was made, so it was "
            "removed. Check the disk and export again."
        )


def _bits(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.contiguous().view(-1).view(torch.uint8)
