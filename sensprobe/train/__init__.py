"""Training, from data to a checkpoint, repeatable to the bit: by a recipe, or under a plan.

`train_task` is the one loop; a task says what is learnt: `SampleTask` classes or numbers of
sequences, `LanguageTask` a language model over bytes, `tune.TuneTask` either under a plan.
"""

from __future__ import annotations

from sensprobe.train.language import LanguageTask, Pool
from sensprobe.train.loop import Progress, Task, Trained, train_task
from sensprobe.train.recipe import (
    LanguageRecipe,
    Recipe,
    language_recipe_from,
    read_document,
    recipe_from,
)
from sensprobe.train.samples import Samples, SampleTask
from sensprobe.train.snapshot import record

__all__ = [
    "LanguageRecipe",
    "LanguageTask",
    "Pool",
    "Progress",
    "Recipe",
    "SampleTask",
    "Samples",
    "Task",
    "Trained",
    "language_recipe_from",
    "read_document",
    "recipe_from",
    "record",
    "train_task",
]
