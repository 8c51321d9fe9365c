"""This package's checkpoints: float32 safetensors with the model's config in the header.

Every family has parameters of its own (`parameter_shapes`). S4D's, H heads, N complex
pairs: encoder.weight [H, d_input], encoder.bias [H], layers.{i}.log_dt [H], .log_A_real [H, N],
.A_imag [H, N], .B [H, N, 2], .C [H, N, 2], .D [H], .out_proj.weight [2H, H], .out_proj.bias [2H],
(.norm.weight, .norm.bias [H]), head.weight, head.bias. With discretization "none" A [H, N, 2]
stands for log_dt, log_A_real and A_imag, and A and B are discretised. S5's, P modes: log_dt [P],
A_real [P], A_imag [P], .B [P, H, 2], .C [H, P, 2] (2P for two directions), .D [H], and an out_proj
where it has a gate. Of a head of several layers see `models.output_head`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sensprobe.checkpoints.files import ReadTensors, read_safetensors, require_finite
from sensprobe.checkpoints.fit import family_hint, require_numbers, require_shapes
from sensprobe.checkpoints.headers import Tensors
from sensprobe.checkpoints.keymap import Rule, fitted
from sensprobe.checkpoints.sizes import config_from
from sensprobe.errors import CheckpointError
from sensprobe.models import Model, family_of
from sensprobe.models.frame import Shapes

if TYPE_CHECKING:
    from torch import Tensor

FORMAT = 1


@dataclass(frozen=True, slots=True)
class Parameters:
    """The content of a checkpoint, under our names, and the config of its model.

    `tensors` are as stored, or their headers where only a description is asked for.

    `source` is the file that errors name; `header` is what the file says of itself.
    """

    tensors: Tensors
    config: Any
    source: Path
    header: Mapping[str, Any]


def parameter_shapes(config: Any) -> Shapes:
    """Name and shape of every trained parameter of a model."""
    return family_of(config).parameter_shapes(config)


def build(params: Mapping[str, Tensor], config: Any, source: Path) -> Model:
    """The model of a set of parameters, deployed in its family's precision."""
    import torch

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


def read(path: Path, read_tensors: ReadTensors = read_safetensors) -> Parameters:
    """The parameters in an own checkpoint."""
    return found_in(*read_tensors(path), path)


def found_in(tensors: Tensors, header: Mapping[str, Any], path: Path) -> Parameters:
    """The parameters in the tensors and the header of a file that is read already."""
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
