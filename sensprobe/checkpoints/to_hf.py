"""A model by the names of transformers: its config.json, and which sites each tensor joins.

The inverse of `hf` and of the rules in `folder`. transformers keeps some of our sites together (the
rows of `in_proj` are x, z of Mamba and z, x, B, C, dt of Mamba-2) and A as its logarithm:

    config.json                             model.safetensors
    {"model_type": "mamba2", …}             backbone.layers.{i}.mixer.in_proj.weight, …

Serving runtimes read the same names, so every exporter for one starts here.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from sensprobe.errors import UnsupportedError
from sensprobe.models import Model
from sensprobe.models.mamba import MambaConfig
from sensprobe.models.mamba2 import UNLIMITED, Mamba2Config

if TYPE_CHECKING:
    from torch import Tensor

IN_PROJ_ROWS = {"mamba": ("x", "z"), "mamba2": ("z", "x", "B", "C", "dt")}
X_PROJ_ROWS = ("dt", "B", "C")
ARCHITECTURES = {
    "mamba": "MambaForCausalLM",
    "falcon_mamba": "FalconMambaForCausalLM",
    "mamba2": "Mamba2ForCausalLM",
}


@dataclass(frozen=True, slots=True)
class HfTensor:
    """One tensor of transformers: its name, the sites whose rows it joins, and how it is shaped.

    `matrix` names the weight of a linear map or of an embedding, which a runtime may quantize:
    in_proj, x_proj, dt_proj, out_proj, embedding or head. Other tensors have none.
    """

    name: str
    sites: tuple[str, ...]
    matrix: str = ""
    shaped: Callable[[Tensor], Tensor] = lambda whole: whole

    @property
    def module(self) -> str:
        """The name of the module that has it as its weight."""
        return self.name.removesuffix(".weight")

    def of(self, weights: Mapping[str, Tensor]) -> Tensor:
        """The tensor, from weights by site name."""
        import torch

        return self.shaped(torch.cat([weights[site] for site in self.sites]))


def _logarithm(A: Tensor) -> Tensor:
    """A_log: A is -exp(A_log) and negative."""
    from sensprobe.numerics.arithmetic import log

    return log(-A.double()).float()


def _filters(conv: Tensor) -> Tensor:
    """(channels, lags) -> (channels, 1, lags), a depthwise convolution's."""
    return conv.unsqueeze(1)


def model_type(model: Model) -> str:
    """What transformers calls the family."""
    inner_norm = getattr(model.config, "inner_norm", False)
    return "falcon_mamba" if inner_norm else model.family


def hf_tensors(model: Model) -> list[HfTensor]:
    """Every tensor of the model in transformers; each weight site is in exactly one."""
    out = [HfTensor("backbone.embeddings.weight", ("embedding",), "embedding")]
    for i in range(model.config.layers):
        ours, theirs = f"layers.{i}.", f"backbone.layers.{i}."
        out.append(HfTensor(theirs + "norm.weight", (ours + "norm",)))
        out += _mixer(model.family, ours, theirs + "mixer.")
    out.append(HfTensor("backbone.norm_f.weight", ("final.norm",)))
    out.append(HfTensor("lm_head.weight", ("head",), "head"))
    return [tensor for tensor in out if model.sites.keys() >= set(tensor.sites)]


def _mixer(family: str, ours: str, theirs: str) -> list[HfTensor]:
    """Those of one mixer, biases and norms included whether the config has them or not."""

    def tensor(name: str, *sites: str, **options: Any) -> HfTensor:
        return HfTensor(theirs + name, tuple(ours + site for site in sites), **options)

    rows = [f"in_proj.{name}" for name in IN_PROJ_ROWS[family]]
    out = [
        tensor("in_proj.weight", *rows, matrix="in_proj"),
        tensor("in_proj.bias", *(f"{row}.bias" for row in rows)),
        tensor("conv1d.weight", "conv", shaped=_filters),
        tensor("conv1d.bias", "conv.bias"),
    ]
    if family == "mamba":
        out += [
            tensor("x_proj.weight", *(f"x_proj.{row}" for row in X_PROJ_ROWS), matrix="x_proj"),
            tensor("dt_proj.weight", "dt_proj", matrix="dt_proj"),
            tensor("dt_proj.bias", "dt_proj.bias"),
        ]
    else:
        out.append(tensor("dt_bias", "dt.bias"))
    return [
        *out,
        tensor("A_log", "A", shaped=_logarithm),
        tensor("D", "D"),
        tensor("norm.weight", "gated_norm"),
        tensor("out_proj.weight", "out_proj", matrix="out_proj"),
        tensor("out_proj.bias", "out_proj.bias"),
    ]


def hf_document(model: Model) -> dict[str, Any]:
    """The model's config.json; UnsupportedError where no class of transformers computes it."""
    config = model.config
    if not isinstance(config, MambaConfig | Mamba2Config):
        raise UnsupportedError(
            f"transformers and the runtimes that read its names have no {model.family} models; "
            "they have Mamba and Mamba-2 language models. `sensprobe export` without --for "
            "writes every family."
        )
    if differences := _differences(config):
        raise UnsupportedError(
            f"no {model.family} of transformers is like this one: {'; '.join(differences)}. "
            "`sensprobe export` without --for writes every model."
        )
    kind = model_type(model)
    common = {
        "architectures": [ARCHITECTURES[kind]],
        "model_type": kind,
        "vocab_size": config.d_input,
        "hidden_size": config.d_model,
        "num_hidden_layers": config.layers,
        "state_size": config.d_state,
        "conv_kernel": config.d_conv,
        "expand": config.expand,
        "use_bias": config.bias,
        "use_conv_bias": config.conv_bias,
        "hidden_act": "silu",
        "layer_norm_epsilon": config.norm_eps,
        "tie_word_embeddings": config.tied_head,
    }
    return common | (_mamba(config) if isinstance(config, MambaConfig) else _mamba2(config))


def _mamba(config: MambaConfig) -> dict[str, Any]:
    own: dict[str, Any] = {
        "intermediate_size": config.d_inner,
        "time_step_rank": config.dt_rank,
    }
    return own | ({"mixer_rms_eps": config.inner_norm_eps} if config.inner_norm else {})


def _mamba2(config: Mamba2Config) -> dict[str, Any]:
    own: dict[str, Any] = {
        "num_heads": config.heads,
        "head_dim": config.d_head,
        "n_groups": config.groups,
        "rms_norm": True,
    }
    if (config.dt_min, config.dt_max) != (0.0, UNLIMITED):
        own["time_step_limit"] = [config.dt_min, config.dt_max]
    return own


def _differences(config: MambaConfig | Mamba2Config) -> list[str]:
    """What this config has that transformers' models of its family have not."""
    wanted: dict[str, Any] = {
        "encoder": "embedding",
        "pooling": "none",
        "norm": "pre",
        "norm_kind": "rms",
        "final_norm": True,
        "residual": True,
        "head_bias": False,
        "head": "linear",
        "d_output": config.d_input,
        "gated_norm": True,
        "D_per_channel": False,
    }
    return [
        f"its {name} is {getattr(config, name)!r}, there {value!r}"
        for name, value in wanted.items()
        if hasattr(config, name) and getattr(config, name) != value
    ]
