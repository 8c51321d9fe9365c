"""Train a model at full precision from a recipe: one that ships, or the user's TOML."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from sensprobe.data import Dataset, check_fits, load_data
from sensprobe.errors import UsageError
from sensprobe.loading import load_model
from sensprobe.plan import Plan
from sensprobe.steps.evaluating import evaluate
from sensprobe.train import FitResult, Progress, Samples, fit, read_recipe, record
from sensprobe.workbench import open_workbench
from sensprobe.zoo import recipes

DATA_VARIABLE = "SENSPROBE_DATA"


def data_of(source: str, override: str | None) -> str:
    """The DATA a recipe trains on: the override, or its own with a bare name found on the machine.

    A recipe says `mnist`, without a folder; SENSPROBE_DATA names the folder that holds `mnist/`.
    """
    if override is not None:
        return override
    if source != "mnist":
        return source
    if folder := os.environ.get(DATA_VARIABLE):
        return f"mnist:{Path(folder) / 'mnist'}"
    raise UsageError(
        "this recipe trains on MNIST: give --data mnist:FOLDER with the four IDX files "
        "(train-images-idx3-ubyte, train-labels-idx1-ubyte, t10k-images-idx3-ubyte, "
        f"t10k-labels-idx1-ubyte; .gz or not), or set {DATA_VARIABLE} to the folder that holds "
        "mnist/."
    )


def train(
    study: str,
    data: str | None = None,
    out: Path | None = None,
    progress: Callable[[Progress], None] = lambda progress: None,
    *,
    restart: bool = False,
) -> dict[str, Any]:
    """Train by the recipe named or found at `study`; weights and checkpoints go to `out`.

    Goes on from the last whole epoch unless `restart`. The finished weights are measured on the
    confirmation split, which the checkpoint then records.
    """
    path = recipes().get(study, Path(study))
    if study not in recipes() and not path.exists():
        raise UsageError(
            f"no recipe {study!r}: nothing ships under that name and no such file exists. Recipes "
            f"that ship: {', '.join(recipes())}."
        )
    recipe = read_recipe(path)
    dataset = load_data(data_of(recipe.data.source, data))
    check_fits(dataset, d_input=recipe.model.d_input, outputs=recipe.model.d_output)
    fitted = fit(
        recipe,
        out or Path("runs") / path.stem,
        train=_samples(dataset, "train"),
        validation=_samples(dataset, "search"),
        progress=progress,
        resume=not restart,
    )
    return _confirm(fitted, dataset)


def _confirm(fitted: FitResult, dataset: Dataset) -> dict[str, Any]:
    """Measure the weights on unseen data and record the score in their file."""
    scored = evaluate(open_workbench(load_model(fitted.weights), dataset), Plan())
    found = {key: scored[key] for key in ("metric", "value", "stderr", "n", "split")}
    record(fitted.weights, found)
    return {
        "weights": str(fitted.weights),
        "parameters": fitted.parameters,
        "epochs": len(fitted.history),
        **found,
    }


def _samples(dataset: Dataset, split: str) -> Samples:
    found = dataset.splits[split]
    return found.x, found.y
