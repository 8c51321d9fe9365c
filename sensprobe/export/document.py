"""`config.json` of an artefact, and the names of the files in its folder.

The document is described by `config.schema.json`, so that a reader in another language needs no
Python to unpack the weights.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sensprobe import __version__
from sensprobe.checkpoints.exported import FORMAT, KEY, WEIGHTS
from sensprobe.data.special import TRAVELLING
from sensprobe.documents import schema_of
from sensprobe.export import compact
from sensprobe.export.tensors import Entry
from sensprobe.models import Model
from sensprobe.models.family import config_document
from sensprobe.numerics import SEMANTICS

TOKENIZER = "tokenizer.json"
TEXT = frozenset({TOKENIZER, *TRAVELLING})
"""What a language model's text is read with, and where it starts and stops."""
QUANT_CONFIG, TYPES = "hf_quant_config.json", "tensor-types.txt"
"""What ModelOpt's folders and llama.cpp's have besides."""
OPTIONAL = TEXT | {QUANT_CONFIG, TYPES}
MEANING = {"classification": "logits", "regression": "targets", "language": "logits"}


def describe(
    name: str,
    model: Model,
    task: str,
    entries: Mapping[str, Entry],
    weights: bytes,
    fingerprints: Mapping[str, str],
    *,
    compactly: bool = False,
) -> dict[str, Any]:
    """The document of an artefact whose weight file is `weights`, without its digest."""
    return {
        KEY: FORMAT,
        "name": name,
        "tool": f"sensprobe {__version__}",
        "semantics": SEMANTICS,
        "family": model.family,
        "config": config_document(model.config),
        "task": task,
        "input": _input(model),
        "output": {
            "axes": ["batch", *_steps(model), model.config.d_output],
            "dtype": "float32",
            "meaning": MEANING.get(task, "outputs"),
        },
        "fingerprints": {key: value for key, value in fingerprints.items() if value},
        "weights": {
            "file": WEIGHTS,
            "sha256": sha256(weights),
            "data_bytes": sum(entry.size_bytes for entry in entries.values()),
        },
        "tensors": compact.rows(entries) if compactly else tensors(entries),
    }


def _input(model: Model) -> dict[str, Any]:
    if model.reads_tokens:
        return {"axes": ["batch", "length"], "dtype": "int64"}
    return {"axes": ["batch", "length", model.config.d_input], "dtype": "float32"}


def _steps(model: Model) -> list[str]:
    """The axis of outputs at every step."""
    return ["length"] if model.config.pooling == "none" else []


def tensors(entries: Mapping[str, Entry]) -> dict[str, Any]:
    """The document's list of tensors."""
    return {name: entry.to_json() for name, entry in entries.items()}


def described(entries: Mapping[str, Entry], config: Mapping[str, Any]) -> Any:
    """The document's `tensors` in the form that `config` has them in."""
    return compact.rows(entries) if isinstance(config["tensors"], list) else tensors(entries)


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def sha256_of(path: Path) -> str:
    """Of a file, which is not held in memory."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def lines(document: Mapping[str, Any]) -> bytes:
    """JSON of few bytes that a person can read: a line an entry, of lists and tables of many a line
    each of theirs."""
    inside = ",\n".join(f"{_short(k)}:{_inner(v)}" for k, v in document.items())
    return f"{{\n{inside}\n}}\n".encode()


def _inner(value: Any) -> str:
    if isinstance(value, list) and value and isinstance(value[0], list):
        return "[\n" + ",\n".join(map(_short, value)) + "\n]"
    if isinstance(value, dict) and value and isinstance(next(iter(value.values())), dict):
        return "{\n" + ",\n".join(f"{_short(k)}:{_short(v)}" for k, v in value.items()) + "\n}"
    return _short(value)


def _short(value: Any) -> str:
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False)


def to_bytes(document: Mapping[str, Any]) -> bytes:
    return (json.dumps(document, indent=1, ensure_ascii=False) + "\n").encode()


def schema() -> dict[str, Any]:
    """The JSON Schema of config.json."""
    return schema_of("sensprobe.export", "config").document
