"""Every run under a folder, a line each: what it is of, how it stands, the best it has found.

Nothing is written, and one run that cannot be read hides no other.
"""

from __future__ import annotations

import re
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from os import SEEK_END, sep
from os.path import isfile
from pathlib import Path
from typing import Any, BinaryIO

from sensprobe.errors import RunError
from sensprobe.report.read import read_confirmation, read_search, read_tuned
from sensprobe.report.results import Candidate, Compared, Confirmation, Confirmed, Search
from sensprobe.report.tuned import Tuning
from sensprobe.report.values import Quantity, in_bytes
from sensprobe.runs import Run, open_run
from sensprobe.runs.manifest import NAME
from sensprobe.runs.notes import Notes, read_notes

DEPTH = 3
"""Folders below the given one that are looked into."""
UNREADABLE = "unreadable"
NO_NOTES = Notes()
SEED, BEGINNING = re.compile(rb'\n "seed": (\d{1,20}),?\n'), 4096


@dataclass(frozen=True, slots=True)
class RunLine:
    """One run. `problem` says what of it cannot be read; `best` has a line a budget."""

    name: str  # path below the folder, "." for the folder itself
    path: Path
    model: str = ""
    data: str = ""
    state: str = UNREADABLE  # or new, running, finished, stopped, damaged (a result)
    evaluations: int = 0
    best: tuple[str, ...] = ()
    created: str = ""  # UTC, ISO 8601
    changed: str = ""
    problem: str = ""
    notes: Notes = NO_NOTES
    seeds: str = ""  # of the data's split and of its searches


def run_folders(folder: Path) -> list[Path]:
    """Folders with a run.json: this one and those below it, sorted. Links are not followed out."""
    if not folder.is_dir():
        return []
    root = folder.resolve()
    found, level = [], [folder]
    for _ in range(DEPTH + 1):
        runs = [one for one in level if isfile(one / NAME)]
        found += runs
        level = [below for one in level if one not in runs for below in _below(one, root)]
    return sorted(found)


def _below(folder: Path, root: Path) -> list[Path]:
    try:
        inside = [entry for entry in folder.iterdir() if entry.is_dir()]
    except OSError:
        return []
    return [e for e in inside if _shown(e.name) and e.resolve().is_relative_to(root)]


def _shown(name: str) -> bool:
    """Return whether a name is not hidden and a page can show it."""
    return not name.startswith(".") and name.isprintable()


def overview(folder: Path) -> list[RunLine]:
    """Every run, the one that changed last first."""
    lines = [run_line(path, folder) for path in run_folders(folder)]
    return sorted(lines, key=lambda line: line.changed, reverse=True)


def run_line(path: Path, folder: Path, run: Run | None = None) -> RunLine:
    """Summarise one run; `run` is given where it is open already."""
    name = "/".join(path.relative_to(folder).parts) or "."
    line = RunLine(name, path, changed=last_change(path))
    try:
        run = run or open_run(path)
    except RunError as error:
        return replace(line, problem=str(error))
    except (OSError, ValueError) as error:
        return replace(line, problem=f"{path}{sep}{NAME} cannot be read: {error}")
    manifest, problems = run.manifest, [*run.notices]
    line = replace(
        line,
        model=manifest.model,
        data=manifest.data,
        state=run.state,
        evaluations=run.count,
        created=manifest.created,
    )
    found, bad = _best(run)
    spoilt = bool(bad)
    try:
        line = replace(line, notes=read_notes(path))
    except RunError as error:
        bad.append(str(error))
    line = replace(line, seeds=_seeds(run))
    state = "damaged" if spoilt and line.state == "finished" else line.state
    return replace(line, state=state, best=found, problem=" ".join(problems + bad))


