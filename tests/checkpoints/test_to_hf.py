"""A model by transformers' names reads back as itself."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import transformers
from safetensors.torch import save_file
from selective import MAMBA2S, MAMBAS, TOKENS, Config, tiny

from sensprobe.checkpoints import read_checkpoint
from sensprobe.checkpoints.to_hf import hf_document, hf_tensors
from sensprobe.errors import UnsupportedError
from sensprobe.models.mamba import MambaConfig
from sensprobe.models.mamba2 import Mamba2Config
from sensprobe.plans.sites import Kind

CONFIGS: dict[str, Config] = {
    "mamba": MAMBAS["tokens"],
    "mamba, biases": MambaConfig(**TOKENS, dt_rank=3, d_state=2, bias=True, conv_bias=False),
    "falcon": MAMBAS["tied"],
    "mamba2": MAMBA2S["tokens"],
    "mamba2, limits": Mamba2Config(
        **TOKENS, d_state=2, d_head=4, tied_head=True, bias=True, dt_min=0.1, dt_max=0.5
    ),
}


@pytest.mark.parametrize("name", CONFIGS)
def test_what_is_written_by_their_names_reads_back(name: str, tmp_path: Path) -> None:
    model = tiny(CONFIGS[name])
    (tmp_path / "config.json").write_text(json.dumps(hf_document(model)))
    weights = {n: w if n.endswith(".A") else w.float() for n, w in model.weights.items()}
    save_file(
        {t.name: t.of(weights).clone().contiguous() for t in hf_tensors(model)},
        tmp_path / "model.safetensors",
    )
    again, _ = read_checkpoint(tmp_path)
    assert again.config == model.config
    assert again.weights.keys() == model.weights.keys()
    for site, weight in model.weights.items():
        assert torch.equal(again.weights[site], weight), site  # A_log survives log(exp(A_log))


@pytest.mark.parametrize("name", CONFIGS)
def test_every_weight_is_in_exactly_one_tensor(name: str) -> None:
    model = tiny(CONFIGS[name])
    joined = [site for tensor in hf_tensors(model) for site in tensor.sites]
    assert sorted(joined) == sorted(n for n, s in model.sites.items() if s.kind is Kind.WEIGHT)


def test_transformers_has_the_parameters_by_these_names() -> None:
    for name in CONFIGS:
        model = tiny(CONFIGS[name])
        document = hf_document(model)
        kind = document.pop("model_type")
        config = transformers.AutoConfig.for_model(kind, **document)
        with torch.device("meta"):
            theirs = transformers.AutoModelForCausalLM.from_config(config)
        ours = {t.name: tuple(t.of(model.weights).shape) for t in hf_tensors(model)}
        assert ours == {n: tuple(p.shape) for n, p in theirs.named_parameters()}, name


@pytest.mark.parametrize(
    ("config", "difference"),
    [
        (
            replace(MAMBAS["tokens"], head=["linear 4", "silu", "linear"]),
            "its head is 'linear 4, silu, linear', there 'linear'",
        ),
        (MAMBAS["deep"], "its encoder is 'linear', there 'embedding'"),
        (MAMBA2S["channels"], "its D_per_channel is True, there False"),
        (MAMBA2S["tied"], "its norm_kind is 'layer', there 'rms'"),
    ],
)
def test_a_model_that_transformers_has_not_is_refused(config: Config, difference: str) -> None:
    with pytest.raises(UnsupportedError, match=difference):
        hf_document(tiny(config))
