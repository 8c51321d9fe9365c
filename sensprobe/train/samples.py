"""What `fit` is given to learn from, and whether a recipe can use it."""

from __future__ import annotations

import hashlib
import math

import torch
from torch import Tensor

from sensprobe.errors import DataError
from sensprobe.train.recipe import Recipe

Samples = tuple[Tensor, Tensor]
"""x (n, l, d_input) float32 and y (n,) int64 labels."""


def check_samples(recipe: Recipe, samples: Samples, name: str) -> None:
    """DataError unless the samples are ones this recipe's model can be trained on."""
    x, y = samples
    model, data = recipe.model, recipe.data
    problems = {
        f"x is of shape {tuple(x.shape)}, needed (n, length, {model.d_input})": x.ndim != 3
        or x.shape[-1] != model.d_input,
        f"{len(x)} sequences come with {len(y)} labels": len(x) != len(y),
        "there are no samples": len(x) == 0,
        f"labels are {y.dtype}, needed int64 classes": y.dtype != torch.int64 or y.ndim != 1,
    }
    if wrong := [problem for problem, found in problems.items() if found]:
        raise DataError(f"{name}: {'; '.join(wrong)}. Name data that fits the recipe's [model].")
    if int(y.min()) < 0 or int(y.max()) >= model.d_output:
        raise DataError(
            f"{name}: labels run from {int(y.min())} to {int(y.max())}, the recipe's model has "
            f"{model.d_output} classes (0 to {model.d_output - 1})."
        )
    if data.shift and math.prod(data.image) != x.shape[1]:
        raise DataError(
            f"{name}: sequences are {x.shape[1]} long, the recipe shifts images of "
            f"{' x '.join(map(str, data.image))}. Correct [data] image, or set shift = 0."
        )


def digest(x: Tensor, y: Tensor) -> str:
    """What a resumed run must share with the one before: the samples, to the bit."""
    found = hashlib.sha256()
    for tensor in (x, y):
        found.update(str(tuple(tensor.shape)).encode())
        found.update(tensor.contiguous().numpy().tobytes())
    return found.hexdigest()[:16]