def _best(run: Run) -> tuple[tuple[str, ...], list[str]]:
    """A line a budget, of confirmed plans, else of those chosen on the search samples, and a line a
    tuned model; and what results cannot be read."""
    documents: dict[str, Any] = {}
    bad: list[str] = []
    names = run.results()
    if "confirmation" in names:  # the search's document is large, and what is best not in it
        cut = [name for name in names if name.startswith("search") and not _ends(run, name)]
        bad += [
            f"{run.path / 'results' / name}.json ends in the middle; delete it and search again."
            for name in cut
        ]
        names = [name for name in names if not name.startswith("search")]
    for name in names:
        try:
            documents[name] = run.read_result(name)
        except RunError as error:
            bad.append(str(error))
    found: tuple[str, ...] = ()
    try:
        if "confirmation" in documents:
            found = confirmed(read_confirmation(documents["confirmation"]))
        elif "search" in documents:
            found = chosen(read_search(documents["search"]))
        if "tuned" in documents:
            found += tuned(read_tuned(documents["tuned"]))
    except RunError as error:
        bad.append(str(error))
    return found, bad


def _seeds(run: Run) -> str:
    """ "data 0, search 0, 1"; the document of a search is large, and begins with its seed."""
    seed = run.manifest.settings.get("data_seed")
    found = [] if seed is None else [f"data {seed}"]
    own = []
    for name in run.results():
        if name.startswith("search"):
            with suppress(OSError), _opened(run, name) as file:
                told = SEED.search(file.read(BEGINNING))
                own += [told.group(1).decode()] if told else []
    return ", ".join([*found, *([f"search {', '.join(dict.fromkeys(own))}"] if own else [])])


def about_lines(lines: list[RunLine]) -> str:
    """How many runs there are in which state, and the best plans of the one that changed last."""
    if not lines:
        return "There is no run here yet."
    counts = Counter(line.state for line in lines)
    states = ", ".join(f"{count} {state}" for state, count in counts.items())
    told = f"{len(lines)} run{'s' * (len(lines) > 1)}: {states}."
    best = next((line for line in lines if line.best), None)
    if best is None:
        return f"{told} None has a plan yet: a search makes one."
    return f"{told} {best.name} found last: {'; '.join(best.best[:2])}."


def _opened(run: Run, name: str) -> BinaryIO:
    """The file of a result; OSError for a link and for what is no file, such as a pipe."""
    path = run.path / "results" / f"{name}.json"
    if path.is_symlink() or not path.is_file():
        raise OSError(f"{path} is no file")
    return path.open("rb")


def _ends(run: Run, name: str) -> bool:
    """Return whether the file of a result ends as a document does."""
    try:
        with _opened(run, name) as file:
            file.seek(-min(64, file.seek(0, SEEK_END)), SEEK_END)
            return file.read().rstrip().endswith((b"}", b"]"))
    except OSError:
        return False


def confirmed(found: Confirmation) -> tuple[str, ...]:
    """A line a budget."""
    return tuple(_line(plan.budget, plan, found.quantity, "confirmed") for plan in found.plans)


def chosen(search: Search) -> tuple[str, ...]:
    """A line a budget that a plan was found for."""
    q, lines = search.quantity, []
    for choice in search.chosen:
        plan = search.candidate(choice.candidate)
        if plan is not None:
            lines.append(_line(choice.budget, plan, q, "not confirmed"))
    return tuple(lines)


def tuned(found: Tuning) -> tuple[str, ...]:
    """A line a tuned model, on the confirmation split."""
    q = found.quantity
    return tuple(_line(f"{p.name} tuned", p.seen_on("confirmation"), q, "confirmed")
                 for p in found.plans)  # fmt: skip


def _line(budget: str, plan: Candidate | Compared | Confirmed, q: Quantity, state: str) -> str:
    score = f"{q.level(plan.metric)} {q.unit or q.name}"
    return f"{budget}: {score}, {in_bytes(plan.total_bytes)}, {state}"


def last_change(path: Path) -> str:
    """The time a file of the run was last written: UTC, ISO 8601, to the second; "" if none is."""
    files = [path / NAME, path / "optuna.db"]
    for inside in ("evaluations", "results", "benches"):
        files += (path / inside).glob("[!.]*")
    times = []
    for file in files:
        try:
            times.append(file.stat().st_mtime)
        except OSError:
            continue
    return datetime.fromtimestamp(max(times), UTC).isoformat(timespec="seconds") if times else ""
