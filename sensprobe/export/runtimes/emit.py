"""From a fitted plan to the tensors and documents of a target's folder."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from sensprobe.checkpoints.to_hf import HfTensor
from sensprobe.export.document import QUANT_CONFIG, TYPES, to_bytes
from sensprobe.export.runtimes import compressed_tensors, llama_cpp, modelopt, torchao
from sensprobe.export.runtimes.codes import Codes, codes_of, float_of
from sensprobe.export.runtimes.fit import Fit
from sensprobe.models.apply import Applier
from sensprobe.plans.scheme import EXACT
from sensprobe.plans.sites import Kind

TENSORS = {"format": "pt"}


@dataclass(frozen=True)
class Emitted:
    """What a target's folder holds beside the plan and the card.

    `dtype` is the one to load it in; `config` goes into config.json. `converted` tells that the
    runtime makes a file of its own from it, whose bytes are those of the fitted plan.
    """

    tensors: dict[str, Tensor]
    dtype: str
    config: dict[str, Any] = field(default_factory=dict)
    metadata: dict[str, str] = field(default_factory=lambda: dict(TENSORS))
    files: dict[str, bytes] = field(default_factory=dict)
    converted: bool = False


def _tensors(
    fit: Fit, applier: Applier, entries: Callable[[HfTensor, Codes], Any]
) -> dict[str, Tensor]:
    """Every tensor of the file: `entries` of those in a layout, the others in their formats."""
    weights = {n: s for n, s in fit.plan.items() if fit.model.sites[n].kind is Kind.WEIGHT}
    tap = applier.tap(weights)
    out: dict[str, Tensor] = {}
    for tensor in fit.tensors:
        if tensor.name in fit.layouts:
            out |= entries(tensor, codes_of(tensor, fit.plan, applier))
        else:
            scheme = fit.scheme(tensor)
            out[tensor.name] = float_of(tensor, scheme, tap)
    return out


def _compressed(fit: Fit, applier: Applier, dtype: str) -> Emitted:
    def entries(tensor: HfTensor, codes: Codes) -> Any:
        layout, scheme = fit.layouts[tensor.name], fit.scheme(tensor)
        return compressed_tensors.entries(tensor.module, codes, layout, scheme)

    quantized = {"quantization_config": compressed_tensors.quantization_config(fit)}
    return Emitted(_tensors(fit, applier, entries), dtype, quantized if fit.layouts else {})


def for_compressed_tensors(fit: Fit, applier: Applier) -> Emitted:
    return _compressed(fit, applier, "float32")


def for_vllm(fit: Fit, applier: Applier) -> Emitted:
    return _compressed(fit, applier, "float16")


def for_modelopt(fit: Fit, applier: Applier) -> Emitted:
    def entries(tensor: HfTensor, codes: Codes) -> Any:
        return modelopt.entries(tensor.module, codes, fit.layouts[tensor.name])

    files = {QUANT_CONFIG: to_bytes(modelopt.quant_config(fit))} if fit.layouts else {}
    return Emitted(_tensors(fit, applier, entries), "float16", files=files)


def for_torchao(fit: Fit, applier: Applier) -> Emitted:
    tensors = _tensors(fit, applier, lambda t, codes: torchao.entries(t.module, codes))
    if not fit.layouts:
        return Emitted(tensors, "float32")
    config = {"quantization_config": torchao.quantization_config(fit)}
    return Emitted(tensors, "float32", config, torchao.metadata(fit, fit.tensors))


def for_llama_cpp(fit: Fit, applier: Applier) -> Emitted:
    """Float weights; those that llama.cpp rounds to grids of its own are left unrounded."""
    anew = set(fit.rounded_anew())
    exact = {site for t in fit.tensors if t.name in anew for site in t.sites}
    weights = {
        name: EXACT if name in exact else scheme
        for name, scheme in fit.plan.items()
        if fit.model.sites[name].kind is Kind.WEIGHT
    }
    tap = applier.tap(weights)
    tensors = {}
    for tensor in fit.tensors:
        scheme = EXACT if tensor.name in fit.layouts else fit.scheme(tensor)
        tensors[tensor.name] = float_of(tensor, scheme, tap)
    types = {TYPES: llama_cpp.types_file(fit)}
    return Emitted(tensors, "float32", files=types, converted=True)


EMITTERS: dict[str, Callable[[Fit, Applier], Emitted]] = {
    "compressed-tensors": for_compressed_tensors,
    "vllm": for_vllm,
    "modelopt": for_modelopt,
    "torchao": for_torchao,
    "llama.cpp": for_llama_cpp,
}
"""Target name -> what makes its folder."""
