"""One HTML page that needs nothing beside itself: figures, tables, and how each was measured.

plotly.js is inlined once; a policy in the page forbids loading anything. Text from plans and models
is escaped. Figures follow the reader's light or dark setting.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from html import escape
from typing import Any

import pandas as pd
import plotly.graph_objects as go
from plotly.offline import get_plotlyjs

from sensprobe.report import figures, tables
from sensprobe.report.agreement import agreement_table
from sensprobe.report.bench_tables import about_bench, bench_table, versions_of
from sensprobe.report.benches import BenchRun, latest
from sensprobe.report.course import Going
from sensprobe.report.figures.style import scale, template
from sensprobe.report.frame import FRAME
from sensprobe.report.gather import Results
from sensprobe.report.prose import (
    about_agreement,
    about_confirmation,
    about_search,
    about_sensitivity,
    method_notes,
)
from sensprobe.report.results import Sensitivity
from sensprobe.report.theme import THEMES
from sensprobe.report.values import NOISE, UNSTABLE

POLICY = (
    "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; img-src data: blob:"
)

BESIDE = "Plans measured beside the search"


class Page:
    """Collects blocks of HTML and the figures they show."""

    def __init__(self) -> None:
        self.blocks: list[str] = []
        self.figures: list[dict[str, Any]] = []

    def section(self, title: str, *sentences: str) -> None:
        self.blocks.append(f"<h2>{escape(title)}</h2>")
        self.blocks += [f"<p>{escape(sentence)}</p>" for sentence in sentences]

    def figure(self, figure: go.Figure) -> None:
        """A figure; what depends on the theme is put in when it is drawn."""
        drawn = json.loads(figure.to_json())
        drawn["layout"].pop("template", None)
        name = f"figure-{len(self.figures)}"
        self.figures.append({"id": name, **drawn})
        height = int(drawn["layout"].get("height", 450))
        self.blocks.append(f'<div class="figure" id="{name}" style="height:{height}px"></div>')

    def table(self, frame: pd.DataFrame, caption: str, *, open: bool = False) -> None:
        """A table that can be folded away."""
        state = " open" if open else ""
        summary = f"<summary>{escape(caption)}</summary>"
        self.blocks.append(f"<details{state}>{summary}{html_table(frame)}</details>")

    def listing(self, title: str, items: Sequence[str]) -> None:
        if items:
            self.blocks.append(f"<h2>{escape(title)}</h2>")
            self.blocks.append(f"<ul>{''.join(f'<li>{escape(item)}</li>' for item in items)}</ul>")


def html_table(frame: pd.DataFrame) -> str:
    """A table of text; noise is faint, an unstable recurrence marked."""
    if frame.index.name is not None:
        frame = frame.reset_index()
    left = [any(_is_words(str(v)) for v in frame.iloc[:, k]) for k in range(frame.shape[1])]
    head = "".join(_cell("th", n, words) for n, words in zip(frame.columns, left, strict=True))
    body = "".join(
        f"<tr>{''.join(_cell('td', v, words) for v, words in zip(row, left, strict=True))}</tr>"
        for row in frame.itertuples(index=False, name=None)
    )
    table = f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"
    return f'<div class="wide">{table}</div>'


def _is_words(text: str) -> bool:
    """Whether a cell is a name rather than a number."""
    return "±" not in text and re.search(r"[^\W\d_]{2}", text) is not None


def _cell(tag: str, value: object, words: bool) -> str:
    text = str(value)
    kinds = ["text"] * words
    kinds += ["noise"] * text.startswith(NOISE) + ["unstable"] * text.startswith(UNSTABLE)
    return f'<{tag} class="{" ".join(kinds)}">{escape(text)}</{tag}>'


def render(found: Results, went: Going | None = None) -> str:
    """The whole page; with how its search went, where that is known."""
    page = Page()
    _confirmation(page, found)
    for profile in found.profiles:
        _sensitivity(page, profile, layers=profile.by == "site" and profile is found.sensitivity)
    _agreement(page, found)
    _search(page, found)
    if went is not None:
        _went(page, went)
    for bench in latest(found.benches):
        _bench(page, bench)
    page.listing("How it was measured", method_notes(found))
    page.listing("What is missing", found.missing)
    about = f"{found.model} on {found.data}"
    started = found.created[:19].replace("T", " ")
    facts = f"run {found.run}, started {started} UTC, sensprobe {found.tool}"
    parts = {
        "policy": POLICY,
        "title": escape(about),
        "facts": escape(facts),
        "body": "\n".join(page.blocks),
        "figures": script_json(page.figures),
        "themes": script_json(_themes()),
        "plotly": get_plotlyjs().replace("</script", "<\\/script") if page.figures else "",
    }
    return re.sub(r"\{\{(\w+)\}\}", lambda gap: parts[gap[1]], FRAME)  # one pass: text stays text


def _themes() -> dict[str, Any]:
    return {
        name: {
            "template": template(theme).to_plotly_json(),
            "diverging": scale(theme.diverging),
            "sequential": scale(theme.sequential),
        }
        for name, theme in THEMES.items()
    }


def script_json(value: Any) -> str:
    """JSON that cannot end the script it stands in."""
    text = json.dumps(value, ensure_ascii=True, allow_nan=False, separators=(",", ":"))
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def _sensitivity(page: Page, found: Sensitivity, *, layers: bool) -> None:
    title = "Where it hurts, estimated" if found.method == "taylor" else "Where it hurts"
    page.section(title, *about_sensitivity(found))
    shown = ("metric", "additive") if found.has_metric else ("additive",)
    for of in shown:
        page.figure(figures.heat_map(found, of))
    if layers:
        for scheme in found.schemes:
            page.figure(figures.layer_map(found, scheme, shown[0]))
    page.figure(figures.ranking(found, shown[0]))
    for of in shown:
        heading = found.metric.change_heading if of == "metric" else found.additive.heading
        page.table(tables.sensitivity(found, of), f"{heading}, ± one standard error")


def _agreement(page: Page, found: Results) -> None:
    if found.agreement is None or found.measured is None:
        return
    page.section("Does the cheap estimate agree?", about_agreement(found.agreement))
    page.figure(figures.agreement_scatter(found.agreement, found.measured.additive))
    page.table(agreement_table(found.agreement), "Kendall τ by scheme, ± one standard error")


def _search(page: Page, found: Results) -> None:
    if found.search is None:
        return
    page.section("What the memory buys", *about_search(found.search))
    page.figure(figures.frontier(found.search))
    if found.search.chosen:
        page.table(tables.chosen(found.search), "Chosen plans, on the search samples", open=True)
    page.table(tables.frontier(found.search), "Front, uniform and chosen plans")
    if found.search.also:
        page.table(tables.beside(found.search), f"{BESIDE}, on its samples")
    if found.plans:
        page.section("What the plans say")
        if found.sites:
            page.figure(figures.bytes_by_part(found.plans, found.sites, found.search.batch))
            for name, entries in found.chosen.items():
                page.figure(figures.plan_grid(entries, found.sites, f"Bits of {name}"))
        side = tables.side_by_side(found.plans, found.names, found.sites, found.search.batch)
        page.table(side, "Plans side by side", open=True)


def _went(page: Page, went: Going) -> None:
    page.section("How the search went", *([went.problem] if went.problem else []))
    page.figure(figures.convergence(went.course))
    page.figure(figures.importances(went.importance))
    page.figure(figures.durations(went.seconds))


def _bench(page: Page, found: BenchRun) -> None:
    page.section("How fast operations on packed memory run", *about_bench(found))
    page.figure(figures.bandwidths(found))
    page.figure(figures.ratios(found))
    page.table(bench_table(found), f"Every case, with {versions_of(found)}")


def _confirmation(page: Page, found: Results) -> None:
    if found.confirmation is not None:
        page.section("The result", *about_confirmation(found.confirmation))
        page.table(tables.confirmation(found.confirmation), "Confirmed plans", open=True)
        if found.confirmation.also:
            page.table(tables.beside(found.confirmation), BESIDE, open=True)
