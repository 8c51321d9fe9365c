"""Creating a run folder, or opening one, without ever touching a folder that is not a run."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from pathlib import Path

from sensprobe.errors import RunError
from sensprobe.files import disk_errors, is_draft
from sensprobe.runs import manifest as manifests
from sensprobe.runs.ledger import Ledger
from sensprobe.runs.manifest import Manifest
from sensprobe.runs.run import Run

IDENTITY = ("model", "data", "semantics")
"""What `Manifest.identity` holds."""


def open_run(
    path: str | Path, manifest: Manifest | None = None, *, reuse: Sequence[str | Path] = ()
) -> Run:
    """The run in folder `path`; with a manifest it is created where there is none.

    An existing run must be of the manifest's model, data and semantics, else `RunError` names what
    differs. Evaluations of the runs in `reuse` are found too; each must be of the same model, data
    and semantics. No other run is looked at: a ledger's checksums tell damage, not who wrote it.
    """
    folder = Path(path)
    if folder.exists() and not folder.is_dir():
        raise RunError(f"{folder} is a file; a run is a folder, give --run another name")
    if not (folder / manifests.NAME).exists():
        if manifest is None:
            raise RunError(_no_run(folder))
        _create(folder, manifest)
    found = manifests.read(folder)
    if manifest is not None:
        manifests.check_same(folder, found, manifest)
    others = [Path(other) for other in reuse]
    return Run(folder, found, tuple(_reused(o, found) for o in others if not _same(o, folder)))


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


def _reused(folder: Path, mine: Manifest) -> Ledger:
    """The ledger of a run whose evaluations the user wants to be used in another."""
    if not (folder / manifests.NAME).is_file():
        raise RunError(f"--reuse {folder}: there is no run (it has no {manifests.NAME})")
    theirs = manifests.read(folder)
    if theirs.identity != mine.identity:
        differing = [
            what
            for what, a, b in zip(IDENTITY, theirs.identity, mine.identity, strict=True)
            if a != b
        ]
        raise RunError(
            f"--reuse {folder}: that run is of another {', another '.join(differing)}, so its "
            "evaluations say nothing here. Leave it out, or name one of the same inputs"
        )
    return Ledger(folder)


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
