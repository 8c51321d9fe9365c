"""Creating a run folder, or opening one, without ever touching a folder that is not a run."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Collection
from pathlib import Path

from sensprobe.errors import RunError
from sensprobe.files import disk_errors, is_draft
from sensprobe.runs import manifest as manifests
from sensprobe.runs.ledger import Ledger
from sensprobe.runs.manifest import Manifest
from sensprobe.runs.run import Run


def open_run(
    path: str | Path,
    manifest: Manifest | None = None,
    *,
    earlier: Callable[[], Collection[str]] = frozenset,
    reuse_siblings: bool = False,
) -> Run:
    """The run in folder `path`; with a manifest it is created where there is none.

    An existing run must be of the manifest's model, data and semantics, else `RunError` names what
    differs. `earlier` computes names that the model had in runs of older versions; a run whose
    older name is none of these may be of the model or not, so nothing that it measured is used, and
    a notice says so. With `reuse_siblings`, evaluations of runs in the same parent folder with the
    same model, data and semantics are found too.
    """
    folder = Path(path)
    if folder.exists() and not folder.is_dir():
        raise RunError(f"{folder} is a file; a run is a folder, give --run another name")
    if not (folder / manifests.NAME).exists():
        if manifest is None:
            raise RunError(_no_run(folder))
        _create(folder, manifest)
    found = manifests.read(folder)
    notices: list[str] = []
    name: str | None = found.model_fingerprint
    if manifest is not None:
        name = manifests.known_as(found, manifest, earlier)
        manifests.check_same(folder, found, manifest, model=name is None)
        if name is not None and name != found.model_fingerprint:
            notices.append(
                f"{folder} was made by an older sensprobe, whose name for the model "
                f"({found.model_fingerprint}) depends on the processor and cannot be compared with "
                "the model here: nothing that it measured is used, and all is measured anew"
            )
    siblings = _siblings(folder, found, notices) if reuse_siblings else ()
    run = Run(folder, found, siblings, name)
    run.notices += notices
    return run


def _create(folder: Path, manifest: Manifest) -> None:
    if folder.exists():
        foreign = sorted(entry.name for entry in folder.iterdir() if not is_draft(entry))
        if foreign and not (folder / manifests.NAME).exists():
            raise RunError(
                f"{folder} is not a run (it has no {manifests.NAME}) and not empty: it holds "
                f"{', '.join(foreign[:5])}{' ...' if len(foreign) > 5 else ''}. It was left "
                "untouched; give --run a new or empty folder"
            )
    new = [part for part in (folder, *folder.parents) if not part.exists()]
    try:
        with disk_errors(folder, "creating"):
            folder.mkdir(parents=True, exist_ok=True)
        manifests.create(folder, manifest)
    except RunError:
        for part in new:
            with contextlib.suppress(OSError):
                part.rmdir()
        raise


def _siblings(folder: Path, mine: Manifest, notices: list[str]) -> tuple[Ledger, ...]:
    """Ledgers of the runs beside this one whose numbers are interchangeable with its own."""
    own = folder.resolve()
    ledgers = []
    for other in sorted(own.parent.iterdir()):
        if other == own or not (other / manifests.NAME).is_file():
            continue
        try:
            theirs = manifests.read(other)
        except RunError as error:
            notices.append(f"the run beside this one is not used: {error}")
            continue
        if theirs.identity == mine.identity:
            ledgers.append(Ledger(other))
    return tuple(ledgers)


def _no_run(folder: Path) -> str:
    what = f"{folder} is not a run" if folder.is_dir() else f"no run at {folder}"
    inside, around = (
        sorted(str(path.parent) for path in parent.glob(f"*/{manifests.NAME}"))
        for parent in (folder, folder.parent)
    )
    beside = inside or around
    hint = f"; runs near it: {', '.join(beside[:5])}" if beside else ""
    return f"{what}{hint}. Make one with `sensprobe profile MODEL --data DATA --run {folder}`"
