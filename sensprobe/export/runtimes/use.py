"""How a target's folder is loaded: commands, or lines of Python."""

from __future__ import annotations

import json
import shlex

from sensprobe.checkpoints.exported import WEIGHTS
from sensprobe.export.document import TYPES
from sensprobe.export.runtimes import modelopt
from sensprobe.export.runtimes.fit import Fit
from sensprobe.plans.sites import Part

CACHE = {"fp32": "float32", "fp16": "float16", "bf16": "bfloat16"}
"""A state's format -> what vLLM's flags call it."""

DECOMPRESSED = """\
from compressed_tensors.compressors import ModelCompressor
from compressed_tensors.quantization import QuantizationConfig, apply_quantization_config
from safetensors.torch import load_file
from transformers import AutoConfig, AutoModelForCausalLM

config = AutoConfig.from_pretrained({folder})
model = AutoModelForCausalLM.from_config(config)
quantized = QuantizationConfig.model_validate(config.quantization_config)
apply_quantization_config(model, quantized)
compressor = ModelCompressor(quantized)
compressor.compress_model(model)
model.load_state_dict(load_file({weights}), strict=False)
model.tie_weights()
compressor.decompress_model(model)"""
"""transformers 5.23 alone fails on a packed out_proj or dt_proj: it initialises them by name."""

PLAIN = """\
from transformers import AutoModelForCausalLM
model = AutoModelForCausalLM.from_pretrained({folder}, dtype="float32")"""


def use(fit: Fit, folder: str) -> list[str]:
    """The lines that load a folder of that name or path."""
    name = fit.target.name
    if name == "llama.cpp":
        types = shlex.quote(f"{folder}/{TYPES}")
        return [
            f"convert_hf_to_gguf.py {shlex.quote(folder)} --outtype f32 --outfile model-f32.gguf",
            f"llama-quantize --tensor-type-file {types} model-f32.gguf model.gguf q8_0",
        ]
    if name == "modelopt" and any(v.name == modelopt.AWQ for v in fit.layouts.values()):
        return [
            f"# {modelopt.AWQ} is read by TensorRT-LLM, whose Mamba-2 mixers are those of hybrids",
            f"# state cache: {_dtype(fit, Part.STATE)}, conv cache: {_dtype(fit, Part.CONV_STATE)}",
        ]
    if name in ("vllm", "modelopt"):
        return [
            f"vllm serve {shlex.quote(folder)} --dtype float16 "
            f"--mamba-ssm-cache-dtype {_dtype(fit, Part.STATE)} "
            f"--mamba-cache-dtype {_dtype(fit, Part.CONV_STATE)}"
        ]
    packed = name == "compressed-tensors" and fit.layouts
    lines = DECOMPRESSED if packed else PLAIN
    weights = json.dumps(f"{folder}/{WEIGHTS}")
    return lines.format(folder=json.dumps(folder), weights=weights).splitlines()


def _dtype(fit: Fit, part: Part) -> str:
    return CACHE[fit.state(part)]
