"""Folders as mamba_ssm and transformers write them, made of random weights."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from selective import Config, parameters
from torch import Tensor

from sensprobe.models.mamba import MambaConfig
from sensprobe.models.mamba2 import Mamba2Config

VOCABULARY, WIDTH, LAYERS, N = 13, 8, 2, 3
PADDED = 16

SSM_CONFIG: dict[str, Any] = {
    "d_model": WIDTH,
    "n_layer": LAYERS,
    "vocab_size": VOCABULARY,
    "ssm_cfg": {"d_state": N},
    "rms_norm": True,
    "residual_in_fp32": True,
    "fused_add_norm": True,
    "pad_vocab_size_multiple": 8,
}
SSM2_CONFIG = SSM_CONFIG | {
    "ssm_cfg": {"layer": "Mamba2", "d_state": N, "headdim": 4, "ngroups": 2}
}
HF_CONFIG: dict[str, Any] = {
    "model_type": "mamba",
    "vocab_size": VOCABULARY,
    "hidden_size": WIDTH,
    "num_hidden_layers": LAYERS,
    "state_size": N,
    "tie_word_embeddings": False,
}


AROUND = {
    "encoder": "embedding",
    "d_input": PADDED,
    "d_output": PADDED,
    "d_model": WIDTH,
    "layers": LAYERS,
    "pooling": "none",
    "head_bias": False,
    "d_state": N,
}
SSM = MambaConfig(**AROUND, tied_head=True, dt_rank=1)
SSM2 = Mamba2Config(**AROUND, tied_head=True, d_head=4, groups=2)
HF = replace(SSM, d_input=VOCABULARY, d_output=VOCABULARY, tied_head=False)


def theirs(params: dict[str, Tensor], embedding: str = "embedding") -> dict[str, Tensor]:
    """Parameters under the names of mamba_ssm (transformers: embedding "embeddings")."""
    out = {}
    for name, tensor in params.items():
        if name.startswith("layers."):
            _, i, inner = name.split(".", 2)
            if not inner.startswith("norm."):
                inner = "mixer." + inner.replace("gated_norm.", "norm.")
            out[f"backbone.layers.{i}.{inner.replace('conv.', 'conv1d.')}"] = tensor
        elif name.startswith("embedding."):
            out[f"backbone.{embedding}.weight"] = tensor
        else:
            out[name.replace("final.norm.", "backbone.norm_f.").replace("head.", "lm_head.")] = (
                tensor
            )
    return out


def write(
    folder: Path,
    document: dict[str, Any],
    config: Config,
    file: str = "pytorch_model.bin",
    **changes: Tensor | None,
) -> Path:
    """A folder with random weights of `config`; tensors replaced, added or (None) taken away."""
    folder.mkdir(exist_ok=True)
    (folder / "config.json").write_text(json.dumps(document))
    embedding = "embeddings" if "model_type" in document else "embedding"
    tensors = theirs(parameters(config), embedding)
    tensors = {name: t for name, t in (tensors | changes).items() if t is not None}
    if file.endswith(".bin"):
        torch.save(tensors, folder / file)
    else:
        save_file(tensors, folder / file)
    return folder


def shard(folder: Path) -> None:
    """Cut a folder's model.safetensors in two, with an index."""
    from safetensors.torch import load_file

    whole = folder / "model.safetensors"
    tensors = load_file(whole)
    whole.unlink()
    names = sorted(tensors)
    places = {}
    for k, part in enumerate((names[::2], names[1::2]), 1):
        file = f"model-{k:05}-of-00002.safetensors"
        save_file({name: tensors[name] for name in part}, folder / file)
        places |= dict.fromkeys(part, file)
    index = {"metadata": {"total_size": 1}, "weight_map": places}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
