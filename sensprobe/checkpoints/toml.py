"""`model.toml`: a checkpoint together with what its file does not say.

The keys: `file`, the weights, beside the toml; `format`, s4 (state-spaces/s4 example.py) or own;
`family`; and a table `[config]` with anything of the family's config, as in

    file = "ckpt.pth"
    format = "s4"
    config.norm = "post"
"""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

from sensprobe.checkpoints import own, s4
from sensprobe.checkpoints.files import read_safetensors, require_file
from sensprobe.errors import CheckpointError, UsageError
from sensprobe.models.s4d import FAMILY, S4D

KEYS = {"file", "format", "family", "config"}
Document = dict[str, Any]


def read(path: Path) -> tuple[S4D, dict[str, Any]]:
    """The model a model.toml describes."""
    require_file(path)
    try:
        document = tomllib.loads(path.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, RecursionError, OSError) as error:
        raise CheckpointError(f"{path} is not valid TOML: {error}.") from None
    if unknown := sorted(set(document) - KEYS):
        raise CheckpointError(
            f"{path}: unknown key(s) {', '.join(unknown)}; known: {', '.join(sorted(KEYS))}."
        )
    if not isinstance(document.get("file"), str):
        raise CheckpointError(f'{path}: `file = "…"` must name the weights, relative to the toml.')
    weights = path.parent / document["file"]
    config = document.get("config", {})
    if not isinstance(config, dict):
        raise CheckpointError(f"{path}: config is {config!r}; it must be a table, [config].")
    kind = document.get("format", "s4" if weights.suffix != ".safetensors" else "own")
    if not isinstance(kind, str) or kind not in _READERS:
        raise CheckpointError(f"{path}: format {kind!r} is unknown; use {' or '.join(_READERS)}.")
    return _READERS[kind](path, weights, document, config)


def _read_s4(
    path: Path, weights: Path, document: Document, config: Document
) -> tuple[S4D, dict[str, Any]]:
    if unknown := sorted(set(config) - {"norm"}):
        raise CheckpointError(
            f"{path}: format s4 takes only `norm` in [config], not {', '.join(unknown)}; its file "
            "has the sizes."
        )
    if (family := document.get("family", FAMILY)) != FAMILY:
        raise CheckpointError(f"{path}: format s4 is of family {FAMILY}, not {family!r}.")
    try:
        return s4.read(weights, config.get("norm", "post"))
    except UsageError as error:
        raise CheckpointError(f"{path}: config.{error}") from None


def _read_own(
    path: Path, weights: Path, document: Document, config: Document
) -> tuple[S4D, dict[str, Any]]:
    tensors, header = read_safetensors(weights)
    if header:
        own.require_format(header, weights)
    recorded = header.get("config", {})
    described = {
        "family": document.get("family", header.get("family")),
        "config": {**recorded, **config} if isinstance(recorded, dict) else recorded,
    }
    return own.build(tensors, own.config_from(described, path)[1], weights), header


_READERS = {"s4": _read_s4, "own": _read_own}
