"""config.json of mamba_ssm's MambaLMHeadModel, whose missing keys take the package's defaults."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sensprobe.checkpoints.hf import SSM_MIXER_NAMES, SSM_NAMES, known_kind
from sensprobe.errors import CheckpointError
from sensprobe.models import layouts

DEFAULTS: dict[str, Any] = {
    "d_model": 2560,
    "d_intermediate": 0,
    "n_layer": 64,
    "vocab_size": 50277,
    "ssm_cfg": {},
    "attn_layer_idx": [],
    "rms_norm": True,
    "pad_vocab_size_multiple": 8,
    "tie_embeddings": True,
}
PACKAGE = "mamba_ssm"
FIRST = "Mamba1"
"""The kind of layer where a config does not say."""
EPS = 1e-5
"""The eps of every norm; the package does not write it to its configs."""


def described(document: Mapping[str, Any]) -> bool:
    """True if a config.json is one of mamba_ssm's.

    It may name a `model_type` too; one that also has transformers' sizes is one of transformers'.
    """
    sized = "n_layer" in document and ("ssm_cfg" in document or "d_model" in document)
    return sized and not ("model_type" in document and "hidden_size" in document)


def config_from(document: Mapping[str, Any], source: Path) -> Any:
    """The config of a language model; CheckpointError for what it has beside mixers, UsageError
    for sizes that no model of its family has."""
    document = _with_transformers_names(document, source)
    given = {**DEFAULTS, **document}
    if given["attn_layer_idx"] or given["d_intermediate"]:
        what = "attention layers" if given["attn_layer_idx"] else "MLPs between its mixers"
        raise CheckpointError(f"{source}: this model has {what}; models of mixers alone are read.")
    if not isinstance(given["ssm_cfg"], Mapping):
        raise CheckpointError(f"{source}: ssm_cfg is {given['ssm_cfg']!r}, not a table.")
    known, layer = layouts(PACKAGE), given["ssm_cfg"].get("layer", FIRST)
    if not isinstance(layer, str) or layer not in known:
        raise CheckpointError(
            f"{source}: its layers are {layer!r}; this reads {' and '.join(known)}."
        )
    vocabulary, multiple = given["vocab_size"], given["pad_vocab_size_multiple"]
    if type(vocabulary) is not int or type(multiple) is not int or multiple < 1:
        raise CheckpointError(
            f"{source}: vocab_size {vocabulary!r} and pad_vocab_size_multiple {multiple!r} must be "
            "whole numbers."
        )
    ssm = {"bias": False, "conv_bias": True, **known[layer].defaults, **given["ssm_cfg"]}
    around = {
        "encoder": "embedding",
        "d_input": -(-vocabulary // multiple) * multiple,
        "d_output": -(-vocabulary // multiple) * multiple,
        "d_model": given["d_model"],
        "layers": given["n_layer"],
        "norm_kind": "rms" if given["rms_norm"] else "layer",
        "norm_eps": EPS,
        "pooling": "none",
        "head_bias": False,
        "tied_head": given["tie_embeddings"],
        **{name: ssm[name] for name in ("d_state", "d_conv", "expand", "bias", "conv_bias")},
    }
    return known[layer].read(around, ssm)


def _with_transformers_names(document: Mapping[str, Any], source: Path) -> Mapping[str, Any]:
    """A config that names a `model_type`, with its kind of layer and what it gives under the names
    of transformers alone."""
    if not isinstance(document.get("model_type"), str):
        return document
    theirs = known_kind(document, source)
    kind = next((k for k, layout in layouts(PACKAGE).items() if layout.same_as == theirs), None)
    ssm = document.get("ssm_cfg", {})
    if not isinstance(ssm, Mapping):
        return document
    if kind is None or ssm.get("layer", kind) != kind:
        raise CheckpointError(
            f"{source} says model_type {document['model_type']!r} and has the sizes of a model of "
            f"mamba_ssm whose layers are {ssm.get('layer', FIRST)!r}; they are not the same."
        )
    outer = {name: document[theirs] for name, theirs in SSM_NAMES.items() if theirs in document}
    inner = {n: document[theirs] for n, theirs in SSM_MIXER_NAMES.items() if theirs in document}
    flat = {n: document[n] for n in SSM_MIXER_NAMES if n in document}
    return {**outer, **document, "ssm_cfg": {"layer": kind, **inner, **flat, **ssm}}
