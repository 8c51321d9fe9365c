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
from sensprobe.models.s4d import S4D

KEYS = {"file", "format", "family", "config"}


def read(path: Path) -> tuple[S4D, dict[str, Any]]:
    """The model a model.toml describes."""
    require_file(path)
    try:
        document = tomllib.loads(path.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, OSError) as error:
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
    if kind == "s4":
        if unknown := sorted(set(config) - {"norm"}):
            raise CheckpointError(
                f"{path}: format s4 takes only `norm` in [config], not {', '.join(unknown)}."
            )
        try:
            return s4.read(weights, config.get("norm", "post"))
        except UsageError as error:
            raise CheckpointError(f"{path}: config/{error}") from None
    if kind == "own":
        tensors, header = read_safetensors(weights)
        described = {
            "family": document.get("family", header.get("family")),
            "config": {**header.get("config", {}), **config},
        }
        return own.build(tensors, own.config_from(described, path)[1], weights), header
    raise CheckpointError(f"{path}: format {kind!r} is unknown; use s4 or own.")
