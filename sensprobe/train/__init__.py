"""Full-precision training: from a recipe and samples to a checkpoint, repeatable to the bit."""

from __future__ import annotations

from sensprobe.train.loop import FitResult, Progress, evaluate, fit
from sensprobe.train.recipe import Recipe, read_recipe, recipe_from
from sensprobe.train.samples import Samples
from sensprobe.train.snapshot import record

__all__ = [
    "FitResult",
    "Progress",
    "Recipe",
    "Samples",
    "evaluate",
    "fit",
    "read_recipe",
    "recipe_from",
    "record",
]
