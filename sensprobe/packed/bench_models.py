"""Models of published shapes whose weights say nothing, and their programs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from sensprobe.export.tensors import stored
from sensprobe.models import Model, mamba, mamba2, s4d
from sensprobe.models.apply import Applier
from sensprobe.models.family import Family
from sensprobe.models.mamba import MambaConfig
from sensprobe.models.mamba2 import Mamba2Config
from sensprobe.models.s4d import S4DConfig
from sensprobe.packed.compile import Compiled, compiled
from sensprobe.packed.weights import PackedWeights
from sensprobe.plans.plan import Plan, Resolved
from sensprobe.plans.scheme import parse
from sensprobe.plans.sites import Kind

DIAGONAL, CHANNELS, HEADS = s4d.FAMILY.name, mamba.FAMILY.name, mamba2.FAMILY.name
"""The family whose recurrence is complex and diagonal, one a channel, and one a head."""
SHAPES = {"130m": 768, "370m": 1024, "790m": 1536, "1.4b": 2048, "2.8b": 2560}
"""Width of the residual stream of the published Mambas and Mamba-2s."""
VOCABULARY = 4096
"""Rows of an embedding to look up in: a step reads a row, however many there are."""
PAIRS = 32
"""Of a head of an S4D of such a width."""


def like_published(
    width: int, family: str, layers: int = 1, vocabulary: int = 16, *, final_norm: bool = True
) -> Model:
    """A Mamba or Mamba-2 of a few layers, or a layer of S4D with a head a channel."""
    if family == DIAGONAL:
        return _s4d(width, layers)
    common: dict[str, Any] = {
        "d_input": vocabulary, "d_output": vocabulary, "d_model": width, "encoder": "embedding",
        "tied_head": True, "pooling": "none", "head_bias": False, "layers": layers,
        "final_norm": final_norm,
    }  # fmt: skip
    if family == CHANNELS:
        config = MambaConfig(**common, dt_rank=-(-width // 16))
        return _filled(mamba.FAMILY, config)
    return _filled(mamba2.FAMILY, Mamba2Config(**common))


def _s4d(width: int, layers: int) -> Model:
    config = S4DConfig(d_input=1, d_output=2, d_model=width, d_state=PAIRS, layers=layers)
    weights = {
        name: torch.full(site.shape, 0.01, dtype=torch.complex64 if site.is_complex else None)
        for name, site in s4d.sites(config).items()
        if site.kind is Kind.WEIGHT
    }
    made: Model = s4d.FAMILY.model(config, weights)
    return made


def _filled(family: Family, config: Any) -> Model:
    """A model whose parameters are all 0.01."""
    shapes = family.parameter_shapes(config)
    params = {name: torch.full(shape, 0.01) for name, shape in shapes.items()}
    made: Model = family.model(config, family.deploy(params, config))
    return made


def resolved(model: Model, plan: Mapping[str, str]) -> Resolved:
    """A plan of texts, by sites."""
    entries = tuple((pattern, parse(text)) for pattern, text in plan.items())
    return Plan(entries).resolve(model.sites.values())


def program_of(model: Model, plan: Mapping[str, str], batch: int) -> tuple[PackedWeights, Compiled]:
    """Packed weights, and the program of a step of `batch` tokens."""
    chosen, applier = resolved(model, plan), Applier(model)
    weights = PackedWeights.of(stored(applier, chosen, applier.tap(chosen)), model.sites, chosen)
    return weights, compiled(model, weights, {}, batch)
