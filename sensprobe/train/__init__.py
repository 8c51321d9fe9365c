"""Full-precision training: from a recipe and samples to a checkpoint, repeatable to the bit."""

from __future__ import annotations

from sensprobe.train.language import LanguageResult, Pool, fit_language
from sensprobe.train.language_recipe import LanguageRecipe, language_recipe_from
from sensprobe.train.loop import FitResult, Progress, evaluate, fit
from sensprobe.train.recipe import Recipe, read_document, read_recipe, recipe_from
from sensprobe.train.samples import Samples
from sensprobe.train.snapshot import record

__all__ = [
    "FitResult",
    "LanguageRecipe",
    "LanguageResult",
    "Pool",
    "Progress",
    "Recipe",
    "Samples",
    "evaluate",
    "fit",
    "fit_language",
    "language_recipe_from",
    "read_document",
    "read_recipe",
    "recipe_from",
    "record",
]
