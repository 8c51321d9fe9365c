"""torchao itself parses the config and rebuilds the weights, and transformers loads the folder.

torchao imports torch._dynamo (2 s): only those tests that use it do.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from runtimes import NAMES, applier, model, plan_of, tokens
from safetensors import safe_open

from sensprobe.export.runtimes import RUNTIMES, fit, write_for

SCHEMES = {
    "*.in_proj.*": "int4/group16",
    "*.in_proj.*.bias": "fp16",
    "*.out_proj": "int8",
    "layers.1.out_proj": "int3/channel/asym",
    "*.x_proj.*": "int7/group8/pow2",
    "*.norm": "bf16",
    "embedding": "fp16",
}


def written(name: str, folder: Path) -> Any:
    plan = plan_of(name, SCHEMES)
    fitted = fit(RUNTIMES["torchao"], model(name), plan)
    assert not fitted.dropped
    write_for(fitted, applier(name, plan), folder, name="mine")
    return fitted, json.loads((folder / "config.json").read_text())["quantization_config"]


def file(folder: Path) -> tuple[dict[str, torch.Tensor], dict[str, str]]:
    with safe_open(folder / "model.safetensors", framework="pt") as opened:
        tensors = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118
        return tensors, opened.metadata()


@pytest.mark.parametrize("name", NAMES)
def test_parameters_are_rebuilt_to_the_bit(name: str, tmp_path: Path) -> None:
    from torchao.prototype.safetensors.safetensors_support import unflatten_tensor_state_dict
    from torchao.prototype.safetensors.safetensors_utils import is_metadata_torchao

    fitted, _ = written(name, tmp_path / "out")
    tensors, metadata = file(tmp_path / "out")
    assert is_metadata_torchao(metadata)
    rebuilt, left = unflatten_tensor_state_dict(tensors, metadata)
    assert not left
    weights = applier(name, fitted.asked).tap(fitted.asked).weights
    assert set(fitted.layouts) < set(rebuilt) == {t.name for t in fitted.tensors}
    for tensor in fitted.tensors:
        value = rebuilt[tensor.name]
        if tensor.name in fitted.layouts:
            assert type(value).__name__ == "IntxUnpackedToInt8Tensor"
            assert torch.equal(value.dequantize(), tensor.of(weights))


def test_the_config_is_torchaos_own_and_says_the_same_again(tmp_path: Path) -> None:
    from torchao.core.config import config_from_dict, config_to_dict
    from torchao.quantization import FqnToConfig

    fitted, config = written("mamba2", tmp_path / "out")
    document = config["quant_type"]["default"]
    parsed = config_from_dict(document)
    assert isinstance(parsed, FqnToConfig)
    assert list(parsed.fqn_to_config) == list(fitted.layouts)
    again = config_to_dict(parsed)["_data"]["fqn_to_config"]
    for name, entry in document["_data"]["fqn_to_config"].items():
        assert again[name]["_type"] == entry["_type"]
        assert entry["_data"].items() <= again[name]["_data"].items()


def test_the_config_quantizes_the_named_parameters_of_a_model_and_no_other(tmp_path: Path) -> None:
    """`quantize_` on the full-precision model of transformers, as one without our weights has."""
    from torchao.core.config import config_from_dict
    from torchao.quantization import quantize_

    fitted, config = written("mamba2", tmp_path / "out")
    described = transformers.AutoConfig.from_pretrained(tmp_path / "out")
    del described.quantization_config
    module = transformers.AutoModelForCausalLM.from_config(described)
    quantize_(module, config_from_dict(config["quant_type"]["default"]), filter_fn=None)
    kinds = {name: type(p).__name__ for name, p in module.named_parameters()}
    changed = {name for name, kind in kinds.items() if kind == "IntxUnpackedToInt8Tensor"}
    assert changed == set(fitted.layouts)
    scheme = module.get_parameter("backbone.layers.0.mixer.in_proj.weight")
    assert (scheme.target_dtype, scheme.block_size) == (torch.int4, (1, 16))


@pytest.mark.parametrize("name", NAMES)
def test_transformers_loads_the_folder_and_gives_the_simulations_logits(
    name: str, tmp_path: Path
) -> None:
    fitted, _ = written(name, tmp_path / "out")
    loaded = transformers.AutoModelForCausalLM.from_pretrained(
        tmp_path / "out", dtype=torch.float32
    )
    with torch.inference_mode():
        found = loaded.eval()(tokens()).logits
        want = model(name)(tokens(), applier(name, fitted.asked).tap(fitted.asked))
    # float32 sums of 64 terms in another order, through two layers
    assert (found - want).abs().max() < 64 * torch.finfo(torch.float32).eps * want.abs().max()
