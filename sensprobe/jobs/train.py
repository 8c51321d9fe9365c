"""Train a model at full precision from a recipe: one that ships, or the user's TOML."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from sensprobe.data import (
    Dataset,
    check_fits,
    documents_of,
    load_data,
    pydoc_training_text,
    split_options,
)
from sensprobe.errors import UsageError
from sensprobe.jobs.alone import alone_in
from sensprobe.jobs.evaluate import evaluate
from sensprobe.jobs.step_ram import room_for_steps
from sensprobe.plans.plan import Plan
from sensprobe.session.session import Session
from sensprobe.session.source import open_model
from sensprobe.train import (
    LanguageRecipe,
    LanguageTask,
    Pool,
    Progress,
    Recipe,
    Samples,
    SampleTask,
    language_recipe_from,
    read_document,
    recipe_from,
    record,
    train_task,
)
from sensprobe.usercode.trust import Gate, Named, Remembered
from sensprobe.zoo import recipes

DATA_VARIABLE = "SENSPROBE_DATA"
FILES = {
    "mnist": "the four IDX files (train-images-idx3-ubyte, train-labels-idx1-ubyte, "
    "t10k-images-idx3-ubyte, t10k-labels-idx1-ubyte; .gz or not)",
    "cifar10": "its binary files (data_batch_1.bin … test_batch.bin)",
}
"""Data that recipes name without a folder, and what the folder holds."""
CONTEXT_SHARE = 8
"""One in so many tokens of a window of held-out text is context that is not scored."""
CONFIRMED_WINDOWS = 2048
"""Held-out windows that the finished weights are measured on."""


def data_of(source: str, override: str | None) -> str:
    """The DATA a recipe trains on: the override, or its own with a bare name found on the machine.

    A recipe says `mnist` or `cifar10`, perhaps with options, and no folder; SENSPROBE_DATA names
    the folder that holds `mnist/` and `cifar10/`.
    """
    kind, comma, options = source.partition(",")
    if override is not None:
        return override
    if kind not in FILES:
        return source
    if folder := os.environ.get(DATA_VARIABLE):
        return f"{kind}:{Path(folder) / kind}{comma}{options}"
    raise UsageError(
        f"this recipe trains on {kind}: give --data {kind}:FOLDER{comma}{options} with "
        f"{FILES[kind]}, or set {DATA_VARIABLE} to the folder that holds {kind}/."
    )


def text_of(source: str, override: str | None) -> str:
    """The path of the text a language model's recipe trains on, as `data_of` finds it.

    A recipe says `english_novels`, without a folder: SENSPROBE_DATA names the one that holds
    `text/english_novels.tar.xz`.
    """
    spec = override or source
    kind, colon, rest = spec.partition(":")
    if kind == "text" and rest:
        path, options = split_options(rest)
        if options:
            raise UsageError(f"{spec}: the recipe says how text is cut; leave {options!r} out.")
        return path
    if colon or override is not None:
        raise UsageError(
            f"{spec!r} is no text to train on; give --data text:PATH, a folder or a tar of .txt "
            "files."
        )
    if folder := os.environ.get(DATA_VARIABLE):
        return str(Path(folder) / "text" / f"{source}.tar.xz")
    raise UsageError(
        f"this recipe trains on {source.replace('_', ' ')}: give --data text:PATH, a folder or a "
        f"tar of .txt files, or set {DATA_VARIABLE} to the folder that holds "
        f"text/{source}.tar.xz."
    )


def train(
    study: str,
    data: str | None = None,
    out: Path | None = None,
    progress: Callable[[Progress], None] = lambda progress: None,
    *,
    restart: bool = False,
    allow_code: bool = False,
) -> dict[str, Any]:
    """Train by the recipe named or found at `study`; weights and checkpoints go to `out`.

    Goes on from the last snapshot (of samples after each epoch, or part of one) unless `restart`.
    The finished weights are measured on the confirmation split, which the checkpoint then records.
    Code that the recipe names as data, and not the caller, needs `allow_code`, or to be allowed
    before.
    """
    path = recipes().get(study, Path(study))
    if study not in recipes() and not path.exists():
        raise UsageError(
            f"no recipe {study!r}: nothing ships under that name and no such file exists. Recipes "
            f"that ship: {', '.join(recipes())}."
        )
    document, place = read_document(path), out or Path("runs") / path.stem
    if "text" in document:
        text = language_recipe_from(document, str(path))
        return _language(text, data, place, progress, resume=not restart)
    recipe = recipe_from(document, str(path))
    gate = Named() if data is not None else Remembered(str(path), allow_code)
    return _classifier(recipe, data, place, progress, resume=not restart, gate=gate)


def _classifier(
    recipe: Recipe,
    data: str | None,
    out: Path,
    progress: Callable[[Progress], None],
    *,
    resume: bool,
    gate: Gate,
) -> dict[str, Any]:
    dataset = load_data(data_of(recipe.data.source, data), gate=gate)
    check_fits(dataset, d_input=recipe.model.d_input, outputs=recipe.model.d_output)
    task = SampleTask(recipe, _samples(dataset, "train"), _samples(dataset, "search"))
    with alone_in(out):
        trained = train_task(task, out, progress=progress, resume=resume)
    found = _confirm(trained.weights, dataset)
    return found | {"parameters": trained.parameters, "epochs": recipe.schedule.epochs}


def _language(
    recipe: LanguageRecipe,
    data: str | None,
    out: Path,
    progress: Callable[[Progress], None],
    *,
    resume: bool,
) -> dict[str, Any]:
    """A language model: trained on all documents but those held out, measured on these."""
    path, length = text_of(recipe.text.source, data), recipe.text.length
    sizes = f"length={length},context={length // CONTEXT_SHARE}"
    held_out = load_data(f"text:{path},part=held-out,{sizes}")
    documents = [d.content for d in documents_of(path, "train", f"text:{path}")]
    pools = [(1 - recipe.text.pydoc, Pool(documents, length))]
    if recipe.text.pydoc:
        pools.append((recipe.text.pydoc, Pool(pydoc_training_text(), length)))
    task = LanguageTask(recipe, pools, held_out.splits["search"])
    with room_for_steps(task) as (layer, ram), alone_in(out):
        trained = train_task(replace(task, layer=layer), out, progress=progress, resume=resume)
    found = _confirm(trained.weights, held_out, CONFIRMED_WINDOWS)
    return found | {"parameters": trained.parameters, "steps": recipe.schedule.steps, "ram": ram}


def _confirm(weights: Path, dataset: Dataset, limit: int | None = None) -> dict[str, Any]:
    """Measure the weights on unseen data and record the score in their file."""
    session = Session(open_model(weights), dataset)
    count = dataset.splits.count("confirmation")
    scored = evaluate(session, Plan(), limit=None if limit is None else min(limit, count))
    found = {key: scored[key] for key in ("metric", "value", "stderr", "n", "split")}
    record(weights, found)
    return {"weights": str(weights), **found}


def _samples(dataset: Dataset, split: str) -> Samples:
    found = dataset.splits[split]
    return found.x, found.y
