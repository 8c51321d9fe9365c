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

from sensprobe.checkpoints.hf import PACKAGE
from sensprobe.errors import UnsupportedError
from sensprobe.models import FAMILIES, Model
from sensprobe.models.layouts import Layout

if TYPE_CHECKING:
    from torch import Tensor


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


SHAPED: dict[str, Callable[[Tensor], Tensor]] = {
    "": lambda whole: whole,
    "filters": _filters,
    "logarithm": _logarithm,
}
"""Functions that shape sites as transformers does, by `shaped` of `models.layouts.External`."""


def _layout(model: Model) -> Layout:
    """The kind of model in transformers; UnsupportedError for a family that it has not."""
    every = (one for one in FAMILIES[model.family].layouts if one.package == PACKAGE)
    if (layout := next((one for one in every if one.writes(model.config)), None)) is None:
        raise UnsupportedError(
            f"transformers and the runtimes that read its names have no {model.family} models; "
            "they have Mamba and Mamba-2 language models. `sensprobe export` without --for "
            "writes every family."
        )
    return layout


def hf_tensors(model: Model) -> list[HfTensor]:
    """Every tensor of the model in transformers; each weight site is in exactly one."""
    mixer = _layout(model).tensors
    out = [HfTensor("backbone.embeddings.weight", ("embedding",), "embedding")]
    for i in range(model.config.layers):
        ours, theirs = f"layers.{i}.", f"backbone.layers.{i}."
        out.append(HfTensor(theirs + "norm.weight", (ours + "norm",)))
        out += [
            HfTensor(
                f"{theirs}mixer.{tensor.name}",
                tuple(ours + site for site in tensor.sites),
                tensor.matrix,
                SHAPED[tensor.shaped],
            )
            for tensor in mixer
        ]
    out.append(HfTensor("backbone.norm_f.weight", ("final.norm",)))
    out.append(HfTensor("lm_head.weight", ("head",), "head"))
    return [tensor for tensor in out if model.sites.keys() >= set(tensor.sites)]


def hf_document(model: Model) -> dict[str, Any]:
    """The model's config.json; UnsupportedError where no class of transformers computes it."""
    config, layout = model.config, _layout(model)
    if differences := _differences(config):
        raise UnsupportedError(
            f"no {model.family} of transformers is like this one: {'; '.join(differences)}. "
            "`sensprobe export` without --for writes every model."
        )
    common = {
        "architectures": [layout.architecture],
        "model_type": layout.kind,
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
    return common | layout.write(config)


def _differences(config: Any) -> list[str]:
    """The choices of a config that transformers' models of its family cannot express, as texts."""
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
