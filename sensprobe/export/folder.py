"""A folder of files that appears whole or not at all.

The files are written to a sibling under a temporary name, synced, checked, and the folder is moved
into place in one step. An artefact that stood there is moved aside first and put back if that
fails. Nothing else is ever replaced.
"""

from __future__ import annotations

import os
import secrets
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path

from sensprobe.documents.files import disk_errors, write_new
from sensprobe.errors import UsageError


def require_place(
    out: Path, names: frozenset[str], overwrite: bool, optional: frozenset[str] = frozenset()
) -> None:
    """UsageError unless `out` is free: absent, empty, or one of our folders that may be replaced.

    `names` are the files our folders hold, `optional` those they may; one that holds others too is
    the user's.
    """
    if not out.exists():
        return
    if not out.is_dir():
        raise UsageError(f"{out} is a file; name a folder to export to.")
    held = {path.name for path in out.iterdir()}
    if not held:
        return
    if not held >= names:
        raise UsageError(
            f"{out} holds other things ({_listed(held)}) and is left as it is. Name a new folder."
        )
    if not overwrite:
        raise UsageError(
            f"{out} holds an exported model already. Name another folder, or ask to overwrite it."
        )
    if foreign := held - names - optional:
        raise UsageError(
            f"{out} holds files that export did not write ({_listed(foreign)}), which overwriting "
            "would delete. Move them away, or name another folder."
        )


def _listed(names: set[str]) -> str:
    shown = sorted(names)[:4]
    return ", ".join(shown) + (f" and {len(names) - 4} more" if len(names) > 4 else "")


def write_folder(out: Path, files: Mapping[str, bytes], check: Callable[[Path], None]) -> None:
    """Put the files in place as folder `out`; `check` is shown the draft and may raise.

    RunError, and everything as it was, where the disk refuses.
    """
    tag = f"{os.getpid()}.{secrets.token_hex(4)}"
    draft, aside = (out.parent / f".{out.name}.{tag}.{end}" for end in ("tmp", "old"))
    with disk_errors(out, "exporting to"):
        out.parent.mkdir(parents=True, exist_ok=True)
        try:
            draft.mkdir()
            for name, content in files.items():
                write_new(draft / name, content)
            check(draft)
            _move(draft, out, aside)
        finally:
            shutil.rmtree(draft, ignore_errors=True)
        shutil.rmtree(aside, ignore_errors=True)


def _move(draft: Path, out: Path, aside: Path) -> None:
    occupied = out.exists() and any(out.iterdir())
    if occupied:
        os.rename(out, aside)
    try:
        os.rename(draft, out)
    except OSError:
        if occupied:
            os.rename(aside, out)
        raise
