"""compressed-tensors itself parses what is written, and decompresses the simulation's numbers.

The library imports most of transformers (5 s): only those tests that use it do.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from runtimes import NAMES, applier, model, plan_of, tokens
from safetensors.torch import load_file

from sensprobe.export.runtimes import RUNTIMES, fit, write_for
from sensprobe.export.runtimes.compressed_tensors import packed

RUNTIME = RUNTIMES["compressed-tensors"]
MIXED = {
    "*.in_proj.*": "int4/group16",
    "*.in_proj.*.bias": "fp16",
    "*.out_proj": "int8",
    "layers.1.out_proj": "int3/channel/asym",
    "*.x_proj.*": "e4m3/channel",
    "*.dt_proj": "int8/mse",
    "head": "int5/group8/pow2",
    "*.out_proj.bias": "fp32",
    "*.norm": "bf16",
    "embedding": "fp16",
}
LAYOUTS = [
    *(f"int{bits}/channel" for bits in range(2, 9)),
    *(f"int{bits}/group16/asym" for bits in range(2, 9)),
    *(f"int4/{span}/{scales}" for span in ("tensor", "group8") for scales in ("s32", "pow2")),
    "int4/group999",
    "int4/group16/truncate",
    "int3/channel/gptq",
    "e4m3/channel",
    "e4m3/tensor/s32",
]


def written(name: str, schemes: dict[str, str], folder: Path, target: str = RUNTIME.name) -> Any:
    """The fitted plan of a folder, its config and its tensors."""
    plan = plan_of(name, schemes)
    fitted = fit(RUNTIMES[target], model(name), plan)
    write_for(fitted, applier(name, plan), folder, name="mine")
    config = json.loads((folder / "config.json").read_text())
    return fitted, config, load_file(folder / "model.safetensors")


def parsed_config(config: dict[str, Any]) -> Any:
    from compressed_tensors.quantization import QuantizationConfig

    return QuantizationConfig.model_validate(config["quantization_config"])


def decompressed(config: dict[str, Any], tensors: dict[str, torch.Tensor]) -> dict[str, Any]:
    """Module -> the weight that the library makes of its tensors, as a float32 model loads them."""
    from compressed_tensors.compressors import BaseCompressor

    parsed, out = parsed_config(config), {}
    for group in parsed.config_groups.values():
        compressor = BaseCompressor.get_value_from_registry(group.format)
        for module in group.targets:
            start = module + "."
            state = {n.removeprefix(start): t for n, t in tensors.items() if n.startswith(start)}
            names = set(compressor.compression_param_names(group))
            assert names == {n for n in state if n.startswith("weight")}
            state["weight_scale"] = state["weight_scale"].float()
            out[module] = compressor.decompress(state, group)["weight"]
    return out


@pytest.mark.parametrize("scheme", LAYOUTS)
def test_every_layout_decompresses_to_the_simulation(scheme: str, tmp_path: Path) -> None:
    schemes = {"*.in_proj.*": scheme, "*.out_proj": scheme, "head": scheme}
    fitted, config, tensors = written("mamba2", schemes, tmp_path / "out")
    assert not fitted.changes
    weights = applier("mamba2", fitted.asked).tap(fitted.asked).weights
    found = decompressed(config, tensors)
    assert len(found) == 5  # two of each layer, and the head
    for tensor in fitted.tensors:
        if tensor.module in found:
            assert torch.equal(found[tensor.module], tensor.of(weights))


@pytest.mark.parametrize("bits", range(2, 9))
@pytest.mark.parametrize("columns", [1, 7, 32, 33])
def test_codes_are_packed_as_the_library_packs_them(bits: int, columns: int) -> None:
    from compressed_tensors.compressors.pack_quantized.helpers import pack_to_int32

    g = torch.Generator().manual_seed(bits * columns)
    half = 2 ** (bits - 1)
    codes = torch.randint(-half, half, (3, columns), generator=g).to(torch.int8)
    assert torch.equal(packed(codes, bits), pack_to_int32(codes, bits))


def test_one_changed_code_would_be_seen(tmp_path: Path) -> None:
    schemes = {"*.out_proj": "int4/group16"}
    fitted, config, tensors = written("mamba2", schemes, tmp_path / "out")
    name = "backbone.layers.0.mixer.out_proj"
    tensors[f"{name}.weight_packed"][0, 0] ^= 1
    weights = applier("mamba2", fitted.asked).tap(fitted.asked).weights
    wrong = decompressed(config, tensors)[name] != weights["layers.0.out_proj"]
    assert wrong.nonzero().tolist() == [[0, 0]]


@pytest.mark.parametrize("name", NAMES)
def test_the_lines_that_are_printed_load_a_mixed_plan(name: str, tmp_path: Path) -> None:
    """Logits of transformers' model with the decompressed weights, beside the simulation's."""
    plan = plan_of(name, MIXED)
    fitted = fit(RUNTIME, model(name), plan)
    result = write_for(fitted, applier(name, plan), tmp_path / "out", name="mine")
    scope: dict[str, Any] = {}
    exec("\n".join(result.use), scope)
    with torch.inference_mode():
        found = scope["model"].eval()(tokens()).logits
        want = model(name)(tokens(), applier(name, plan).tap(plan))
    assert not fitted.dropped
    # float32 sums of 64 terms in another order, through two layers
    assert (found - want).abs().max() < 64 * torch.finfo(torch.float32).eps * want.abs().max()


def test_rounded_inputs_become_input_activations(tmp_path: Path) -> None:
    schemes = {
        "*.in_proj.*": "int8/channel",
        "*.in_proj_in": "int8/dynamic",
        "*.out_proj": "e4m3/channel",
        "*.out_proj_in": "e4m3/dynamic",
    }
    fitted, config, tensors = written("mamba2", schemes, tmp_path / "out")
    assert not fitted.changes
    parsed = parsed_config(config)
    assert parsed.format == "mixed-precision"
    for group in parsed.config_groups.values():
        live = group.input_activations
        assert (live.strategy, live.dynamic, live.num_bits) == ("token", True, 8)
        assert live.type == group.weights.type
    assert tensors["backbone.layers.0.mixer.in_proj.weight"].dtype == torch.int8
    weights = applier("mamba2", fitted.asked).tap(fitted.asked).weights
    found = decompressed(config, tensors)["backbone.layers.1.mixer.out_proj"]
    assert torch.equal(found, weights["layers.1.out_proj"])


def test_loaded_modules_round_their_inputs_with_a_scale_of_their_own(tmp_path: Path) -> None:
    """The largest of a token / 127.5, where the simulation has / 127; the export says so."""
    plan = plan_of("mamba2", {"*.in_proj.*": "int8/channel", "*.in_proj_in": "int8/dynamic"})
    fitted = fit(RUNTIME, model("mamba2"), plan)
    result = write_for(fitted, applier("mamba2", plan), tmp_path / "out", name="mine")
    scope: dict[str, Any] = {}
    exec("\n".join(result.use), scope)
    module = scope["model"].get_submodule("backbone.layers.1.mixer.in_proj")
    x = torch.randn(1, 3, 32, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        error = module(x) - x @ module.weight.T
    scale = x.abs().amax(-1, keepdim=True) / 127.5
    rounded = (x / scale).round().clamp(-128, 127) * scale
    expected = (rounded - x) @ module.weight.T
    assert (error - expected).abs().max() < 32 * torch.finfo(torch.float32).eps * x.abs().max()
    assert expected.abs().max() > 1e-3
    assert (
        "inputs of 2 matrices are rounded with scales that compressed-tensors reads"
        in (tmp_path / "out" / "README.md").read_text()
    )


def test_what_is_not_quantized_is_named_and_kept_in_its_format(tmp_path: Path) -> None:
    _, config, tensors = written("mamba", MIXED | {"head": "fp16"}, tmp_path / "out")
    assert config["quantization_config"]["ignore"] == ["backbone.embeddings", "lm_head"]
    assert tensors["lm_head.weight"].dtype == torch.float16
    assert tensors["backbone.layers.0.norm.weight"].dtype == torch.bfloat16
    assert tensors["backbone.layers.0.mixer.A_log"].dtype == torch.float32


def test_vllm_gets_flags_for_its_caches_and_float16_for_the_rest(tmp_path: Path) -> None:
    schemes = {
        "*.in_proj.*": "int4/group32",
        "*.out_proj": "int8/channel",
        "*.state": "bf16",
        "*.conv_state": "fp16",
    }
    plan = plan_of("mamba2", schemes)
    fitted = fit(RUNTIMES["vllm"], model("mamba2"), plan)
    result = write_for(fitted, applier("mamba2", plan), tmp_path / "out", name="mine")
    card = (tmp_path / "out" / "README.md").read_text()
    assert "vllm serve out --dtype float16" in card
    assert result.use == (
        f"vllm serve {tmp_path / 'out'} --dtype float16 --mamba-ssm-cache-dtype bfloat16 "
        "--mamba-cache-dtype float16",
    )
    assert not fitted.dropped
    assert {c.becomes for c in fitted.changes} == {"fp16"}  # what the plan left exact
    tensors = load_file(tmp_path / "out" / "model.safetensors")
    kept = {n.rpartition(".")[2]: t.dtype for n, t in tensors.items() if "layers.0" in n}
    assert kept["A_log"] == torch.float32
    assert kept["weight_scale"] == kept["D"] == kept["dt_bias"] == torch.float16
    document = json.loads((tmp_path / "out" / "config.json").read_text())
    assert document["dtype"] == "float16"
    assert decompressed(document, tensors).keys() == {
        f"backbone.layers.{i}.mixer.{p}_proj" for i in range(2) for p in ("in", "out")
    }
