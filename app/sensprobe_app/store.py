"""Caches of what is read from disk, valid until the files change.

A run is kept open and takes in what was added; results are read again when their files change.
Nothing here writes.
"""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import streamlit as st

from sensprobe.errors import RunError
from sensprobe.plans.sites import Site
from sensprobe.report.benchmarks import Benchmark, benchmarks_of
from sensprobe.report.gather import Results, gather, sites_of
from sensprobe.report.live import search_so_far
from sensprobe.report.overview import RunLine, run_folders, run_line
from sensprobe.report.read import read_confirmation, read_search
from sensprobe.report.results import Confirmation, Search
from sensprobe.report.saved import with_saved
from sensprobe.report.tuned import Tuning
from sensprobe.report.values import ACCURACY
from sensprobe.runs import Run, open_run

if TYPE_CHECKING:
    from sensprobe.search.history import History

EXAMPLE = Path(__file__).parent / "example"
"""A folder with the run that ships; nothing is written there."""
SEARCHES = ("search", "demo")
"""Commands that leave a search's result when they end."""
NUMBERED = re.compile(r"search(-[1-9][0-9]{0,8})?")
Stamp = tuple[tuple[str, int, int], ...]
"""(file, when it was changed, its size) of everything an answer depends on."""
Mark = tuple[bool, Stamp]
"""True if a process works on a run; and the stamp of its results."""


class Found(NamedTuple):
    """A run as a view needs it. `search` is the finished one, else what is measured so far."""

    line: RunLine
    run: Run | None
    results: Results | None
    search: Search | None
    sites: tuple[Site, ...]
    problem: str
    partial: bool  # whether the search is still going on, or left none of its results

    @property
    def tuned(self) -> Tuning | None:
        return self.results.tuned if self.results is not None else None

    @property
    def confirmation(self) -> Confirmation | None:
        """What was confirmed of the plans of `search`."""
        return None if self.partial or self.results is None else self.results.confirmation

    @property
    def running(self) -> bool:
        return self.line.state == "running"


def stamp(*paths: Path) -> Stamp:
    """The stamp of files, and of the files in folders; hidden ones are passed over."""
    files = [f for p in paths for f in (sorted(p.glob("[!.]*")) if p.is_dir() else [p])]
    out = []
    for file in files:
        try:
            about = file.stat()
        except OSError:
            continue
        out.append((str(file), about.st_mtime_ns, about.st_size))
    return tuple(out)


def stamp_of(path: Path) -> Stamp:
    """The stamp of everything in a run that a view reads."""
    return stamp(
        *(
            path / name
            for name in ("run.json", "notes.json", "evaluations", "results", "benches", "plans")
        )
    )


def mark(path: Path, waiting: bool) -> Mark:
    """A mark that changes when more of a view must be drawn again than the part that follows the
    run by itself; a view that waits for its first plan must whenever the run changes."""
    return _running(path), stamp_of(path) if waiting else stamp(path / "results")


def lines(folder: Path) -> list[RunLine]:
    """Every run, the one that changed last first. Whether one is running is looked at each time."""
    found = [_line(path, folder, stamp_of(path), _running(path)) for path in run_folders(folder)]
    return sorted(found, key=lambda line: line.changed, reverse=True)


def found(line: RunLine) -> Found:
    """Read what a run holds now; a run that cannot be read says why in `problem`."""
    if not line.model:
        return Found(line, None, None, None, (), line.problem, False)
    try:
        run = opened(line.path)
        run.refresh()
        kept = stamp(line.path / "run.json", line.path / "results")
        results, problem = _results(run, str(line.path), kept)
        sites = results.sites if results is not None and results.sites else sites_of(run)
        search, partial = (results.search if results is not None else None), False
        if search is None or searching(run):
            so_far = _so_far(run, str(line.path), stamp_of(line.path))
            search, partial = (so_far, True) if so_far is not None else (search, False)
        if search is not None:
            search = _with_saved(search, run, sites, stamp_of(line.path), str(line.path), partial)
        return Found(line, run, results, search, sites, problem or line.problem, partial)
    except Exception as error:  # whatever a damaged run does, it is that run's alone
        return Found(line, None, None, None, (), told(error), False)


def searches(found: Found) -> dict[str, str]:
    """Title -> result of the searches that a run keeps, the latest first."""
    if found.run is None or found.partial:
        return {}
    names = [name for name in found.run.results() if NUMBERED.fullmatch(name)]
    names.sort(key=lambda name: int(name.partition("-")[2] or 10**9), reverse=True)
    path = found.line.path
    titles = [_title(found.run, str(path), name, stamp(path / "results")) for name in names]
    return {title: name for title, name in zip(titles, names, strict=True) if title}


