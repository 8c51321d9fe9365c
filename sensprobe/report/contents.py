"""The contents of a report, section by section, before they are drawn: the page shows all of them,
and every figure with a file name becomes a picture too."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from sensprobe.report import charts, tables
from sensprobe.report.agreement import agreement_table
from sensprobe.report.benchmark_tables import about_benchmark, benchmark_table, versions_of
from sensprobe.report.benchmarks import Benchmark, latest
from sensprobe.report.course import Going
from sensprobe.report.dataframes import pd
from sensprobe.report.gather import Results
from sensprobe.report.prose import (
    about_agreement,
    about_confirmation,
    about_search,
    about_sensitivity,
    about_tuned,
)
from sensprobe.report.results import Confirmation, Search, Sensitivity
from sensprobe.report.tuned import Tuning, table

COMPARED = "Plans measured beside the search"


class Figure(NamedTuple):
    """A chart; `file` is the name of its picture, "" where it has none."""

    chart: charts.Chart
    file: str = ""


class Table(NamedTuple):
    """A table of text; one that is not `open` is folded away at first."""

    frame: pd.DataFrame
    caption: str
    open: bool = False


class Section(NamedTuple):
    """A heading, sentences, and what stands below them."""

    title: str
    sentences: list[str]
    blocks: list[Figure | Table]


def sections(found: Results, went: Going | None = None) -> list[Section]:
    """Sections of what was found, in the order of the page; `went` is how its search went."""
    out: list[Section] = []
    if found.confirmation is not None:
        out.append(_confirmation(found.confirmation))
    if found.tuned is not None and found.tuned.plans:
        out.append(_tuned(found.tuned))
    for profile in found.profiles:
        layers = profile.by == "site" and profile is found.sensitivity
        out.append(_sensitivity(profile, layers=layers))
    if found.agreement is not None and found.measured is not None:
        drawn = charts.agreement_scatter(found.agreement, found.measured.additive)
        taus = Table(agreement_table(found.agreement), "Kendall τ by scheme, ± one standard error")
        title, sentence = "Does the cheap estimate agree?", about_agreement(found.agreement)
        out.append(Section(title, [sentence], [Figure(drawn, "agreement.png"), taus]))
    if found.search is not None:
        out.append(_search(found.search, found.tuned, found.confirmation))
        if found.plans:
            out.append(Section("What the plans say", [], [*_plans(found, found.search)]))
    if went is not None:
        out.append(_course(went))
    out += [_benchmark(benchmark, k) for k, benchmark in enumerate(latest(found.benchmarks))]
    return out


def _confirmation(found: Confirmation) -> Section:
    blocks: list[Figure | Table] = [Table(tables.confirmation(found), "Confirmed plans", True)]
    if found.compared:
        blocks.append(Table(tables.compared(found), COMPARED, True))
    return Section("The result", about_confirmation(found), blocks)


def _tuned(found: Tuning) -> Section:
    shown = Table(table(found), "Tuned plans", True)
    return Section(
        "What tuning gained", about_tuned(found), [Figure(charts.tuned(found), "tuned.png"), shown]
    )


def _sensitivity(found: Sensitivity, *, layers: bool) -> Section:
    titles = {"taylor": "Where it hurts, estimated", "noise": "Where noise hurts"}
    title = titles.get(found.method, "Where it hurts")
    stem = f"sensitivity-{found.method}"
    shown = ("metric", "additive") if found.has_metric else ("additive",)
    blocks: list[Figure | Table] = []
    for k, scheme in enumerate(found.schemes if layers else ()):
        drawn = charts.layer_map(found, scheme, shown[0])
        blocks.append(Figure(drawn, f"{stem}-layers-{k}.png"))
    blocks += [Figure(charts.heat_map(found, of), f"{stem}-{of}.png") for of in shown]
    blocks.append(Figure(charts.ranking(found.searched, shown[0])))
    for of in shown:
        caption = f"{found.heading(of)}, ± one standard error"
        blocks.append(Table(tables.sensitivity(found, of), caption))
    return Section(title, about_sensitivity(found), blocks)


def _search(search: Search, tuned: Tuning | None, confirmed: Confirmation | None) -> Section:
    drawn = charts.frontier(search, tuned=tuned)
    blocks: list[Figure | Table] = [Figure(drawn, "frontier.png")]
    if search.chosen:
        blocks.append(Table(tables.chosen(search), "Chosen plans, on the search samples", True))
    blocks.append(Table(tables.frontier(search, confirmed), "Front, uniform and chosen plans"))
    if search.compared:
        blocks.append(Table(tables.compared(search), f"{COMPARED}, on its samples"))
    return Section("What the memory buys", about_search(search), blocks)


def _plans(found: Results, search: Search) -> Iterator[Figure | Table]:
    if found.sites:
        drawn = charts.bytes_by_part(found.plans, found.sites, search.batch)
        yield Figure(drawn, "bytes-by-part.png")
        for k, (name, entries) in enumerate(found.chosen.items()):
            grid = charts.plan_grid(entries, found.sites, f"Bits of {name}")
            yield Figure(grid, f"plan-{k}.png")
    side = tables.side_by_side(found.plans, found.names, found.sites, search.batch)
    yield Table(side, "Plans side by side", True)


def _course(went: Going) -> Section:
    return Section(
        "How the search went",
        [went.problem] if went.problem else [],
        [
            Figure(charts.convergence(went.course), "convergence.png"),
            Figure(charts.importances(went.importance), "importances.png"),
            Figure(charts.durations(went.seconds), "durations.png"),
        ],
    )


def _benchmark(found: Benchmark, k: int) -> Section:
    return Section(
        "How fast operations on packed memory run",
        about_benchmark(found),
        [
            Figure(charts.bandwidths(found), f"bench-{k}-bandwidths.png"),
            Figure(charts.ratios(found), f"bench-{k}-ratios.png"),
            Table(benchmark_table(found), f"Every case, with {versions_of(found)}"),
        ],
    )
