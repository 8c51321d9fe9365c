"""Fronts of several runs on one chart."""

from __future__ import annotations

import streamlit as st

from sensprobe.report import charts
from sensprobe.report.fronts import at_batch
from sensprobe.report.results import Confirmation, Search
from sensprobe.report.values import in_bytes
from sensprobe_app import store
from sensprobe_app.controls import batch_of, chart, choice, command, plain

SHOWN = {
    "score": "score",
    "change to full precision": "change",
    "change over the share of its bytes": "share",
}
MOST = 7


def show(lines: list[store.RunLine]) -> None:
    """Two or more runs; what cannot be compared is said."""
    st.title("Compare")
    names = [line.name for line in lines]
    first, second, third = st.columns([3, 2, 2])
    with first:
        picked = st.multiselect(
            "Runs",
            names,
            default=[line.name for line in lines if line.best][:2] or names[:2],
            key="runs",
            bind="query-params",
            max_selections=MOST,
        )
    with second:
        what = SHOWN[choice("Shown", list(SHOWN), "as") or "score"]
    with third:
        batch = batch_of(1, "at")
    searches, tuned, rows = {}, {}, list[dict[str, str]]()
    for line in lines:
        if line.name in picked:
            found = store.found(line)
            if found.search is not None:
                searches[line.name] = at_batch(found.search, batch)
                tuned[line.name] = found.tuned
                rows += _chosen(line.name, searches[line.name], found.confirmation)
            else:
                st.caption(plain(f"{line.name}: no plan was searched for yet. {found.problem}"))
    if not searches:
        command(
            ["sensprobe", "search", "--run", "RUN", "--budget", "12KiB"],
            "Two searched runs make a comparison:",
        )
        return
    chart(
        charts.fronts(searches, what, tuned),
        "fronts",
        "Fronts of the chosen runs, score against bytes",
    )
    if rows:
        st.dataframe(rows, hide_index=True)


def _chosen(run: str, search: Search, confirmed: Confirmation | None) -> list[dict[str, str]]:
    """A row for each plan that a run chose: what it was confirmed at, then what it was searched
    at."""
    q, rows = search.quantity, []
    for one in search.chosen:
        plan = search.candidate(one.candidate)
        if plan is None:
            continue
        again = None if confirmed is None else confirmed.of(plan.name)
        rows.append({
            "run": run,
            "budget": one.budget,
            "plan": plan.title,
            "bytes": in_bytes(plan.total_bytes),
            "confirmed": "–" if again is None else q.level(again.metric),
            "searched": q.level(plan.metric),
            "metric": q.heading,
        })  # fmt: skip
    return rows
