"""Every plan of a search by score and bytes, at any batch and within any budget."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace
from functools import partial
from math import inf, log2, nan

import streamlit as st

from sensprobe.plans.plan import diff
from sensprobe.report import charts, rows, tables, tuned
from sensprobe.report.fronts import FrontView, at_batch, best_within
from sensprobe.report.plans import resolved
from sensprobe.report.results import Candidate, Confirmation, Search
from sensprobe.report.tables import symbol
from sensprobe.report.values import digits, in_bytes
from sensprobe.report.writing import csv_bytes
from sensprobe_app.controls import (
    add,
    batch_of,
    chart,
    followed,
    picked,
    plain,
    search_command,
)
from sensprobe_app.store import Found

STEPS = 48


def show(found: Found) -> None:
    """The front and the plans picked on it."""
    st.title("Pareto")
    if found.search is None:
        search_command(found.line)
        _tuning(found.tuned)
        return
    view, batch = _controls(found.search)
    if found.partial:
        st.caption(
            "The search goes on, or was stopped: plans are as measured so far, their errors "
            "without the data's groups, bytes counted for the batch above."
        )
    followed(found, lambda now: _draw(now, view, batch), while_it=found.partial)


def _controls(search: Search) -> tuple[FrontView, int]:
    """Draw the controls, and return the view of the front and the batch that they are set to."""
    first, second, third = st.columns([2, 3, 2])
    with first:
        batch = batch_of(search.batch)
    seen = at_batch(search, batch)
    with second:
        sizes = [c.total_bytes for c in seen.candidates] + [seen.full_bytes]
        steps = _steps(min(sizes), max(sizes))
        place = st.slider(
            "Budget: from the smallest plan to none",
            0,
            STEPS,
            STEPS,
            format=" ",
            key="budget",
            bind="query-params",
        )
        st.caption(f"{in_bytes(steps[place])} at batch {batch}" if place < STEPS else "no budget")
    with third:
        feasible = st.toggle("Only what fits and is stable", key="feasible", bind="query-params")
        linear = st.toggle("Linear bytes", key="linear", bind="query-params")
        loss = st.toggle(
            "What is lost, log scale",
            key="loss",
            bind="query-params",
            help="Instead of the score: what is lost to full precision.",
        )
    budget = steps[place] if place < STEPS else nan
    return FrontView(budget, feasible, not linear, loss), batch


def _steps(low: float, high: float) -> list[float]:
    """Budgets spread evenly over log bytes."""
    low, high = max(low, 1), max(high, low + 1)
    return [2 ** (log2(low) + k / STEPS * (log2(high) - log2(low))) for k in range(STEPS + 1)]


def _draw(found: Found, view: FrontView, batch: int) -> None:
    assert found.search is not None
    search = at_batch(found.search, batch)
    now = tuple(st.session_state.get("plans", ()))
    titles = titled(search, {*now, *st.query_params.get_all("plans")})
    view = replace(view, selected=tuple(titles[title] for title in now if title in titles))
    chart(
        charts.frontier(search, view, found.tuned),
        "front",
        "Score of every plan against its bytes",
        partial(_take, {name: title for title, name in titles.items()}),
    )
    best = best_within(search, view.budget if view.budget == view.budget else inf)
    if best is not None:
        _best(best, search, view, found.confirmation)
    _tuning(found.tuned)
    shown = st.multiselect(
        "Plans side by side",
        list(titles),
        key="plans",
        bind="query-params",
        placeholder="pick marks in the chart, or names here",
    )
    _table(search, found.confirmation)
    chosen = [c for c in (search.candidate(titles.get(title)) for title in shown) if c is not None]
    if chosen:
        _side_by_side(chosen, search, found)


def _best(best: Candidate, search: Search, view: FrontView, confirmed: Confirmation | None) -> None:
    q = search.quantity
    again = None if confirmed is None else confirmed.of(best.name)
    if confirmed is not None and again is not None:
        own = confirmed.quantity
        first = f"confirmed {own.level(again.metric)} {own.unit or own.name}, searched "
    else:
        first = ""
    within = f" within {in_bytes(view.budget)}" if view.budget == view.budget else ""
    st.markdown(
        f"**Best measured{within}**: {plain(best.title)}, "
        f"{plain(first)}{plain(q.level(best.metric))} {plain(q.unit or q.name)} "
        f"({plain(q.change(best.change))} {plain(q.change_unit)} "
        "to full precision), "
        f"{in_bytes(best.total_bytes)} at batch {search.batch}"
    )


def _tuning(found: tuned.Tuning | None) -> None:
    """What training under plans gained: a chart and a table, on the confirmation split."""
    if found is None or not found.plans:
        return
    st.subheader("Tuned")
    chart(
        charts.tuned(found),
        "tuned",
        "Score on the confirmation split of every tuned plan before and after",
    )
    st.dataframe(tuned.table(found), hide_index=True)
    for plan in found.plans:
        for line in plan.warnings:
            st.warning(f"{plain(plan.name)}: {plain(line)}")


def titled(search: Search, wanted: Collection[str] = ()) -> dict[str, str]:
    """Title -> name of the plans on offer: telling ones, those that are drawn, those wanted."""
    first = tables.notable(search)
    rest = tables.thinned([c for c in search.candidates if symbol(c, search) == tables.DOMINATED])
    out = {c.title: c.name for c in [*first, *rest]}
    if any(title not in out for title in wanted):
        out |= {t: c.name for c in search.candidates if (t := c.title) in wanted}
    return out


def _take(titles: dict[str, str]) -> None:
    """Marks picked in the chart (by name) join the plans side by side (by title)."""
    add("plans", [titles[name] for name in picked("front") if name in titles])


def _table(search: Search, confirmed: Confirmation | None) -> None:
    table = st.expander("Front, uniform and chosen plans", key="table", on_change="rerun")
    if table.open:  # a browser loads what draws tables while it could be drawing the chart
        with table:
            st.dataframe(tables.frontier(search, confirmed), hide_index=True)
            if search.compared:
                st.dataframe(tables.compared(search), hide_index=True)
    st.download_button(
        "All plans as CSV",
        lambda: csv_bytes(rows.frontier_rows(search)),
        "plans.csv",
        "text/csv",
    )


def _again(plan: Candidate, confirmed: Confirmation | None) -> dict[str, str]:
    """What a plan was confirmed at, under its heading."""
    if confirmed is None:
        return {}
    known = confirmed.of(plan.name)
    level = "–" if known is None else confirmed.quantity.level(known.metric)
    return {f"confirmed {confirmed.quantity.heading}": level}


def _side_by_side(chosen: list[Candidate], search: Search, found: Found) -> None:
    st.subheader("Side by side")
    q = search.quantity
    plans = {c.title: c.entries for c in chosen}
    again = {c.title: _again(c, found.confirmation) for c in chosen}
    facts = {
        c.title: {
            **again[c.title],
            q.heading: q.level(c.metric),
            q.change_heading: q.change(c.change),
            "predicted (adds up, no error)": digits(c.predicted, 3),
            "weights": in_bytes(c.weight_bytes),
            "state": in_bytes(c.state_bytes),
            "in all": in_bytes(c.total_bytes),
            "bits a value": digits(c.effective_bits, 3),
            search.radius_name: digits(c.radius, 5),
            "samples": f"{c.n:,}",
        }
        for c in chosen
    }
    st.dataframe(facts)
    if found.sites:
        chart(
            charts.bytes_by_part(plans, found.sites, search.batch),
            "bars",
            "Bytes of each part under each plan",
        )
        for (name, one), (other_name, other) in zip(
            list(plans.items()), list(plans.items())[1:], strict=False
        ):
            pairs = diff(resolved(one, found.sites), resolved(other, found.sites))
            with st.expander(f"{len(pairs)} sites differ: {plain(name)}, {plain(other_name)}"):
                st.dataframe([{"site": s, name: a, other_name: b} for s, (a, b) in pairs.items()])
    names = tuple(site.name for site in found.sites)
    st.dataframe(tables.side_by_side(plans, names, found.sites, search.batch))
