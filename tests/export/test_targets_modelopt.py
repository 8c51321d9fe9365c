"""hf_quant_config.json lists every layer, and the weights read back by their description."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import selective
import torch
from runtimes import applier, model, plan_of
from safetensors.torch import load_file

from sensprobe.export.runtimes import RUNTIMES, fit, write_for
from sensprobe.models.mamba2 import Mamba2Config
from sensprobe.plans.scheme import parse

RUNTIME = RUNTIMES["modelopt"]
SCHEMES = {
    "layers.0.in_proj.*": "int4/group16",
    "layers.0.out_proj": "int4/group32/s32",
    "layers.1.in_proj_in": "e4m3/dynamic",
    "layers.1.in_proj.*": "e4m3/channel",
    "*.conv": "fp16",
}


def written(folder: Path) -> Any:
    plan = plan_of("mamba2", SCHEMES)
    fitted = fit(RUNTIME, model("mamba2"), plan)
    write_for(fitted, applier("mamba2", plan), folder, name="mine")
    config = json.loads((folder / "hf_quant_config.json").read_text())
    return fitted, config["quantization"], load_file(folder / "model.safetensors")


def test_every_linear_layer_is_listed_once(tmp_path: Path) -> None:
    _, config, _ = written(tmp_path / "out")
    at = "backbone.layers.{}.mixer.{}_proj".format
    awq = {"quant_algo": "W4A16_AWQ", "has_zero_point": False, "pre_quant_scale": False}
    assert config["quant_algo"] == "MIXED_PRECISION"
    assert config["quantized_layers"] == {
        at(0, "in"): awq | {"group_size": 16},
        at(0, "out"): awq | {"group_size": 32},
        at(1, "in"): {"quant_algo": "FP8_PER_CHANNEL_PER_TOKEN"},
    }
    assert config["exclude_modules"] == ["backbone.embeddings", at(1, "out"), "lm_head"]


@pytest.mark.parametrize("scheme", ["int4/group16", "e4m3/channel"])
def test_layers_that_are_alike_need_no_list(scheme: str, tmp_path: Path) -> None:
    """Not every vLLM looks for FP8_PER_CHANNEL_PER_TOKEN under MIXED_PRECISION."""
    plan = plan_of("mamba2", {"*.out_proj": scheme, "*.out_proj_in": "e4m3/dynamic"})
    fitted = fit(RUNTIME, model("mamba2"), plan)
    write_for(fitted, applier("mamba2", plan), tmp_path / "out", name="mine")
    config = json.loads((tmp_path / "out" / "hf_quant_config.json").read_text())["quantization"]
    at = "backbone.layers.{}.mixer.in_proj".format
    alike = {
        "int4/group16": {
            "quant_algo": "W4A16_AWQ",
            "group_size": 16,
            "has_zero_point": False,
            "pre_quant_scale": False,
        },
        "e4m3/channel": {"quant_algo": "FP8_PER_CHANNEL_PER_TOKEN"},
    }
    assert config == alike[scheme] | {
        "kv_cache_quant_algo": None,
        "exclude_modules": ["backbone.embeddings", at(0), at(1), "lm_head"],
    }


def test_weights_read_back_as_the_simulations(tmp_path: Path) -> None:
    """Two rows share a byte, the even one in its low half; a scale multiplies its group."""
    fitted, config, tensors = written(tmp_path / "out")
    weights = applier("mamba2", fitted.asked).tap(fitted.asked).weights
    for tensor in fitted.tensors:
        if (layer := config["quantized_layers"].get(tensor.module)) is None:
            continue
        stored, scale = tensors[tensor.name], tensors[f"{tensor.module}.weight_scale"]
        assert scale.dtype == torch.float32
        if layer["quant_algo"] == "W4A16_AWQ":
            octets = stored.numpy()
            codes = np.empty((2 * len(octets), octets.shape[1]), np.float32)
            for half, rows in ((octets & 15, codes[0::2]), (octets >> 4, codes[1::2])):
                rows[:] = (half.astype(np.int8) ^ 8) - 8
            values = codes * np.repeat(scale.numpy(), layer["group_size"], axis=1)
        else:
            assert stored.dtype == torch.float8_e4m3fn
            values = stored.float().numpy() * scale.numpy()[:, None]
        assert np.array_equal(values, tensor.of(weights).numpy())


def test_rows_that_do_not_pair_are_not_packed() -> None:
    """One head makes an odd number of rows of in_proj: z, x, B, C and dt."""
    odd = selective.tiny(Mamba2Config(**selective.WIDE, d_state=8, d_head=64))
    matrices = [n for n in odd.sites if n.endswith(".out_proj") or ".in_proj." in n]
    plan = {n: parse("int4/group32") for n in matrices}
    dropped = {c.site: c.why for c in fit(RUNTIME, odd, plan).dropped}
    assert dropped.keys() == {n for n in odd.sites if ".in_proj." in n}
    assert set(dropped.values()) == {"W4A16_AWQ packs 2 rows together, and there are 145"}


def test_it_offers_e4m3_only_where_inputs_are_rounded_too() -> None:
    plan = plan_of("mamba2", {"*.out_proj": "e4m3/channel", "*.conv": "fp16"})
    dropped = fit(RUNTIME, model("mamba2"), plan).dropped
    assert [c.site for c in dropped] == ["layers.0.out_proj", "layers.1.out_proj"]
    assert dropped[0].why == (
        "FP8_PER_CHANNEL_PER_TOKEN rounds its input to e4m3/dynamic, which the plan does not"
    )
