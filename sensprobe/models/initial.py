"""The parameters that training starts from: linear maps and filters uniform, norms at one.

    weight, bias ~ U(-1, 1) / √(inputs)        as torch.nn.Linear's and Conv1d's
    embedding ~ N(0, 0.02²)                    as mamba_ssm's
    log dt ~ U(log dt_min, log dt_max)         about 1 / dt steps are remembered

A family draws those that only it has. All of it comes from one generator in the order of
`parameter_shapes`, so that a seed names one start for good.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from sensprobe.models.frame import Shapes

EMBEDDING_DEVIATION = 0.02
Own = Callable[[str, tuple[int, ...], torch.Generator], Tensor | None]
"""(name, shape, generator) -> a parameter as its family draws it; None for one that all have."""


def drawn(shapes: Shapes, own: Own, seed: int) -> dict[str, Tensor]:
    """Parameters by name, float32, gradients off."""
    generator = torch.Generator().manual_seed(seed)
    found = {}
    for name, shape in shapes.items():
        value = own(name, shape, generator)
        found[name] = _usual(name, shape, shapes, generator) if value is None else value
    return found


def _usual(name: str, shape: tuple[int, ...], shapes: Shapes, generator: torch.Generator) -> Tensor:
    if name == "embedding.weight":
        return torch.randn(shape, generator=generator) * EMBEDDING_DEVIATION
    weight = shapes[name.rpartition(".")[0] + ".weight"]
    if len(weight) == 1:  # of a norm
        return torch.ones(shape) if name.endswith("weight") else torch.zeros(shape)
    return uniform(shape, weight, generator)


def uniform(shape: tuple[int, ...], weight: tuple[int, ...], generator: torch.Generator) -> Tensor:
    """Within 1 / √(inputs) of a map whose weight has this shape."""
    return (torch.rand(shape, generator=generator) * 2 - 1) * math.prod(weight[1:]) ** -0.5


def log_steps(
    shape: tuple[int, ...], dt: tuple[float, float], generator: torch.Generator
) -> Tensor:
    """The logarithm of a step size between dt's ends, uniform."""
    low, high = math.log(dt[0]), math.log(dt[1])
    return low + torch.rand(shape, generator=generator) * (high - low)
