"""torchao: `FqnToConfig`, which names parameters, and weights as its tensor subclasses flatten.

transformers reads `quantization_config.quant_type.default`, a config as torchao serialises it, and
rebuilds each quantized parameter from the tensors and the metadata of the safetensors file:

    M._weight_qdata  M._weight_scale  M._weight_zero_point        and in the metadata, for M.weight,
    {"_type": "IntxUnpackedToInt8Tensor", "_data": {…}, "_tensor_data_names": […]}

IntxUnpackedToInt8Tensor keeps integers of 2 to 8 bits in a byte each, with an int8 zero point a
scale. Checked with torchao 0.18.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor

from sensprobe.checkpoints.to_hf import HfTensor
from sensprobe.export.runtimes.codes import Codes
from sensprobe.export.runtimes.emit import Emitted, by_transformers, tensors_of
from sensprobe.export.runtimes.fit import Fit
from sensprobe.export.runtimes.profile import FLOATS, LINEARS, Layout, Runtime
from sensprobe.models.apply import Applier
from sensprobe.plans.scheme import Scheme
from sensprobe.plans.sites import Part

CLASS = "IntxUnpackedToInt8Tensor"
SPANS = frozenset({"channel", "group"})
NARROW = frozenset(f"int{bits}" for bits in range(2, 8))


def quantization_config(fit: Fit) -> dict[str, Any]:
    """What config.json says: a config for each quantized parameter, by its full name."""
    named = {t.name: _config(fit.scheme(t)) for t in fit.tensors if t.name in fit.layouts}
    return {
        "quant_method": "torchao",
        "quant_type": {"default": _typed("FqnToConfig", {"fqn_to_config": named}, version=1)},
        "modules_to_not_convert": None,
        "include_input_output_embeddings": False,
        "untie_embedding_weights": False,
    }


def _config(scheme: Scheme) -> dict[str, Any]:
    if scheme.granularity == "group":
        granularity = _typed("PerGroup", {"group_size": scheme.group}, version=1)
    else:
        granularity = _typed("PerAxis", {"axis": 0}, version=1)
    data = {
        "weight_dtype": _dtype(scheme),
        "granularity": granularity,
        "mapping_type": {"_type": "MappingType", "_data": _mapping(scheme)},
    }
    return _typed("IntxWeightOnlyConfig", data, version=2)


def _typed(name: str, data: Mapping[str, Any], version: int) -> dict[str, Any]:
    return {"_type": name, "_version": version, "_data": dict(data)}


def _dtype(scheme: Scheme) -> dict[str, str]:
    return {"_type": "torch.dtype", "_data": f"int{scheme.format.bits}"}


def _mapping(scheme: Scheme) -> str:
    return "ASYMMETRIC" if scheme.asym else "SYMMETRIC"


def entries(module: str, codes: Codes) -> Mapping[str, Tensor]:
    """The tensors of one quantized parameter, by their names in the file."""
    zero = torch.zeros(codes.scale.shape, dtype=torch.int8) if codes.zero is None else codes.zero
    return {
        f"{module}._weight_qdata": codes.codes,
        f"{module}._weight_scale": codes.scale,
        f"{module}._weight_zero_point": zero,
    }


def metadata(fit: Fit, tensors: Iterable[HfTensor]) -> dict[str, str]:
    """The metadata of the safetensors file: how each parameter is rebuilt."""
    out = {"format": "pt"}
    names = []
    for tensor in tensors:
        names.append(tensor.name)
        quantized = tensor.name in fit.layouts
        described = _rebuilt(fit, tensor) if quantized else {"_type": "Tensor"}
        out[tensor.name] = json.dumps(described)
    return out | {"tensor_names": json.dumps(names)}


def _rebuilt(fit: Fit, tensor: HfTensor) -> dict[str, Any]:
    scheme = fit.scheme(tensor)
    columns = fit.model.sites[tensor.sites[0]].shape[-1]
    return {
        "_type": CLASS,
        "_data": {
            "target_dtype": _dtype(scheme),
            "block_size": [1, scheme.group or columns],
            "dtype": {"_type": "torch.dtype", "_data": "float32"},
            "activation_quantization": None,
        },
        "_tensor_data_names": ["qdata", "scale", "zero_point"],
    }


def emit(fit: Fit, applier: Applier) -> Emitted:
    """The folder: tensors in float32 or as torchao flattens them, and the config that says how."""
    tensors = tensors_of(fit, applier, lambda tensor, codes: entries(tensor.module, codes))
    if not fit.layouts:
        return Emitted(tensors, "float32")
    config = {"quantization_config": quantization_config(fit)}
    return Emitted(tensors, "float32", config, metadata(fit, fit.tensors))


RUNTIME = Runtime(
    name="torchao",
    about="a folder that transformers loads with torchao, in float32",
    # transformers multiplies Mamba's dt_proj by its bare weight, for which torchao has no operator.
    matrices={family: parts - {"dt_proj"} for family, parts in LINEARS.items()},
    layouts=(
        Layout(CLASS, frozenset({"int8"}), SPANS, zeros="int8"),
        Layout(CLASS, NARROW, SPANS, zeros="int8", dense=False),
    ),
    rest=FLOATS,
    parts={Part.A: ("fp32",)},
    states={Part.STATE: ("fp32",), Part.CONV_STATE: ("fp32",)},
    examples=("fp16", "int8/channel", "int4/group32"),
    emit=emit,
    use=by_transformers,
)
