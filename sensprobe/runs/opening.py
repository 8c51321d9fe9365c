"""Creating a run folder, or opening one, without ever touching a folder that is not a run."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Collection, Sequence
from pathlib import Path

from sensprobe.documents.files import disk_errors, is_draft
from sensprobe.errors import RunError
from sensprobe.runs import manifest as manifests
from sensprobe.runs.ledger import Ledger
from sensprobe.runs.manifest import Manifest
from sensprobe.runs.run import Reused, Run


def open_run(
    path: str | Path,
    manifest: Manifest | None = None,
    *,
    earlier: Callable[[], Collection[str]] = frozenset,
    reuse: Sequence[str | Path] = (),
) -> Run:
    """The run in folder `path`; with a manifest it is created where there is none.

    An existing run must be of the manifest's model, data and semantics, else `RunError` names what
    differs. `earlier` computes names that the model had in runs of older versions; a run whose
    older name is none of these may be of the model or not, so nothing that it measured is used, and
    a notice says so. Evaluations of the runs in `reuse` are found too; each must be of the same
    model, data and semantics. No other run is looked at: a ledger's checksums tell damage, not who
    wrote it.
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
    others = [Path(other) for other in reuse]
    asked = found if manifest is None else manifest
    reused = [_reused(other, asked, earlier) for other in others if not _same(other, folder)]
    run = Run(folder, found, tuple(reused), name)
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


def _reused(folder: Path, asked: Manifest, earlier: Callable[[], Collection[str]]) -> Reused:
    """A run whose evaluations the user wants to be used in another."""
    if not (folder / manifests.NAME).is_file():
        raise RunError(f"--reuse {folder}: there is no run (it has no {manifests.NAME})")
    theirs = manifests.read(folder)
    name = manifests.known_as(theirs, asked, earlier)
    same = {
        "model": name is not None,
        "data": theirs.data_fingerprint == asked.data_fingerprint,
        "semantics": theirs.semantics == asked.semantics,
    }
    if differing := [what for what, is_same in same.items() if not is_same]:
        raise RunError(
            f"--reuse {folder}: that run is of another {', another '.join(differing)}, so its "
            "evaluations say nothing here. Leave it out, or name one of the same inputs"
        )
    if name != theirs.model_fingerprint:
        raise RunError(
            f"--reuse {folder}: that run was made by an older sensprobe, whose name for the model "
            "depends on the processor and cannot be compared with the model here. Leave it out"
        )
    return Reused(Ledger(folder), theirs.model_fingerprint)


def _same(one: Path, other: Path) -> bool:
    return one.resolve() == other.resolve()


def _no_run(folder: Path) -> str:
    what = f"{folder} is not a run" if folder.is_dir() else f"no run at {folder}"
    inside, around = (
        sorted(str(path.parent) for path in parent.glob(f"*/{manifests.NAME}"))
        for parent in (folder, folder.parent)
    )
    beside = inside or around
    hint = f"; runs near it: {', '.join(beside[:5])}" if beside else ""
    return f"{what}{hint}. Make one with `sensprobe profile MODEL --data DATA --run {folder}`"
