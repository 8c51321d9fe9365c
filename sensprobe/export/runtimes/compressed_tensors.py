"""compressed-tensors: what transformers decompresses and vLLM serves.

`config.json` has a `quantization_config` whose `config_groups` name modules and their weights:

    pack-quantized     integers of 2 to 8 bits, 32/bits to an int32 where that divides: element i
                       of a row begins at bit i·bits, plus half the range so that none is negative
                       M.weight_packed  M.weight_scale  M.weight_shape  [M.weight_zero_point]
    float-quantized    e4m3: M.weight (float8_e4m3fn)  M.weight_scale
    int-quantized      int8 whose input is rounded too, a dynamic scale a token: M.weight (int8)

The dynamic scale of int8 in compressed-tensors is the largest / 127.5, ours / 127; both clamp.

Zero points are packed the same way, down the rows. Checked with compressed-tensors 0.20.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from sensprobe.checkpoints.to_hf import HfTensor
from sensprobe.export.runtimes.codes import Codes
from sensprobe.export.runtimes.emit import PLAIN, Emitted, by_transformers, by_vllm, tensors_of
from sensprobe.export.runtimes.fit import Fit
from sensprobe.export.runtimes.profile import (
    EVERY_SCALE,
    FLOATS,
    LINEARS,
    PROJECTED,
    Layout,
    Runtime,
)
from sensprobe.models.apply import Applier
from sensprobe.plans.formats import Int
from sensprobe.plans.scheme import Scales, Scheme, parse
from sensprobe.plans.sites import Part

VERSION = "0.20.0"
"""Of the format as it is written here."""
ROW, SPANS = frozenset({"channel"}), frozenset({"channel", "group"})
DYNAMIC = "int8/dynamic", "e4m3/dynamic"
"""An activation with a scale a time step, which is a scale a token."""

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


def _layouts(packed: tuple[Layout, ...], scales: frozenset[Scales]) -> tuple[Layout, ...]:
    """Those of matrices whose input is rounded, then those of matrices alone."""
    int8, e4m3 = frozenset({"int8"}), frozenset({"e4m3"})
    return (
        Layout("int-quantized", int8, ROW, scales=scales, reads=DYNAMIC[0]),
        Layout("float-quantized", e4m3, ROW, scales=scales, reads=DYNAMIC[1]),
        *packed,
        Layout("float-quantized", e4m3, ROW, scales=scales),
    )


def _served(name: str, together: int, zeros: str = "none") -> Layout:
    """What vLLM has a kernel for on any GPU: zero points of int4 alone, whole words of codes."""
    groups, half = frozenset({32, 64, 128}), frozenset({Scales.S16})
    return Layout(
        "pack-quantized",
        frozenset({name}),
        SPANS,
        groups,
        zeros,
        scales=half,
        rows=together,
        columns=together,
    )


def quantization_config(fit: Fit) -> dict[str, Any]:
    """What config.json says of the quantized modules; a group for each scheme there is."""
    groups: dict[tuple[Layout, Scheme], list[str]] = {}
    for tensor in fit.tensors:
        if tensor.name in fit.layouts:
            key = (fit.layouts[tensor.name], fit.scheme(tensor))
            groups.setdefault(key, []).append(tensor.module)
    formats = {layout.name for layout, _ in groups}
    return {
        "quant_method": "compressed-tensors",
        "version": VERSION,
        "quantization_status": "compressed",
        "format": formats.pop() if len(formats) == 1 else "mixed-precision",
        "ignore": [t.module for t in fit.tensors if t.matrix and t.name not in fit.layouts],
        "config_groups": {
            f"group_{number}": {
                "targets": modules,
                "format": layout.name,
                "weights": _arguments(scheme),
                "input_activations": None if layout.reads is None else _dynamic(layout.reads),
                "output_activations": None,
            }
            for number, ((layout, scheme), modules) in enumerate(groups.items())
        },
    }


def _arguments(scheme: Scheme) -> dict[str, Any]:
    grouped = scheme.granularity == "group"
    return {
        "num_bits": scheme.format.bits,
        "type": "int" if isinstance(scheme.format, Int) else "float",
        "symmetric": not scheme.asym,
        "strategy": scheme.granularity,
        "group_size": scheme.group if grouped else None,
        "dynamic": False,
    }


def _dynamic(reads: str) -> dict[str, Any]:
    """A scale a token, read from it."""
    return {**_arguments(parse(reads)), "strategy": "token", "dynamic": True}


def entries(module: str, codes: Codes, layout: Layout, scheme: Scheme) -> Mapping[str, Tensor]:
    """The tensors of one quantized module, by their names in the file."""
    scale = {f"{module}.weight_scale": codes.scale}
    if layout.name != "pack-quantized":
        return {f"{module}.weight": codes.codes} | scale
    bits = scheme.format.bits
    out = {
        f"{module}.weight_packed": packed(codes.codes, bits),
        f"{module}.weight_shape": torch.tensor(codes.codes.shape, dtype=torch.int64),
    } | scale
    if codes.zero is not None:
        down = packed(codes.zero.mT.contiguous(), bits).mT
        out[f"{module}.weight_zero_point"] = down.contiguous()
    return out


def packed(codes: Tensor, bits: int) -> Tensor:
    """(rows, columns) int8 -> (rows, ceil(columns · bits / 32)) int32, dense, low bits first."""
    rows, columns = codes.shape
    unsigned = codes.numpy().astype(np.int16) + 2 ** (bits - 1)
    stream = (unsigned[..., None] >> np.arange(bits)) & 1  # (rows, columns, bits)
    words = -(-columns * bits // 32)
    padded = np.zeros((rows, words * 32), np.uint8)
    padded[:, : columns * bits] = stream.reshape(rows, -1)
    octets = np.packbits(padded, axis=1, bitorder="little")
    return torch.from_numpy(octets.view("<i4").astype(np.int32))


def emit(fit: Fit, applier: Applier, dtype: str) -> Emitted:
    """The folder: packed weights, all else in a dtype, and the config that says which is which."""

    def entries_of(tensor: HfTensor, codes: Codes) -> Mapping[str, Tensor]:
        return entries(tensor.module, codes, fit.layouts[tensor.name], fit.scheme(tensor))

    config = {"quantization_config": quantization_config(fit)} if fit.layouts else {}
    return Emitted(tensors_of(fit, applier, entries_of), dtype, config)


def use(fit: Fit, folder: str) -> list[str]:
    """The lines of Python that load the folder, decompressed where something is packed."""
    return by_transformers(fit, folder, DECOMPRESSED if fit.layouts else PLAIN)


RUNTIME = Runtime(
    name="compressed-tensors",
    about="a folder that compressed-tensors makes transformers' model of, in float32",
    matrices={family: parts | {"head"} for family, parts in LINEARS.items()},
    layouts=_layouts(
        (
            Layout(
                "pack-quantized",
                frozenset(f"int{bits}" for bits in range(2, 9)),
                SPANS,
                zeros="codes",
            ),
        ),
        EVERY_SCALE,
    ),
    rest=FLOATS,
    parts={Part.A: ("fp32",)},
    states={Part.STATE: ("fp32",), Part.CONV_STATE: ("fp32",)},
    bare=frozenset({"dt_proj"}),  # as in transformers
    examples=("fp16", "int8/channel", "int4/group32"),
    emit=partial(emit, dtype="float32"),
    use=use,
)

VLLM = Runtime(
    name="vllm",
    about="a folder of compressed-tensors for vLLM at --dtype float16",
    # vLLM hands its quantization config to Mamba-2's in_proj and out_proj, to no matrix of Mamba.
    matrices={family: PROJECTED.get(family, frozenset()) for family in LINEARS},
    layouts=_layouts(
        (_served("int4", 8, zeros="codes"), _served("int8", 4)),
        frozenset({Scales.S16}),
    ),
    rest=("fp16",),
    parts={Part.A: ("fp32",)},
    states={Part.STATE: FLOATS, Part.CONV_STATE: ("fp16", "fp32", "bf16")},
    examples=("fp16", "int8/channel", "int4/group128"),
    emit=partial(emit, dtype="float16"),
    use=by_vllm,
)
