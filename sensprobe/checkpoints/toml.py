"""`model.toml`: a checkpoint together with what its file does not say.

README.md beside this module has every key, parameter and config field with an example each. The
keys: `file`, the weights, in the folder of the toml or below it; `format`, s4 (state-spaces/s4
example.py), s5 (see `s5`), own or keys; `family`; `entry`, which of several state_dicts in the
file is read (see `entries`); a table `[config]` with anything of the family's config, as in

    file = "ckpt.pth"
    format = "s4"
    config.norm = "post"

and, of format keys, a table `[keys]` from the file's names to those of our parameters (see
`keymap`), for any file of tensors: safetensors, or what torch.save made of a state_dict.

    file = "classifier.safetensors"
    family = "mamba"
    config = { d_input = 57, d_output = 6, d_model = 64, dt_rank = 4, norm = "none" }
    [keys]
    "linear_in.*" = "encoder.*"
    "mamba.conv1d.*" = "layers.0.conv.*"

A head of several layers is a list in [config], as nn.Sequential has them (see
`models.output_head`), and its parameters have its numbers:

    config.head = ["linear 64", "relu", "dropout", "linear"]
    keys = { "classifier.*" = "head.*" }

`{i}` carries numbers of layers over: "blocks.{i}.mamba.*" = "layers.{i}.*". What is mapped to "" is
left unread, whatever it holds.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from sensprobe.checkpoints import own, s4, s5, s5_parts
from sensprobe.checkpoints.entries import state_of
from sensprobe.checkpoints.files import (
    ReadTensors,
    read_headers,
    read_safetensors,
    read_torch,
    require_file,
)
from sensprobe.checkpoints.keymap import rules_from
from sensprobe.checkpoints.sizes import config_from
from sensprobe.documents import DocumentError, read_toml, shown
from sensprobe.errors import CheckpointError, UsageError
from sensprobe.models.output_head import DEFAULT

KEYS = {"file", "format", "family", "entry", "config", "keys"}
Document = dict[str, Any]


def read(path: Path, read_tensors: ReadTensors = read_safetensors) -> own.Parameters:
    """The parameters of the model that a model.toml describes."""
    require_file(path)
    try:
        document = read_toml(path)
    except DocumentError as error:
        raise CheckpointError(f"{path} is not valid TOML: {error}.") from None
    if unknown := sorted(set(document) - KEYS):
        raise CheckpointError(
            f"{path}: unknown key(s) {', '.join(unknown)}; known: {', '.join(sorted(KEYS))}."
        )
    if not isinstance(document.get("file"), str):
        raise CheckpointError(f'{path}: `file = "…"` must name the weights, relative to the toml.')
    weights = _inside(path, document["file"])
    config = document.get("config", {})
    if not isinstance(config, dict):
        raise CheckpointError(f"{path}: config is {config!r}; it must be a table, [config].")
    if not isinstance(document.get("entry", ""), str):
        raise CheckpointError(
            f"{path}: entry is {document['entry']!r}; write the name of one of the file's entries, "
            'entry = "ema".'
        )
    kind = document.get("format", _usual(document, weights))
    if not isinstance(kind, str) or kind not in _READERS:
        raise CheckpointError(f"{path}: format {kind!r} is unknown; use {_FORMATS}.")
    return _READERS[kind](path, weights, document, config, read_tensors)


def _inside(path: Path, name: str) -> Path:
    """The file of that name in the folder of a toml, whoever wrote it: CheckpointError for one that
    lies elsewhere, by its name or by a link."""
    folder, weights = Path(os.path.realpath(path.parent)), path.parent / name
    leads = "\0" in name or os.path.isabs(name) or len(name) > 500
    if leads or not Path(os.path.realpath(weights)).is_relative_to(folder):  # a loop is no error
        raise CheckpointError(
            f"{path}: file {shown(name)!r} is not in the folder of the toml, and no other is "
            "opened. Put the weights beside the toml, or the toml beside the weights."
        )
    return weights


def _usual(document: Document, weights: Path) -> str:
    """The format of a toml that does not say."""
    if weights.suffix in s5.SUFFIXES:
        return "s5"
    if "keys" in document:
        return "keys"
    return "s4" if weights.suffix != ".safetensors" else "own"


def _read_s4(
    path: Path, weights: Path, document: Document, config: Document, _: ReadTensors
) -> own.Parameters:
    if unknown := sorted(set(config) - {"norm", "head"}):
        raise CheckpointError(
            f"{path}: format s4 takes only `norm` and `head` in [config], not "
            f"{', '.join(unknown)}; its file has the sizes."
        )
    ours = s4.layout().kind
    if (family := document.get("family", ours)) != ours:
        raise CheckpointError(f"{path}: format s4 is of family {ours}, not {family!r}.")
    try:
        norm, head = config.get("norm", "post"), config.get("head", DEFAULT)
        return s4.read(weights, norm, document.get("entry"), head)
    except UsageError as error:
        raise CheckpointError(f"{path}: config.{error}") from None


def _read_s5(
    path: Path, weights: Path, document: Document, config: Document, read_tensors: ReadTensors
) -> own.Parameters:
    if unknown := sorted(set(config) - set(s5_parts.OPTIONS)):
        raise CheckpointError(
            f"{path}: format s5 takes only {', '.join(s5_parts.OPTIONS)} in [config], not "
            f"{', '.join(unknown)}; its file has the rest."
        )
    if (family := document.get("family", "s5")) != "s5":
        raise CheckpointError(f"{path}: format s5 is of family s5, not {family!r}.")
    rules = rules_from(_keys(path, document), path)
    loaded = s5.load(weights) if s5.only_here(weights) else _tensors(weights, read_tensors)
    headers = read_tensors is read_headers
    try:
        return s5.read(loaded, weights, config, document.get("entry"), rules, headers)
    except UsageError as error:
        raise CheckpointError(f"{path}: config.{error}") from None


def _read_own(
    path: Path, weights: Path, document: Document, config: Document, read_tensors: ReadTensors
) -> own.Parameters:
    tensors, header = read_tensors(weights)
    if header:
        own.require_format(header, weights)
    recorded = header.get("config", {})
    described = {
        "family": document.get("family", header.get("family")),
        "config": {**recorded, **config} if isinstance(recorded, dict) else recorded,
    }
    state = state_of(tensors, weights, document.get("entry"))
    return own.fit(state, [], config_from(described, path)[1], weights, header)


def _read_keys(
    path: Path, weights: Path, document: Document, config: Document, read_tensors: ReadTensors
) -> own.Parameters:
    rules = rules_from(_keys(path, document), path)
    described = {"family": document.get("family"), "config": config}
    sizes = config_from(described, path)[1]
    state = state_of(_tensors(weights, read_tensors), weights, document.get("entry"))
    return own.fit(state, rules, sizes, weights, {}, every_rule=True)


def _keys(path: Path, document: Document) -> Document:
    table = document.get("keys", {})
    if not isinstance(table, dict):
        raise CheckpointError(f"{path}: keys is {table!r}; it must be a table, [keys].")
    return table


def _tensors(weights: Path, read_tensors: ReadTensors) -> Document:
    return read_tensors(weights)[0] if weights.suffix == ".safetensors" else read_torch(weights)


_READERS = {"s4": _read_s4, "s5": _read_s5, "own": _read_own, "keys": _read_keys}
_FORMATS = "s4, s5, own or keys"
