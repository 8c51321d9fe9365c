"""The course of a search: its gains, what mattered, how long it took, and what failed."""

from __future__ import annotations

import streamlit as st

from sensprobe.report import charts
from sensprobe.report.course import course, seconds
from sensprobe.report.prose import about_search
from sensprobe_app import store
from sensprobe_app.controls import chart, choice, followed, plain, search_command
from sensprobe_app.store import Found


def show(found: Found) -> None:
    """Convergence, importances, durations, failures; followed while the search runs."""
    st.title("Search")
    if found.search is None:
        search_command(found.line)
        return
    followed(found, _draw)


def _draw(found: Found) -> None:
    assert found.search is not None
    assert found.run is not None
    if not found.partial:
        for sentence in about_search(found.search):
            st.markdown(plain(sentence))
    else:
        st.markdown(f"{len(found.search.candidates):,} plans measured so far.")
    chart(
        charts.convergence(course(found.search)),
        "convergence",
        "Hypervolume of the front against plans evaluated",
    )
    storage = found.run.optuna_path
    studies, problem = store.history(str(storage), store.stamp(storage))
    if problem:
        st.warning(plain(problem))
    if studies:
        name = choice("Study", [study.name for study in studies], "study")
        study = next((s for s in studies if s.name == name), studies[0])
        chart(
            charts.importances(study.importance),
            "importances",
            "Share of the loss's variance that each multiplier explains",
        )
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
