"""NVIDIA ModelOpt: `hf_quant_config.json`, which TensorRT-LLM and vLLM read beside the weights.

Where all quantized layers are alike, `quant_algo` names what they are in, and `exclude_modules` the
others. Else it is MIXED_PRECISION, and `quantized_layers` lists every quantized layer by name:

    W4A16_AWQ                     int4 in groups: M.weight (uint8, two rows to a byte)
                                  M.weight_scale (rows, groups)
    FP8_PER_CHANNEL_PER_TOKEN     e4m3, a scale a row; inputs rounded, a dynamic scale a token:
                                  M.weight (float8_e4m3fn)  M.weight_scale (rows)

ModelOpt's FP8 has one scale a matrix, and those of a fused one differ; its W8A8 is SmoothQuant's,
which no plan says. vLLM reads FP8_PER_CHANNEL_PER_TOKEN of these two, TensorRT-LLM both. Not every
vLLM looks for it under MIXED_PRECISION, and none takes that with no layer: then no file is written.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from sensprobe import __version__
from sensprobe.checkpoints.to_hf import HfTensor
from sensprobe.export.document import QUANT_CONFIG, to_bytes
from sensprobe.export.runtimes.codes import Codes
from sensprobe.export.runtimes.emit import Emitted, by_vllm, cache_dtype, tensors_of
from sensprobe.export.runtimes.fit import Fit
from sensprobe.export.runtimes.profile import FLOATS, PROJECTED, Layout, Runtime
from sensprobe.models.apply import Applier
from sensprobe.plans.sites import Part

AWQ, FP8 = "W4A16_AWQ", "FP8_PER_CHANNEL_PER_TOKEN"


def quant_config(fit: Fit) -> dict[str, Any]:
    """The document of hf_quant_config.json, of a plan that quantizes some layer."""
    layers: dict[str, dict[str, Any]] = {}
    for tensor in fit.tensors:
        if (layout := fit.layouts.get(tensor.name)) is None:
            continue
        layer: dict[str, Any] = {"quant_algo": layout.name}
        if layout.name == AWQ:
            group = fit.scheme(tensor).group
            layer |= {"group_size": group, "has_zero_point": False, "pre_quant_scale": False}
        layers[tensor.module] = layer
    first, *others = layers.values()
    mixed = {"quant_algo": "MIXED_PRECISION", "quantized_layers": layers}
    return {
        "producer": {"name": "sensprobe", "version": __version__},
        "quantization": {
            **(first if all(layer == first for layer in others) else mixed),
            "kv_cache_quant_algo": None,
            "exclude_modules": [
                t.module for t in fit.tensors if t.matrix and t.module not in layers
            ],
        },
    }


def entries(module: str, codes: Codes, layout: Layout) -> Mapping[str, Tensor]:
    """The tensors of one quantized layer, by their names in the file."""
    if layout.name == FP8:
        scale = codes.scale.float()[:, 0].contiguous()
        return {f"{module}.weight": codes.codes, f"{module}.weight_scale": scale}
    return {f"{module}.weight": packed(codes.codes), f"{module}.weight_scale": codes.scale.float()}


def packed(codes: Tensor) -> Tensor:
    """(rows, columns) int8 of 4 bits -> (rows / 2, columns) uint8: the even row in the low half."""
    even, odd = codes[0::2] & 0x0F, codes[1::2] & 0x0F
    return (even | (odd << 4)).view(torch.uint8).contiguous()


def emit(fit: Fit, applier: Applier) -> Emitted:
    """The folder: weights in float16, and hf_quant_config.json where a layer is quantized."""

    def entries_of(tensor: HfTensor, codes: Codes) -> Mapping[str, Tensor]:
        return entries(tensor.module, codes, fit.layouts[tensor.name])

    files = {QUANT_CONFIG: to_bytes(quant_config(fit))} if fit.layouts else {}
    return Emitted(tensors_of(fit, applier, entries_of), "float16", files=files)


def use(fit: Fit, folder: str) -> list[str]:
    """The command of vLLM, or for what TensorRT-LLM alone reads, the formats of its caches."""
    if not any(layout.name == AWQ for layout in fit.layouts.values()):
        return by_vllm(fit, folder)
    state, conv = (cache_dtype(fit, part) for part in (Part.STATE, Part.CONV_STATE))
    return [
        f"# {AWQ} is read by TensorRT-LLM, whose Mamba-2 mixers are those of hybrids",
        f"# state cache: {state}, conv cache: {conv}",
    ]


RUNTIME = Runtime(
    name="modelopt",
    about="a folder as ModelOpt exports one for TensorRT-LLM or vLLM, in float16",
    matrices=PROJECTED,
    layouts=(
        Layout(AWQ, frozenset({"int4"}), frozenset({"group"}), rows=2),
        Layout(FP8, frozenset({"e4m3"}), frozenset({"channel"}), reads="e4m3/dynamic"),
    ),
    rest=("fp16",),
    parts={Part.A: ("fp32",)},
    states={Part.STATE: FLOATS, Part.CONV_STATE: ("fp16", "fp32", "bf16")},
    examples=("fp16", "int4/group128"),
    emit=emit,
    use=use,
)
