"""A search: what it gained and whether more would, its plans, what mattered, and what failed."""

from __future__ import annotations

import streamlit as st

from sensprobe.report import charts, rows
from sensprobe.report.charts.searching import meaning
from sensprobe.report.course import about_course, course, seconds
from sensprobe.report.dataframes import pd
from sensprobe.report.prose import about_predictions, about_search
from sensprobe.report.results import Search
from sensprobe_app import store
from sensprobe_app.controls import chart, choice, followed, plain, search_command
from sensprobe_app.store import Found

HYPERVOLUME = (
    "Hypervolume is how much of the field of bytes and scores the best plans cover, from the "
    "reference on: it grows when a plan is smaller or better than all before it, and a flat end "
    "means that the latest plans were neither."
)
PREDICTED = (
    "A plan above the line loses more than its tensors do one at a time: their errors meet. Far "
    "off the line, trust what was measured; all along it, a search by sensitivities alone will do."
)
PARALLEL = (
    "A line is a plan, and each axis has its own scale. Where lines of the front and of what was "
    "chosen meet, good plans agree on those bits; where they fan out, it matters less. A click in "
    "the legend hides a kind of plan."
)
MULTIPLIERS = (
    "Before each proposal the search turns these, and the solver makes a plan of what comes out. "
    "A long bar: turning it changed what plans lose."
)


def show(found: Found) -> None:
    """An answer, then the figures behind it; followed while the search runs."""
    st.title("Search")
    if found.search is None:
        search_command(found.line)
        return
    followed(found, _draw)


def _draw(found: Found) -> None:
    assert found.search is not None
    assert found.run is not None
    went = course(found.search)
    first, *others = about_course(went, going_on=found.partial)
    st.markdown(f"**{plain(first)}** {plain(' '.join(others))}")
    if not found.partial:
        for sentence in about_search(found.search):
            st.markdown(plain(sentence))
    chart(
        charts.convergence(went),
        "convergence",
        "Hypervolume of the front against plans evaluated",
    )
    st.caption(HYPERVOLUME)
    _plans(found, found.search)
    storage = found.run.optuna_path
    studies, problem = store.history(str(storage), store.stamp(storage))
    if problem:
        st.warning(plain(problem))
    if studies:
        names = [study.name for study in studies]
        name = choice("Study", names, "study") if len(names) > 1 else names[0]
        study = next((s for s in studies if s.name == name), studies[0])
        chart(
            charts.importances(study.importance),
            "importances",
            "Share of the loss's variance that each multiplier explains",
        )
        if study.importance:
            st.caption(MULTIPLIERS)
            st.caption(plain("; ".join(f"{n}: {meaning(n)}" for n in study.importance)))
    chart(
        charts.durations(seconds(found.run)),
        "durations",
        "Seconds of every evaluation in order",
    )
    failures = [text for study in studies for text in study.failures]
    notices = [*failures, *found.run.notices]
    st.subheader("What failed")
    if not notices:
        st.markdown("Nothing: no trial failed and every evaluation on disk can be read.")
    for text in notices:
        st.warning(plain(text))


def _plans(found: Found, search: Search) -> None:
    """Every plan by what it was predicted to lose, by the bits of its parts, and as a table."""
    if not found.partial:
        chart(
            charts.predictions(search),
            "predictions",
            "Loss that sensitivities predict for every plan against the loss that was measured",
        )
        if said := about_predictions(search):
            st.markdown(plain(said))
        st.caption(PREDICTED)
    chart(
        charts.parallel(search, found.sites),
        "parallel",
        "A line for every plan through the bits of its parts, its bytes and its score",
    )
    st.caption(PARALLEL)
    table = st.expander("Every plan in the order it was measured", key="trials", on_change="rerun")
    if table.open:
        with table:
            frame = rows.frontier_rows(search)
            frame.index = pd.RangeIndex(1, len(frame) + 1)
            st.dataframe(frame)
