"""Folders of mamba_ssm and transformers: a config.json beside one file of weights, or its shards.

mamba_ssm      config.json (sizes and `ssm_cfg`), pytorch_model.bin
transformers   config.json (`model_type` mamba, mamba2 or falcon_mamba), safetensors

Both name their tensors `backbone.layers.{i}.mixer.…`, Mamba-1's and Mamba-2's alike; a base model
saved without its head has them without `backbone.`. A head tied to the embedding may be in the file
or not; if it is, the two must be equal. A head that is not tied must be there.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sensprobe.checkpoints import hf, mamba_ssm, own
from sensprobe.checkpoints.entries import state_of
from sensprobe.checkpoints.exported import CONFIG, KEY
from sensprobe.checkpoints.files import ReadTensors, read_safetensors, read_torch
from sensprobe.checkpoints.headers import Header, Tensors, is_tensor
from sensprobe.checkpoints.keymap import Rule
from sensprobe.documents import DocumentError, read_json, schema, shown
from sensprobe.errors import CheckpointError, UsageError

FILES = (
    "model.safetensors",
    "model.safetensors.index.json",
    "pytorch_model.bin",
    "pytorch_model.bin.index.json",
)
"""Weights in the order that transformers looks for them: a whole file beside an index is newer."""
BACKBONE = "backbone."
RULES = [
    Rule("backbone.embedding.weight", "embedding.weight"),
    Rule("backbone.embeddings.weight", "embedding.weight"),
    Rule("backbone.layers.{i}.mixer.conv1d.*", "layers.{i}.conv.*"),
    Rule("backbone.layers.{i}.mixer.norm.*", "layers.{i}.gated_norm.*"),
    Rule("backbone.layers.{i}.mixer.*", "layers.{i}.*"),
    Rule("backbone.layers.{i}.norm.*", "layers.{i}.norm.*"),
    Rule("backbone.norm_f.*", "final.norm.*"),
    Rule("lm_head.*", "head.*"),
]
RULES += [
    Rule(rule.theirs.removeprefix(BACKBONE), rule.ours)
    for rule in RULES
    if rule.theirs.startswith(BACKBONE)
]
"""The names of a language model come first, then those of a base model saved without a head."""
TABLES, HEAD = ("embedding.weight", "embeddings.weight"), "lm_head.weight"


def is_checkpoint(path: Path) -> bool:
    """True if a folder holds a config.json that reads as one of mamba_ssm's or transformers'."""
    try:
        document = read_json(path / CONFIG, infinite=True)
    except DocumentError:
        return False
    if not isinstance(document, dict) or KEY in document:  # of `sensprobe export`
        return False
    return hf.described(document) or mamba_ssm.described(document)


def read(path: Path, read_tensors: ReadTensors = read_safetensors) -> own.Parameters:
    """The parameters in a folder for which `is_checkpoint` holds."""
    source = path / CONFIG
    try:
        document = read_json(source, infinite=True)
    except DocumentError as error:
        raise CheckpointError(f"{source} cannot be read: {error}. Copy the folder again.") from None
    _require_unquantized(document, path)
    reader = mamba_ssm if mamba_ssm.described(document) else hf
    try:
        config = reader.config_from(document, source)
    except UsageError as error:
        raise CheckpointError(f"{source}: {error}") from None
    weights, tensors = _weights(path, read_tensors)
    rules = RULES
    if config.tied_head:
        _require_tied(tensors, weights)
        rules = [Rule("lm_head.weight", ""), *RULES]
    else:
        _require_head(tensors, weights)
    return own.fit(tensors, rules, config, weights, {})


def _require_unquantized(document: Mapping[str, Any], path: Path) -> None:
    """CheckpointError for weights that are packed for a runtime."""
    described = document.get("quantization_config")
    packed = (path / "hf_quant_config.json").is_file() or described is not None
    if packed:
        method = described.get("quant_method") if isinstance(described, Mapping) else None
        runtime = method or "modelopt"
        raise CheckpointError(
            f"{path} holds weights packed for {runtime}, which only that reads. Name the model it "
            "was made from; a folder of `sensprobe export --for` has a plan.json for --plan."
        )


def _ending(tensors: Tensors, *names: str) -> Any:
    """The first tensor called so, whatever stands before its name."""
    ends = tuple(f".{name}" for name in names)
    found = (t for name, t in tensors.items() if f".{name}".endswith(ends))
    return next((t for t in found if is_tensor(t)), None)


def _require_head(tensors: Mapping[str, Any], source: Path) -> None:
    """CheckpointError for a base model whose config promises a head that is not the embedding."""
    table, head = _ending(tensors, *TABLES), _ending(tensors, HEAD)
    if table is not None and head is None:
        raise CheckpointError(
            f"{source} has no {HEAD}, and the config does not tie the head to the embedding: the "
            "file holds the base model alone, and another head would be a random one. Set "
            "tie_word_embeddings (of mamba_ssm: tie_embeddings) to true in config.json if the "
            "model was trained so, or save the model with its head."
        )


def _require_tied(tensors: Tensors, source: Path) -> None:
    """CheckpointError for a head that differs from the embedding it is tied to; of headers only the
    shapes can."""
    table, head = _ending(tensors, *TABLES), _ending(tensors, HEAD)
    if table is None or head is None:
        return
    known = isinstance(table, Header) or isinstance(head, Header)
    if not (table.shape == head.shape if known else table.equal(head)):
        raise CheckpointError(
            f"{source}: the config ties the head to the embedding, and lm_head.weight differs from "
            "it. Set tie_embeddings (tie_word_embeddings) to false in config.json to keep both, or "
            "take lm_head.weight out."
        )


def _weights(path: Path, read_tensors: ReadTensors) -> tuple[Path, dict[str, Any]]:
    """The weight file (of shards, their index), and the tensors."""
    found = next((path / name for name in FILES if (path / name).is_file()), None)
    if found is None:
        held = ", ".join(sorted(p.name for p in path.iterdir())[:8])
        raise CheckpointError(
            f"{path} has a config.json and none of {', '.join(FILES)}; it holds {held}. Download "
            "the weights too."
        )
    if found.suffix != ".json":
        return found, _file(found, read_tensors)
    tensors: dict[str, Any] = {}
    shards = _shards(found)
    if gone := [name for name in shards if not (path / name).is_file()]:
        others = [name for name in FILES if name != found.name and (path / name).is_file()]
        instead = f", or take {found.name} away to read {others[0]}" if others else ""
        raise CheckpointError(
            f"{found} names {len(shards)} file(s) and {len(gone)} of them are not there: "
            f"{', '.join(gone[:5])}. Download them{instead}."
        )
    for name, members in shards.items():
        shard = _file(path / name, read_tensors)
        if absent := sorted(set(members) - set(shard)):
            raise CheckpointError(
                f"{path / name} lacks {len(absent)} tensor(s) that {found.name} says it has: "
                f"{', '.join(absent[:5])}. Copy the folder again."
            )
        tensors |= shard
    return found, tensors


def _file(path: Path, read_tensors: ReadTensors) -> dict[str, Any]:
    safe = path.suffix == ".safetensors"
    return state_of(read_tensors(path)[0] if safe else read_torch(path), path)


def _shards(index: Path) -> dict[str, list[str]]:
    """File name -> the tensors in it."""
    try:
        document = read_json(index)
        schema("index").require(document)
    except DocumentError as error:
        raise CheckpointError(
            f"{index} is not an index of shards ({error}); it needs a weight_map from tensors to "
            "files. Copy the folder again."
        ) from None
    shards: dict[str, list[str]] = {}
    for tensor, file in document["weight_map"].items():
        shards.setdefault(file, []).append(tensor)
    for name in shards:
        if Path(name).name != name or not name.isprintable():
            raise CheckpointError(
                f"{index} names the file {shown(name)!r}, which is not in its folder."
            )
    return shards
