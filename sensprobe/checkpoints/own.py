"""This package's checkpoints: float32 safetensors with the model's config in the header.

Every family has parameters of its own (`parameter_shapes`). S4D's, H heads, N complex
pairs: encoder.weight [H, d_input], encoder.bias [H], layers.{i}.log_dt [H], .log_A_real [H, N],
.A_imag [H, N], .B [H, N, 2], .C [H, N, 2], .D [H], .out_proj.weight [2H, H], .out_proj.bias [2H],
(.norm.weight, .norm.bias [H]), head.weight, head.bias. Of a head of several layers see
`models.output_head`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from sensprobe.checkpoints.files import read_safetensors, require_finite
from sensprobe.checkpoints.fit import family_hint, require_numbers, require_shapes
from sensprobe.checkpoints.keymap import Rule, fitted
from sensprobe.documents import shown
from sensprobe.errors import CheckpointError, UsageError
from sensprobe.models import FAMILIES, Model, family_of
from sensprobe.models.frame import Shapes

FORMAT = 1


@dataclass(frozen=True, slots=True)
class Parameters:
    """What a checkpoint holds, under our names: tensors as stored, and the config of their model.

    `source` is the file that errors name; `header` is what the file says of itself.
    """

    tensors: Mapping[str, Tensor]
    config: Any
    source: Path
    header: Mapping[str, Any]


def config_from(document: Mapping[str, Any], source: Path) -> tuple[str, Any]:
    """Family and config from a JSON description; CheckpointError for what it does not know."""
    family = document.get("family")
    if not isinstance(family, str) or family not in FAMILIES:
        raise CheckpointError(
            f"{source} says it is a {shown(repr(family))} model; families here: "
            f"{', '.join(FAMILIES)}."
        )
    config_class = FAMILIES[family].config
    known = {f.name for f in fields(config_class)}
    given = document.get("config", {})
    if not isinstance(given, Mapping):
        raise CheckpointError(
            f"{source}: its config is of type {type(given).__name__}, not a table of sizes."
        )
    if unknown := sorted(set(given) - known):
        raise CheckpointError(
            f"{source}: unknown config key(s) {', '.join(map(shown, unknown[:5]))}; known: "
            f"{sorted(known)}."
        )
    try:
        return str(family), config_class(**given)
    except TypeError as error:
        raise CheckpointError(f"{source}: its config is incomplete ({error}).") from None
    except UsageError as error:
        raise CheckpointError(f"{source}: config.{error}") from None


def parameter_shapes(config: Any) -> Shapes:
    """Name and shape of every trained parameter of a model."""
    return family_of(config).parameter_shapes(config)


def build(params: Mapping[str, Tensor], config: Any, source: Path) -> Model:
    """The model of a set of parameters; S4D is discretised in float64."""
    require_numbers(params, source)
    require_layers(config, params, source)
    family = family_of(config)
    require_shapes(params, family.parameter_shapes(config), source, family.name)
    require_finite(params, source)
    dtype = getattr(torch, family.precision)
    weights = family.deploy({name: p.to(dtype) for name, p in params.items()}, config)
    require_finite({k: v.abs() for k, v in weights.items()}, source)
    return family.model(config, weights)


def fit(
    tensors: Mapping[str, Any],
    rules: Sequence[Rule],
    config: Any,
    source: Path,
    header: Mapping[str, Any],
    every_rule: bool = False,
) -> Parameters:
    """The parameters of a config's model among a file's tensors (see `fitted`)."""
    require_layers(config, tensors, source)
    wanted = parameter_shapes(config)
    params = fitted(tensors, rules, wanted, source, family_of(config).name, every_rule)
    return Parameters(params, config, source, header)


def require_layers(config: Any, tensors: Mapping[str, Any], source: Path) -> None:
    """CheckpointError for more layers than tensors, before anything is made for each of them."""
    if config.layers > len(tensors):
        raise CheckpointError(
            f"{source}: the config says {config.layers} layers and the file holds {len(tensors)} "
            "tensors."
        )


def read(path: Path) -> Parameters:
    """The parameters in an own checkpoint."""
    tensors, header = read_safetensors(path)
    if not header:
        raise CheckpointError(
            f"{path} has no sensprobe header, so its family and sizes are unknown. "
            f"{family_hint(tensors)}Describe it in a model.toml (family, sizes, norm) and name "
            "that file instead."
        )
    require_format(header, path)
    _, config = config_from(header, path)
    return fit(tensors, [], config, path, header)


def require_format(header: Mapping[str, Any], path: Path) -> None:
    """CheckpointError for a header of another version of this package."""
    if header.get("format") != FORMAT:
        raise CheckpointError(
            f"{path} is of format {header.get('format')!r}; this sensprobe reads {FORMAT}. If the "
            "file is newer, upgrade sensprobe."
        )
