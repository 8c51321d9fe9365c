"""Logits of random models against transformers' own CPU code: forward, and step against its cache.

transformers is an optional extra (`pip install sensprobe[lm]`): without it this module is skipped.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import sensprobe

transformers = pytest.importorskip(
    "transformers", reason="transformers is not installed (the extra `lm`)"
)

pytestmark = pytest.mark.filterwarnings("ignore")  # whatever another package warns of

EPSILON = 2.0**-24
SMALL = {"vocab_size": 29, "hidden_size": 16, "num_hidden_layers": 2, "state_size": 4}
CASES: dict[str, tuple[str, dict[str, Any]]] = {
    "mamba tied": ("Mamba", {"tie_word_embeddings": True}),
    "mamba untied": ("Mamba", {"tie_word_embeddings": False, "use_bias": True}),
    "mamba wide": ("Mamba", {"hidden_size": 40, "expand": 3, "num_hidden_layers": 1}),
    "mamba odd": ("Mamba", {"hidden_size": 7, "state_size": 1, "time_step_rank": 3}),
    "mamba short": ("Mamba", {"conv_kernel": 2, "use_conv_bias": False}),
    "falcon": ("FalconMamba", {"tie_word_embeddings": False}),
    "falcon eps": ("FalconMamba", {"mixer_rms_eps": 0.1, "layer_norm_epsilon": 1e-3}),
    "mamba2": ("Mamba2", {"num_heads": 4, "head_dim": 8, "n_groups": 1}),
    "mamba2 groups": ("Mamba2", {"num_heads": 8, "head_dim": 4, "n_groups": 4}),
    "mamba2 two groups": (
        "Mamba2",
        {"num_heads": 4, "head_dim": 8, "n_groups": 2, "use_bias": True, "state_size": 5},
    ),
    "mamba2 tied": (
        "Mamba2",
        {"num_heads": 2, "head_dim": 16, "n_groups": 1, "tie_word_embeddings": True},
    ),
    "mamba2 odd": (
        "Mamba2",
        {"hidden_size": 9, "num_heads": 3, "head_dim": 6, "n_groups": 3, "conv_kernel": 3},
    ),
    "mamba2 limits": (
        "Mamba2",
        {"num_heads": 4, "head_dim": 8, "n_groups": 2, "time_step_limit": (0.05, 0.2)},
    ),
}


def random_model(name: str) -> Any:
    """A model of transformers with every parameter random, at the scales that training gives."""
    kind, changes = CASES[name]
    chunk = {"chunk_size": 4} if kind == "Mamba2" else {}
    config = getattr(transformers, f"{kind}Config")(**{**SMALL, **chunk, **changes})
    model = getattr(transformers, f"{kind}ForCausalLM")(config).eval()
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for key, value in model.named_parameters():
            noise = torch.randn(value.shape, generator=generator)
            if key.endswith(("dt_bias", "dt_proj.bias")):
                value.copy_(noise - 1)
            elif "norm" in key:
                value.copy_(1 + noise / 4)
            elif value.ndim > 1 and not key.endswith("A_log"):
                value.copy_(noise / value.shape[-1] ** 0.5)
            else:
                value.copy_(noise / 2)
    return model


def tokens(length: int) -> Tensor:
    return torch.randint(0, 29, (2, length), generator=torch.Generator().manual_seed(length))


def bound(want: Tensor) -> float:
    """Some hundred float32 roundings of the largest logit: errors of sums in another order, which a
    norm over few numbers multiplies (against float64, either side is off by up to 120)."""
    return 200 * EPSILON * want.abs().max().item()


@pytest.fixture(params=CASES)
def both(request, tmp_path: Path) -> tuple[Any, Any]:
    theirs = random_model(request.param)
    theirs.save_pretrained(tmp_path)
    return theirs, sensprobe.load(tmp_path)


@torch.no_grad()
def test_logits_are_theirs(both):
    theirs, ours = both
    for length in (1, 2, 3, 7, 16, 33):
        x = tokens(length)
        want = theirs(x, use_cache=False).logits
        assert (ours(x) - want).abs().max() <= bound(want), length


@torch.no_grad()
def test_steps_are_theirs(both):
    theirs, ours = both
    x = tokens(9)
    want = theirs(x, use_cache=False).logits
    state = ours.start(2)
    for t in range(9):
        got, state = ours.step(x[:, t], state)
        assert (got - want[:, t]).abs().max() <= bound(want), t


@pytest.mark.parametrize("name", ["mamba tied", "falcon", "mamba2 groups"])
@torch.no_grad()
def test_steps_are_those_of_their_cache(name, tmp_path):
    """Their decoding goes through other code than their forward."""
    theirs = random_model(name)
    theirs.save_pretrained(tmp_path)
    ours, x = sensprobe.load(tmp_path), tokens(8)
    state = ours.start(2)
    for t in range(5):
        got, state = ours.step(x[:, t], state)
    out = theirs(x[:, :5], use_cache=True)
    for t in range(5, 8):
        out = theirs(x[:, t : t + 1], cache_params=out.cache_params, use_cache=True)
        got, state = ours.step(x[:, t], state)
        assert (got - out.logits[:, 0]).abs().max() <= bound(out.logits), t


@torch.no_grad()
def test_shards_of_theirs_are_read(tmp_path):
    theirs = random_model("mamba untied")
    theirs.save_pretrained(tmp_path, max_shard_size="8KB")
    assert len(list(tmp_path.glob("model-*.safetensors"))) > 1
    want = theirs(tokens(5), use_cache=False).logits
    assert (sensprobe.load(tmp_path)(tokens(5)) - want).abs().max() <= bound(want)


@torch.no_grad()
def test_that_bound_catches_an_ungrouped_norm(tmp_path):
    """What older versions of transformers computed."""
    theirs = random_model("mamba2 groups")
    theirs.save_pretrained(tmp_path)
    for layer in theirs.backbone.layers:
        layer.mixer.norm.group_size = layer.mixer.intermediate_size
    want = theirs(tokens(7), use_cache=False).logits
    assert (sensprobe.load(tmp_path)(tokens(7)) - want).abs().max() > 100 * bound(want)


@torch.no_grad()
def test_that_bound_catches_a_decay_off_by_little(tmp_path):
    theirs = random_model("mamba tied")
    theirs.save_pretrained(tmp_path)
    theirs.backbone.layers[0].mixer.A_log += 1e-3
    want = theirs(tokens(33), use_cache=False).logits
    assert (sensprobe.load(tmp_path)(tokens(33)) - want).abs().max() > bound(want)
