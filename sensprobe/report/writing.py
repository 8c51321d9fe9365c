"""Writes a run's report: a page, pictures and tables, each file whole or absent."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from sensprobe.documents import printable
from sensprobe.documents.files import disk_errors, inside, require_no_link, write_whole
from sensprobe.plans.sites import Site
from sensprobe.report import rows, tables
from sensprobe.report.benchmark_tables import benchmark_rows
from sensprobe.report.contents import Figure, sections
from sensprobe.report.course import going
from sensprobe.report.dataframes import pd
from sensprobe.report.gather import Results, gather
from sensprobe.report.page import render
from sensprobe.runs import Run

FOLDER = "report"
PAGE = "report.html"


@dataclass(frozen=True, slots=True)
class ReportFiles:
    """The files that were written, and what is missing, with the command that makes it."""

    folder: Path
    html: Path
    images: tuple[Path, ...]
    tables: tuple[Path, ...]
    missing: tuple[str, ...]


def write_report(run: Run, out: Path | None = None, sites: Sequence[Site] = ()) -> ReportFiles:
    """Writes report.html, PNG and CSV files into `out` (the run's own folder `report` if None).

    Works with whatever results there are. `sites` are the model's; without them bytes by part are
    left out unless the run kept them. RunError where the run has no results or the disk refuses.
    """
    from sensprobe.report.drawing import paper  # Matplotlib: the dashboard does without

    found = gather(run, sites)
    folder = require_no_link(run.path / FOLDER) if out is None else Path(out)
    with disk_errors(folder, "creating"):
        folder.mkdir(parents=True, exist_ok=True)
    went = going(run, found.search) if found.search is not None else None
    contents = sections(found, went)
    drawn = tuple(
        _write(folder, block.file, paper.draw(block.chart))
        for section in contents
        for block in section.blocks
        if isinstance(block, Figure) and block.file
    )
    listed = tuple(_write(folder, name, csv_bytes(table)) for name, table in _tables(found))
    html = _write(folder, PAGE, render(found, contents).encode())
    return ReportFiles(folder, html, drawn, listed, found.missing)


def _write(folder: Path, name: str, content: bytes) -> Path:
    path = inside(folder, name)
    write_whole(path, content)
    return path


def _tables(found: Results) -> Iterator[tuple[str, pd.DataFrame]]:
    for profile in found.profiles:
        yield f"sensitivity-{profile.method}.csv", rows.sensitivity_rows(profile)
    if found.agreement is not None:
        yield "agreement.csv", rows.agreement_rows(found.agreement)
    if found.search is not None:
        yield "frontier.csv", rows.frontier_rows(found.search)
        if found.plans:
            batch = found.search.batch
            side = tables.side_by_side(found.plans, found.names, found.sites, batch)
            yield "plans.csv", side.reset_index()
    if found.confirmation is not None:
        yield "confirmation.csv", rows.confirmation_rows(found.confirmation)
    if found.tuned is not None and found.tuned.plans:
        yield "tuned.csv", rows.tuned_rows(found.tuned)
    measured = [m for m in (found.confirmation, found.search) if m is not None and m.compared]
    if measured:
        yield "beside.csv", rows.compared_rows(measured[0])
    if found.benchmarks:
        yield "benches.csv", benchmark_rows(found.benchmarks)


def csv_bytes(table: pd.DataFrame) -> bytes:
    """UTF-8 with a mark that spreadsheets need; no text can act as a formula there."""
    safe = table.map(_inert)
    return safe.to_csv(index=False, float_format="%.6g").encode("utf-8-sig")


def _inert(value: object) -> object:
    """Text that a spreadsheet would compute gets a quote in front, and no text has control
    characters; -0 is 0."""
    if isinstance(value, float):
        return value + 0.0
    if not isinstance(value, str):
        return value
    return f"'{printable(value)}" if value[:1] in tuple("=+-@\t\r") else printable(value)
