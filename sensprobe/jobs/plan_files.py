"""Chosen plans as files: `RUN/plans/BUDGET.json`, which every `--plan` takes."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sensprobe.documents import DocumentError, read_json
from sensprobe.documents.files import (
    disk_errors,
    named_path,
    require_no_link,
    strict_json,
    write_whole,
)
from sensprobe.plans.plan import fingerprint, read
from sensprobe.plans.sites import Site
from sensprobe.runs import Run

FOLDER = "plans"
LONGEST = 80


def file_name(budget: str) -> str:
    """The name of the file of a budget's plan: `2KiB.json`, `loss-0.5.json`, `25percent.json`."""
    return f"{safe_name(budget)}.json"


def safe_name(label: str) -> str:
    """A label as a file may be called: it has only letters, digits, dots and dashes."""
    words = label.replace("%", "percent").replace("<=", "-")
    safe = re.sub(r"[^A-Za-z0-9.]+", "-", words)[:LONGEST].strip(".-")
    return safe or "plan"


def write_plans(run: Run, document: Mapping[str, Any]) -> dict[str, str]:
    """Write the chosen plan of each budget of a search; returns budget -> file, within the run.

    A file of an earlier search for the same budget is replaced, or removed where no plan was found;
    a plan that somebody saved under that name stays.
    """
    folder = run.path / FOLDER
    require_no_link(folder)
    plans = {c["name"]: c for c in [*document["candidates"], *document.get("also", ())]}
    written: dict[str, str] = {}
    with disk_errors(folder, "creating"):
        folder.mkdir(exist_ok=True)
    for choice in document["chosen"]:
        budget, number = choice["budget"], 1
        name = first = file_name(budget)
        taken = {Path(other).name.lower() for other in written.values()}
        while name.lower() in taken or is_saved(folder / name):
            number += 1
            name = f"{first.removesuffix('.json')}-{number}.json"
        if choice["candidate"] is None:
            with disk_errors(folder / name, "removing"):
                (folder / name).unlink(missing_ok=True)
            continue
        found = plans[choice["candidate"]]
        note = f"chosen for {budget} by sensprobe search: {found['total_bytes']:,} bytes"
        write_whole(folder / name, strict_json(found["plan"] | {"note": note}))
        written[budget] = f"{FOLDER}/{name}"
    return written


def is_saved(path: Path) -> bool:
    """True of the file of a plan that somebody saved; that of a search has a note."""
    try:
        document = read_json(path)
    except DocumentError:
        return False
    return isinstance(document, dict) and "note" not in document


def candidate_of(name: str, document: Mapping[str, Any], sites: Mapping[str, Site]) -> str | None:
    """The name that a search's document has for the plan in a file; None where it is no file, or
    not a plan of that search."""
    path = named_path(name)
    if path.suffix != ".json" or not path.is_file():
        return None
    mark = fingerprint(read(path).resolve(sites.values()))
    known = [*document["candidates"], *document.get("also", ())]
    return next((c["name"] for c in known if c["plan_fingerprint"] == mark), None)
