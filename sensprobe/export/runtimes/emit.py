"""What the files of several runtimes share: the tensors of a folder, and the lines that load it."""

from __future__ import annotations

import json
import shlex
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from sensprobe.checkpoints.to_hf import HfTensor
from sensprobe.export.document import WEIGHTS
from sensprobe.export.runtimes.codes import Codes, codes_of, float_of
from sensprobe.export.runtimes.fit import Fit
from sensprobe.models.apply import Applier
from sensprobe.plans.sites import Kind, Part

TENSORS = {"format": "pt"}
CACHE = {"fp32": "float32", "fp16": "float16", "bf16": "bfloat16"}
"""A state's format -> what vLLM's flags call it."""
PLAIN = """\
from transformers import AutoModelForCausalLM
model = AutoModelForCausalLM.from_pretrained({folder}, dtype="float32")"""


@dataclass(frozen=True)
class Emitted:
    """The contents of a runtime's folder, except for the plan and the card.

    `dtype` is the one to load it in; `config` goes into config.json. `converted` tells that the
    runtime makes a file of its own from it, whose bytes are those of the fitted plan.
    """

    tensors: dict[str, Tensor]
    dtype: str
    config: dict[str, Any] = field(default_factory=dict)
    metadata: dict[str, str] = field(default_factory=lambda: dict(TENSORS))
    files: dict[str, bytes] = field(default_factory=dict)
    converted: bool = False


def tensors_of(
    fit: Fit, applier: Applier, entries: Callable[[HfTensor, Codes], Mapping[str, Tensor]]
) -> dict[str, Tensor]:
    """Every tensor of the file: `entries` of those in a layout, the others in their formats."""
    weights = {n: s for n, s in fit.plan.items() if fit.model.sites[n].kind is Kind.WEIGHT}
    tap = applier.tap(weights)
    out: dict[str, Tensor] = {}
    for tensor in fit.tensors:
        if tensor.name in fit.layouts:
            out |= entries(tensor, codes_of(tensor, fit.plan, applier))
        else:
            out[tensor.name] = float_of(tensor, fit.scheme(tensor), tap)
    return out


def by_transformers(fit: Fit, folder: str, lines: str = PLAIN) -> list[str]:
    """The lines of Python that load a folder of that name or path with transformers."""
    weights = json.dumps(f"{folder}/{WEIGHTS}")
    return lines.format(folder=json.dumps(folder), weights=weights).splitlines()


def by_vllm(fit: Fit, folder: str) -> list[str]:
    """The command that serves a folder with vLLM, its caches in the formats of the states."""
    return [
        f"vllm serve {shlex.quote(folder)} --dtype float16 "
        f"--mamba-ssm-cache-dtype {cache_dtype(fit, Part.STATE)} "
        f"--mamba-cache-dtype {cache_dtype(fit, Part.CONV_STATE)}"
    ]


def cache_dtype(fit: Fit, part: Part) -> str:
    """What vLLM calls the format of a kind of state."""
    return CACHE[fit.state(part)]
