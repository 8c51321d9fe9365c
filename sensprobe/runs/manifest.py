"""run.json: what a run folder belongs to. Written once, whole, when the folder is made."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError
from importlib.metadata import version as installed_version
from pathlib import Path

from sensprobe.documents import DocumentError, read_json, schema, shown
from sensprobe.documents.files import create_whole, strict_json
from sensprobe.errors import RunError
from sensprobe.runs.record import JSON, now

NAME = "run.json"
VERSION = 1  # of the folder's layout; raise it when an older package could misread the folder


def tool_version() -> str:
    """The installed version of this package; "unknown" from a bare source tree."""
    try:
        return installed_version("sensprobe")
    except PackageNotFoundError:
        return "unknown"


@dataclass(frozen=True)
class Manifest:
    """The inputs of a run. `model` and `data` are as the user named them, for people; their
    fingerprints decide. `sites` is site -> shape, `splits` is split -> what was recorded of it
    (count, fingerprint, source), `settings` has the inputs by which later commands open the run
    again.
    """

    model: str
    model_fingerprint: str
    data: str
    data_fingerprint: str
    semantics: int
    sites: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    splits: Mapping[str, JSON] = field(default_factory=dict)
    settings: Mapping[str, JSON] = field(default_factory=dict)
    tool: str = field(default_factory=tool_version)
    created: str = field(default_factory=now)
    version: int = VERSION


def create(folder: Path, manifest: Manifest) -> bool:
    """Writes run.json; False where another process was first."""
    return create_whole(folder / NAME, strict_json(dataclasses.asdict(manifest)))


def read(folder: Path) -> Manifest:
    """`RunError` where the file is damaged or of a newer layout. Unknown fields are ignored."""
    path = folder / NAME
    try:
        document = read_json(path)
    except DocumentError as error:
        raise RunError(
            f"{path} cannot be read ({error}); restore it from a copy, or give --run another folder"
        ) from error
    version = document.get("version") if isinstance(document, dict) else None
    if type(version) is int and version > VERSION:
        raise RunError(
            f"{folder} was written by a newer sensprobe (layout {version}, tool "
            f"{shown(document.get('tool', '?'))}); this one reads up to layout {VERSION}; "
            "upgrade sensprobe"
        )
    try:
        schema("run").require(document)
    except DocumentError as error:
        raise RunError(
            f"{path} lacks what a run needs ({error}); restore it from a copy, or give --run "
            "another folder"
        ) from error
    known = {f.name for f in dataclasses.fields(Manifest)}
    fields = {name: value for name, value in document.items() if name in known}
    fields["sites"] = {site: tuple(shape) for site, shape in document.get("sites", {}).items()}
    return Manifest(**fields)


def named_earlier(name: str) -> bool:
    """True if a model's name was made before names said how (`2-6f0c…`): of its weights as a
    processor computed them, so that the same model may have another name on another machine."""
    return "-" not in name


def known_as(
    found: Manifest, asked: Manifest, earlier: Callable[[], Collection[str]]
) -> str | None:
    """The name that a run of these inputs keeps evaluations under: its own, where it is the model's
    or is proved to be one that the model had before (`earlier`); the model's, where that cannot be
    proved or disproved; None where the run is of another model.
    """
    mine, given = found.model_fingerprint, asked.model_fingerprint
    if mine == given or not named_earlier(mine) or named_earlier(given):
        return mine if mine == given else None
    if mine in earlier():
        return mine
    same = all(asked.sites.get(site) == shape for site, shape in found.sites.items())
    return given if same else None


def check_same(folder: Path, found: Manifest, asked: Manifest, *, model: bool = True) -> None:
    """`RunError` that names each input in which the run and the request differ; `model` says
    whether to compare the models' names."""
    differences = []
    for what in ("model", "data") if model else ("data",):
        mine, theirs = (getattr(m, f"{what}_fingerprint") for m in (found, asked))
        if mine != theirs:
            was, given = getattr(found, what), getattr(asked, what)
            same = " (the name is the same, its content has changed)" if was == given else ""
            differences.append(
                f"{what}: it was made with {was} [{mine[:12]}], asked for {given} "
                f"[{theirs[:12]}]{same}"
            )
    if found.semantics != asked.semantics:
        differences.append(
            f"semantics: it was made with {found.semantics}, this sensprobe computes with "
            f"{asked.semantics}, so its numbers do not compare"
        )
    if differences:
        raise RunError(
            f"{folder} is a run of other inputs. {'; '.join(differences)}. "
            "Give --run another folder, or the inputs this one was made with"
        )
