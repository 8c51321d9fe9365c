"""Every plan of a search by score and bytes, at any batch and within any budget."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import replace
from math import isfinite, nan

import streamlit as st
from streamlit.delta_generator import DeltaGenerator

from sensprobe.errors import UsageError
from sensprobe.plans.plan import diff
from sensprobe.report import charts, rows, tables, tuned
from sensprobe.report.fronts import FrontView, at_batch, best_within, smallest_unharmed
from sensprobe.report.names import told_apart
from sensprobe.report.plans import resolved
from sensprobe.report.prose import about_batches
from sensprobe.report.results import Candidate, Confirmation, Search
from sensprobe.report.tables import symbol
from sensprobe.report.values import digits, in_bytes
from sensprobe.report.writing import csv_bytes
from sensprobe.units import limit_bytes
from sensprobe_app.controls import (
    add,
    batch_of,
    chart,
    followed,
    picked,
    plain,
    search_command,
    stands_alone,
)
from sensprobe_app.store import Found

BEST, UNHARMED = "Best measured", "Smallest without a difference to full precision"
HELP = (
    "A difference is larger than 1.96 standard errors. Plans are chosen by the search samples, so "
    "the best of many looks a little better than it is."
)
BUDGETS = {"budget": "Budget in all", "weights": "of weights (flash)", "state": "of state (RAM)"}


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
    full = {"budget": seen.full_bytes, "state": seen.full_state_bytes}
    full["weights"] = seen.full_bytes - seen.full_state_bytes
    with second:
        boxes = st.columns(3)
        budgets = {
            key: _budget(box, label, key, full[key])
            for box, (key, label) in zip(boxes, BUDGETS.items(), strict=True)
        }
    with third:
        feasible = st.toggle("Only what fits and is stable", key="feasible", bind="query-params")
        linear = st.toggle("Linear bytes", key="linear", bind="query-params")
        if search.quantity.paired_first:
            loss = not st.toggle(
                "The score itself", key="score", bind="query-params",
                help="Instead of what is lost to full precision, which is paired.",
            )  # fmt: skip
        else:
            loss = st.toggle(
                "What is lost, log scale", key="loss", bind="query-params",
                help="Instead of the score: what is lost to full precision.",
            )  # fmt: skip
    return FrontView(
        budgets["budget"], budgets["weights"], budgets["state"],
        feasible=feasible, log=not linear, loss=loss,
    ), batch  # fmt: skip


def _budget(box: DeltaGenerator, label: str, key: str, full: int) -> float:
    """Ask for a budget as `--budget` takes it, and return its bytes; NaN where there is none."""
    text = box.text_input(
        label, key=key, bind="query-params", placeholder="none", help="12KiB, 25%, 8x or bytes"
    )
    if not text:
        return nan
    try:
        return float(limit_bytes(text, full))
    except UsageError as error:
        st.error(plain(str(error)))  # beside all three: a box of its own is a word wide
        return nan


def _draw(found: Found, view: FrontView, batch: int) -> None:
    assert found.search is not None
    search = at_batch(found.search, batch)
    names = _offered(search)
    selected = _chosen(names, search)
    if st.query_params.get_all("plans") != selected:
        st.query_params["plans"] = selected
    best, again = best_within(search, view), found.confirmation
    small = smallest_unharmed(search, view, again)
    named = tuple(plan.name for plan in (best, small) if plan is not None)
    view = replace(view, selected=tuple(selected), named=named)
    chart(
        charts.frontier(search, view, found.tuned),
        "front",
        "Score of every plan against its bytes",
        _take,
    )
    if stands_alone():
        return
    within = _within(view)
    for what, plan in ((BEST, best), (UNHARMED, small)):
        if plan is not None:
            _told(f"{what}{within}", plan, search, again)
        else:
            fits = "every plan that fits loses" if best else "no stable plan measured in full fits"
            st.markdown(f"**{what}{within}**: none; {fits}")
    memory = view.budget if isfinite(view.budget) else search.full_bytes
    chart(
        charts.batches(search, memory, loss=view.loss),
        "batches",
        "Score of the best plan for every batch that fits the memory",
    )
    for sentence in about_batches(search, memory, again):
        what, _, told = sentence.partition(": ")
        st.markdown(f"**{plain(what)}**: {plain(told)}")
    _tuning(found.tuned)
    shown = st.multiselect(
        "Plans side by side",
        list(names),
        key="plans",
        format_func=lambda name: names.get(name, name),
        placeholder="pick marks in the chart, or names here",
    )
    if st.query_params.get_all("plans") != shown:
        st.query_params["plans"] = shown
    _table(search, found.confirmation)
    chosen = [c for c in map(search.candidate, shown) if c is not None]
    if chosen:
        _side_by_side(chosen, names, search, found)


def _offered(search: Search) -> dict[str, str]:
    """Name -> what it is called, of the plans on offer: telling ones, those that are drawn, and
    those that were chosen before."""
    first = tables.notable(search)
    rest = tables.thinned([c for c in search.candidates if symbol(c, search) == tables.DOMINATED])
    asked = {*st.session_state.get("plans", ()), *st.query_params.get_all("plans")}
    known = {c.name: c for c in [*first, *rest]}
    known |= {c.name: c for c in search.candidates if {c.name, c.title} & asked}
    return told_apart(known.values(), search)


def _chosen(names: Collection[str], search: Search) -> list[str]:
    """The plans side by side: those picked, at first those of the address, which may call a uniform
    plan by its scheme. A batch changes what plans are called, and not which are chosen."""
    kept = st.session_state.get("plans", st.query_params.get_all("plans"))
    titles = {c.title: c.name for c in search.candidates}
    kept = [titles.get(name, name) for name in kept]
    st.session_state["plans"] = [name for name in kept if name in names]
    return list(st.session_state["plans"])


def _within(view: FrontView) -> str:
    """The budgets that are set, in words."""
    told = {"": view.budget, " of weights": view.weights, " of state": view.state}
    parts = [f"{in_bytes(size)}{what}" for what, size in told.items() if size == size]
    return f" within {' and '.join(parts)}" if parts else ""


def _told(what: str, best: Candidate, search: Search, confirmed: Confirmation | None) -> None:
    q = search.quantity
    again = None if confirmed is None else confirmed.of(best.name)
    if confirmed is not None and again is not None:
        own = confirmed.quantity
        first = f"confirmed {own.level(again.metric)} {own.unit or own.name}, searched"
    else:
        first = "" if confirmed is None else "not confirmed; searched"
    parts = f"weights {in_bytes(best.weight_bytes)}, state {in_bytes(best.state_bytes)}"
    st.markdown(
        f"**{what}**: {plain(f'{first} {q.level(best.metric)}')} {plain(q.unit or q.name)} "
        f"({plain(q.change(best.change))} {plain(q.change_unit)} "
        "to full precision), "
        f"{in_bytes(best.total_bytes)} at batch {search.batch} ({parts})",
        help=f"{HELP} {best.title}: its name in files and commands.",
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


def _take() -> None:
    """Marks picked in the chart join the plans side by side."""
    add("plans", picked("front"))


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


def _side_by_side(
    chosen: list[Candidate], names: Mapping[str, str], search: Search, found: Found
) -> None:
    st.subheader("Side by side")
    q = search.quantity
    plans = {names[c.name]: c.entries for c in chosen}
    again = {names[c.name]: _again(c, found.confirmation) for c in chosen}
    facts = {
        names[c.name]: {
            "name in files": c.name,
            **again[names[c.name]],
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
    sites = tuple(site.name for site in found.sites)
    st.dataframe(tables.side_by_side(plans, sites, found.sites, search.batch))
