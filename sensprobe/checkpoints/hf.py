"""config.json of transformers: Mamba, Mamba2 and FalconMamba, by its own names of things."""

from __future__ import annotations

from collections.abc import Mapping
from math import ceil
from pathlib import Path
from typing import Any

from sensprobe.errors import CheckpointError
from sensprobe.models.mamba import MambaConfig
from sensprobe.models.mamba2 import UNLIMITED, Mamba2Config

DEFAULTS: dict[str, dict[str, Any]] = {
    "mamba": {
        "vocab_size": 50280,
        "hidden_size": 768,
        "state_size": 16,
        "num_hidden_layers": 32,
        "tie_word_embeddings": True,
    },
    "falcon_mamba": {
        "vocab_size": 50280,
        "hidden_size": 768,
        "state_size": 16,
        "num_hidden_layers": 32,
        "tie_word_embeddings": True,
        "mixer_rms_eps": 1e-6,
    },
    "mamba2": {
        "vocab_size": 32768,
        "hidden_size": 4096,
        "state_size": 128,
        "num_hidden_layers": 64,
        "tie_word_embeddings": False,
        "head_dim": 64,
        "num_heads": 128,
        "n_groups": 8,
    },
}
"""What transformers 5 takes for keys the file leaves out."""
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
    """Whether a config.json is one of transformers'."""
    return isinstance(document.get("model_type"), str)


def config_from(document: Mapping[str, Any], source: Path) -> MambaConfig | Mamba2Config:
    """The config of a language model; CheckpointError for another architecture.

    What the file gives under mamba_ssm's names alone counts, where transformers has a default.
    """
    kind = known_kind(document, source)
    others = _by_ssm_names(document, source)
    given = {**COMMON, **DEFAULTS[kind], **({"num_heads": None} if others else {})}
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
    if kind == "mamba2":
        return _mamba2(around, given, source)
    rank = given["time_step_rank"]
    falcon: dict[str, Any] = {"inner_norm": True, "inner_norm_eps": given.get("mixer_rms_eps")}
    return MambaConfig(
        **around,
        dt_rank=auto_rank(given["hidden_size"], source) if rank == "auto" else rank,
        **(falcon if kind == "falcon_mamba" else {}),
    )


def known_kind(document: Mapping[str, Any], source: Path) -> str:
    """The model_type; CheckpointError for another architecture."""
    kind = str(document["model_type"])
    if kind not in DEFAULTS:
        raise CheckpointError(
            f"{source} is of a {kind!r} model (transformers); this reads {', '.join(DEFAULTS)}."
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


def auto_rank(d_model: Any, source: Path) -> int:
    """The rank of dt where the file leaves it to the paper."""
    if type(d_model) is not int:
        raise CheckpointError(f"{source}: the width of the model is {d_model!r}, not a number.")
    return ceil(d_model / 16)


def _mamba2(around: Mapping[str, Any], given: Mapping[str, Any], source: Path) -> Mamba2Config:
    dt_min, dt_max = limits(given["time_step_limit"], source)
    config = Mamba2Config(
        **around,
        d_head=given["head_dim"],
        groups=given["n_groups"],
        dt_min=dt_min,
        dt_max=dt_max,
    )
    if given["num_heads"] not in (None, config.heads):
        raise CheckpointError(
            f"{source}: num_heads is {given['num_heads']!r}, and expand · hidden_size / head_dim "
            f"is {config.heads}."
        )
    return config


def limits(given: Any, source: Path) -> tuple[float, float]:
    """dt_min and dt_max from a pair whose upper end may be infinite, in either spelling."""
    try:
        ends: list[Any] = [*(given or (0.0, "inf"))]
        pair: list[Any] = [v.get("__float__") if isinstance(v, Mapping) else v for v in ends]
        low, high = (float(v) for v in pair)
    except (TypeError, ValueError):
        raise CheckpointError(
            f"{source}: the limits of dt are {given!r}, not two numbers."
        ) from None
    return low, min(high, UNLIMITED)
