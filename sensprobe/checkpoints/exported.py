"""Reading the description of an exported model: no weights are read, and torch is not imported.

config.json -> family and sizes -> sites;    plan.json -> a scheme a site
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any, get_type_hints

from sensprobe.checkpoints.sizes import config_from
from sensprobe.checkpoints.unchanged import require_complete, require_unchanged
from sensprobe.documents import DocumentError, read_json, schema_of
from sensprobe.errors import CheckpointError, PlanError, SchemeError
from sensprobe.models import FAMILIES
from sensprobe.numerics import SEMANTICS
from sensprobe.plans.plan import Resolved, fingerprint
from sensprobe.plans.plan import read as read_plan
from sensprobe.plans.sites import Site

FORMAT = 2
KEY = "sensprobe_artefact"
PLAN, CONFIG, WEIGHTS, CARD = "plan.json", "config.json", "model.safetensors", "README.md"
FILES = frozenset({PLAN, CONFIG, WEIGHTS, CARD})
NEEDED = (CONFIG, PLAN, WEIGHTS)
AGAIN = "Copy the folder again, or export it again."


def is_artefact(folder: Path) -> bool:
    """True if a folder has at least one of the files of an exported model."""
    return folder.is_dir() and any((folder / name).is_file() for name in NEEDED)


def require_files(folder: Path) -> None:
    """CheckpointError for a folder that lacks one of the files an exported model needs."""
    if not folder.is_dir():
        raise CheckpointError(f"no exported model at {folder}: it is not a folder.")
    held = {path.name for path in folder.iterdir()}
    if missing := [name for name in NEEDED if not (folder / name).is_file()]:
        there = ", ".join(sorted(held & FILES)) or "none of the files that export writes"
        raise CheckpointError(
            f"{folder} lacks {', '.join(missing)} (it has {there}). Copy the whole folder, or "
            "export it again."
        )


def read_config(path: Path) -> dict[str, Any]:
    """The checked document in a config.json; CheckpointError says what is wrong with it."""
    try:
        document = read_json(path)
    except DocumentError as error:
        raise CheckpointError(
            f"{path} cannot be read as JSON ({error}): it is truncated or damaged. {AGAIN}"
        ) from None
    if not isinstance(document, dict) or KEY not in document:
        raise CheckpointError(
            f"{path} is not of a model `sensprobe export` wrote: it has no {KEY!r}."
        )
    for key, known in ((KEY, FORMAT), ("semantics", SEMANTICS)):
        version = document.get(key)
        if isinstance(version, int) and version > known:
            raise CheckpointError(
                f"{path}: {key} {version} is newer than this sensprobe reads ({known}); "
                "upgrade sensprobe."
            )
    try:
        schema_of("sensprobe.export", "config").require(document)
    except DocumentError as error:
        raise CheckpointError(f"{path}: {error}. {AGAIN}") from None
    return document


def sizes_of(document: Mapping[str, Any], folder: Path) -> tuple[str, Any]:
    """Family and config of the model a document describes."""
    source = folder / CONFIG
    family, sizes = config_from(document, source)
    hints = get_type_hints(type(sizes))
    for field in fields(sizes):
        value = getattr(sizes, field.name)
        if type(value) is not hints[field.name]:
            raise CheckpointError(
                f"{source}: config/{field.name} is {value!r}, not {hints[field.name].__name__}."
            )
    held = (folder / WEIGHTS).stat().st_size
    if sizes.layers > held + 1:  # before anything is built a layer
        raise CheckpointError(
            f"{source} says {sizes.layers} layers and {WEIGHTS} has {held:,} bytes: it was "
            f"changed. {AGAIN}"
        )
    return family, sizes


def plan_of(folder: Path, document: Mapping[str, Any], sites: Mapping[str, Site]) -> Resolved:
    """The scheme of every site that the folder's plan names; CheckpointError for another plan than
    the one the folder was exported under."""
    path = folder / PLAN
    try:
        plan = read_plan(path)
        if unknown := [name for name, _ in plan.entries if name not in sites]:
            raise CheckpointError(
                f"{path} names {', '.join(unknown[:5])}, which the model in {CONFIG} lacks: the "
                "two files are not of one export. Copy the folder again, or export it again."
            )
        resolved = plan.resolve(sites.values())
    except (PlanError, SchemeError) as error:
        raise CheckpointError(f"{folder} has a damaged plan: {error}") from None
    if fingerprint(resolved) != document["fingerprints"]["plan"]:
        raise CheckpointError(
            f"{path} is not the plan {CONFIG} was written with, and the packed weights belong to "
            "that one. Copy the folder again; for another plan, export the model under it."
        )
    return resolved


def read(folder: Path) -> tuple[dict[str, Any], Any, Resolved]:
    """The document in config.json, the config of its model, and its plan."""
    require_files(folder)
    document = read_config(folder / CONFIG)
    if document[KEY] == 1:
        require_complete(document, folder / CONFIG)
    family, sizes = sizes_of(document, folder)
    plan = plan_of(folder, document, FAMILIES[family].sites(sizes))
    if document[KEY] > 1:
        require_unchanged(document, read_json(folder / PLAN), folder / CONFIG)
    return document, sizes, plan
