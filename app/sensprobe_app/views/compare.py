"""Searches of several runs side by side: their fronts, what they chose, and how plans differ."""

from __future__ import annotations

from collections.abc import Mapping

import streamlit as st

from sensprobe.report import charts
from sensprobe.report.comparing import Placed, about_runs, alike, chosen_rows, plan_difference
from sensprobe.report.fronts import at_batch
from sensprobe.report.names import told_apart
from sensprobe.report.results import Search
from sensprobe.report.tables import notable
from sensprobe_app import store
from sensprobe_app.controls import batch_of, chart, choice, command, kept, plain

CHANGE, RELATIVE = "change to full precision", "loss relative to full precision"
SHOWN = {
    "score": "score",
    CHANGE: "change",
    "change over the share of its bytes": "share",
    RELATIVE: "relative",
}
MOST = 7


def show(lines: list[store.RunLine]) -> None:
    """Two or more runs; what cannot be compared is said."""
    st.title("Compare")
    answer = st.container()
    names = [line.name for line in lines]
    first, second, third = st.columns([3, 2, 2])
    searched = [line.name for line in lines if line.best] or names
    with first:
        picked = st.multiselect(
            "Runs",
            names,
            default=sorted(searched, key=lambda name: name != kept("run"))[:2],
            key="runs",
            bind="query-params",
            max_selections=MOST,
        )
    with third:
        batch = batch_of(1, "at")
    found = {line.name: store.found(line) for line in lines if line.name in picked}
    searches = {
        name: at_batch(one.search, batch) for name, one in found.items() if one.search is not None
    }
    for name in found.keys() - searches.keys():
        st.caption(plain(f"{name}: no plan was searched for yet. {found[name].problem}"))
    if not searches:
        command(
            ["sensprobe", "search", "--run", "RUN", "--budget", "12KiB"],
            "Two searched runs make a comparison:",
        )
        return
    with second:
        shown = list(SHOWN) if alike(searches) else [RELATIVE]
        paired = next(iter(searches.values())).quantity.paired_first
        what = SHOWN[choice("Shown", shown, "as", CHANGE if paired else None) or RELATIVE]
    with answer:
        confirmed = {name: found[name].confirmation for name in searches}
        for sentence in about_runs(searches, confirmed):
            st.markdown(plain(sentence))
    chart(
        charts.fronts(searches, what, {name: found[name].tuned for name in searches}),
        "fronts",
        "Fronts of the chosen runs, score against bytes",
    )
    rows = [
        row
        for name, search in searches.items()
        for row in chosen_rows(name, search, found[name].confirmation)
    ]
    if rows:
        st.dataframe(rows, hide_index=True)
    _difference({name: found[name] for name in searches}, searches)


def _difference(found: Mapping[str, store.Found], searches: Mapping[str, Search]) -> None:
    """Two plans, of one run or two, and the groups of sites that they treat differently."""
    plans: dict[str, Placed] = {}
    firsts: list[str] = []
    called: dict[str, str] = {}
    known: tuple[str, ...] = ()  # the sites of the first run's model
    for name, search in searches.items():
        run = found[name].run
        names = () if run is None else tuple(run.manifest.sites)
        ordered = sorted(notable(search), key=lambda c: c.name not in search.picks)
        own = {f"{name}: {c.title}": Placed(c.entries, names, found[name].sites) for c in ordered}
        texts = told_apart(ordered, search)
        called |= {f"{name}: {c.title}": f"{name}: {texts[c.name]}" for c in ordered}
        plans |= own
        firsts += list(own)[: 1 if not firsts or names == known else 0]
        known = known or names
    st.subheader("How two plans differ")
    if len(plans) < 2:
        st.markdown("There are no two plans to compare.")
        return
    left, right = st.columns(2)
    with left:
        one = choice("Plan", list(plans), "one", firsts[0], told=called) or firsts[0]
    with right:
        rest = [title for title in plans if title != one]
        other = choice("Against", rest, "other", firsts[-1], told=called) or rest[0]
    table = plan_difference({called[one]: plans[one], called[other]: plans[other]})
    st.markdown(f"{len(table)} groups of sites differ." if len(table) else "They are the same.")
    if len(table):
        st.dataframe(table)