def of_search(found: Found, name: str) -> Found:
    """A run with an earlier search, and its confirmation, in place of the latest."""
    if name == "search" or found.run is None or found.results is None:
        return found
    search, confirmation = (
        found.run.read_result(name.replace("search", kind)) for kind in ("search", "confirmation")
    )
    assert isinstance(search, dict)
    old = read_search(search, found.search.quantity if found.search is not None else ACCURACY)
    beside = None if confirmation is None else read_confirmation(confirmation)
    results = replace(found.results, search=old, confirmation=beside)
    return found._replace(results=results, search=old)


@st.cache_data(show_spinner=False, max_entries=64)
def _title(_opened: Run, path: str, name: str, mark: Stamp) -> str:
    """What a search is called where one of several is chosen; "" where it cannot be read."""
    try:
        document = _opened.read_result(name)
    except RunError:
        return ""
    assert isinstance(document, dict)
    budgets = ", ".join(str(choice["budget"]) for choice in document["chosen"])
    number = name.partition("-")[2]
    return f"{number}: {budgets}" if number else f"latest: {budgets}"


def benchmarks(lines: list[RunLine]) -> dict[str, Benchmark]:
    """Every benchmark of some runs, the latest first, by what tells it from the others."""
    every = [
        (line.name, benchmark)
        for line in lines
        for benchmark in _benchmarks(line.path, benchmark_stamp([line]))
    ]
    every.sort(key=lambda pair: pair[1].name, reverse=True)
    several = len({name for name, _ in every}) > 1
    out: dict[str, Benchmark] = {}
    for name, benchmark in every:
        title = f"{benchmark.title} ({name})" if several else benchmark.title
        out[title if title not in out else f"{title}, {benchmark.name}"] = benchmark
    return out


def benchmark_stamp(lines: list[RunLine]) -> Stamp:
    """A stamp that changes when a benchmark of these runs does."""
    return stamp(*(line.path / "benches" for line in lines))


def told(error: Exception) -> str:
    """An error of ours as it is; another with its kind."""
    return str(error) if isinstance(error, RunError) else f"{type(error).__name__}: {error}"


def opened(path: Path) -> Run:
    """The run in a folder, kept open as long as it is the same run."""
    about = (path / "run.json").stat()
    ledger = path / "evaluations"
    folder = ledger.stat().st_ino if ledger.is_dir() else 0
    return _run(str(path), (about.st_ino, about.st_mtime_ns, about.st_size, folder))


def searching(run: Run) -> bool:
    """Return whether a search works on the run: a result on disk is then an earlier one's."""
    return any(writer.command in SEARCHES for writer in run.writers())


@st.cache_resource(show_spinner=False, max_entries=16)
def history(path: str, mark: Stamp) -> tuple[list[History], str]:
    """Studies of a run's Optuna storage, or why they cannot be read."""
    from sensprobe.search.history import histories  # imports Optuna, a third of a second

    try:
        return histories(Path(path)), ""
    except RunError as error:
        return [], str(error)


@st.cache_resource(show_spinner=False, max_entries=64)
def _run(path: str, mark: tuple[int, ...]) -> Run:
    return open_run(path)


def _running(path: Path) -> bool:
    try:
        return bool(opened(path).writers())
    except (RunError, OSError, ValueError):
        return False


@st.cache_resource(show_spinner=False, max_entries=512)
def _line(path: Path, folder: Path, mark: Stamp, running: bool) -> RunLine:
    try:
        run = opened(path)
        run.refresh()
        return run_line(path, folder, run)
    except RunError:
        return run_line(path, folder)  # which says what is wrong
    except Exception as error:  # one damaged run hides no other
        name = "/".join(path.relative_to(folder).parts) or "."
        return RunLine(name, path, problem=told(error))


@st.cache_resource(show_spinner=False, max_entries=32)
def _results(_opened: Run, path: str, mark: Stamp) -> tuple[Results | None, str]:
    try:
        return gather(_opened), ""
    except Exception as error:
        return None, told(error)


@st.cache_resource(show_spinner=False, max_entries=64)
def _benchmarks(path: Path, mark: Stamp) -> list[Benchmark]:
    try:
        return benchmarks_of(opened(path))
    except (RunError, OSError, ValueError):
        return []  # the run itself is damaged, which is said where runs are listed


@st.cache_resource(show_spinner=False, max_entries=8)
def _with_saved(
    _search: Search, _opened: Run, _sites: tuple[Site, ...], mark: Stamp, path: str, partial: bool
) -> Search:
    # a search that is killed leaves files as they are, and another search to show
    return with_saved(_search, _opened, _sites)


@st.cache_resource(show_spinner=False, max_entries=8)
def _so_far(_opened: Run, path: str, mark: Stamp) -> Search | None:
    return search_so_far(_opened, sites_of(_opened))
