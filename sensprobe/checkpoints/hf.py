"""config.json of transformers, by its own names of things (see each family's `layouts`)."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sensprobe.errors import CheckpointError
from sensprobe.models import layouts

PACKAGE = "transformers"
COMMON = {
    "layer_norm_epsilon": 1e-5,
    "expand": 2,
    "conv_kernel": 4,
    "use_bias": False,
    "use_conv_bias": True,
    "hidden_act": "silu",
    "time_step_rank": "auto",
    "time_step_limit": [0.0, float("inf")],
}

SSM_NAMES = {
    "d_model": "hidden_size",
    "n_layer": "num_hidden_layers",
    "tie_embeddings": "tie_word_embeddings",
}
SSM_MIXER_NAMES = {
    "d_state": "state_size",
    "d_conv": "conv_kernel",
    "expand": "expand",
    "dt_rank": "time_step_rank",
    "bias": "use_bias",
    "conv_bias": "use_conv_bias",
    "headdim": "head_dim",
    "ngroups": "n_groups",
    "dt_limit": "time_step_limit",
}
"""mamba_ssm's name of a size -> transformers'; those of mixers stand in `ssm_cfg`."""


def described(document: Mapping[str, Any]) -> bool:
    """True if a config.json is one of transformers'."""
    return isinstance(document.get("model_type"), str)


def config_from(document: Mapping[str, Any], source: Path) -> Any:
    """The config of a language model; CheckpointError for another architecture, UsageError for
    sizes that no model of its family has.

    What the file gives under mamba_ssm's names alone counts, where transformers has a default.
    """
    layout = layouts(PACKAGE)[known_kind(document, source)]
    others = _by_ssm_names(document, source)
    given = {**COMMON, **layout.defaults, **({"num_heads": None} if others else {})}
    given |= {**others, **document}
    if given["hidden_act"] not in ("silu", "swish"):
        raise CheckpointError(
            f"{source}: hidden_act is {given['hidden_act']!r}; only silu is known here."
        )
    around = {
        "encoder": "embedding",
        "d_input": given["vocab_size"],
        "d_output": given["vocab_size"],
        "d_model": given["hidden_size"],
        "layers": given["num_hidden_layers"],
        "norm_eps": given["layer_norm_epsilon"],
        "pooling": "none",
        "head_bias": False,
        "tied_head": given["tie_word_embeddings"],
        "d_state": given["state_size"],
        "d_conv": given["conv_kernel"],
        "expand": given["expand"],
        "bias": given["use_bias"],
        "conv_bias": given["use_conv_bias"],
    }
    return layout.read(around, given)


def known_kind(document: Mapping[str, Any], source: Path) -> str:
    """The model_type; CheckpointError for another architecture."""
    kind = str(document["model_type"])
    known = layouts(PACKAGE)
    if kind not in known:
        raise CheckpointError(
            f"{source} is of a {kind!r} model (transformers); this reads {', '.join(known)}."
        )
    return kind


def _by_ssm_names(document: Mapping[str, Any], source: Path) -> dict[str, Any]:
    """transformers' name -> what the file says under mamba_ssm's; CheckpointError where it says
    another size under transformers' own."""
    mixer = document.get("ssm_cfg")
    given = {**document, **mixer} if isinstance(mixer, Mapping) else document
    names = {
        name: theirs for name, theirs in (SSM_NAMES | SSM_MIXER_NAMES).items() if name in given
    }
    for name, theirs in names.items():
        if theirs in document and document[theirs] != given[name]:
            raise CheckpointError(
                f"{source} says {name} {given[name]!r} and {theirs} {document[theirs]!r}, which "
                "are two names of one size (mamba_ssm's and transformers'). Take the wrong one out."
            )
    return {theirs: given[name] for name, theirs in names.items() if name != theirs}
