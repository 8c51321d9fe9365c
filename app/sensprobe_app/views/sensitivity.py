"""Where a model hurts: parts and layers against schemes, ranked; cheap scores beside measured."""

from __future__ import annotations

import streamlit as st

from sensprobe.report import figures, rows, tables
from sensprobe.report.agreement import agreement_table
from sensprobe.report.grids import harshest
from sensprobe.report.prose import about_agreement, about_sensitivity
from sensprobe.report.results import Sensitivity
from sensprobe.report.writing import csv_bytes
from sensprobe_app.controls import chart, choice, command, plain, theme
from sensprobe_app.store import Found

QUANTITIES = {"headline metric": "metric", "what adds up": "additive"}


def show(found: Found) -> None:
    """The profile picked, as maps, a ranking and a table that choose what each other show."""
    st.title("Sensitivity")
    results = found.results
    if results is None or not results.profiles:
        command(
            [
                "sensprobe",
                "profile",
                found.line.model,
                "--data",
                found.line.data,
                "--run",
                found.line.path,
            ],
            "This run holds no sensitivities yet; they come from:",
        )
        return
    profiles = {p.method: p for p in results.profiles}
    first, second, third = st.columns(3)
    with first:
        method = choice("Method", list(profiles), "method")
    profile = profiles[method or results.profiles[0].method]
    with second:
        of = _quantity(profile)
    with third:
        scheme = choice(
            "Scheme of the layer map and the table",
            profile.schemes,
            "scheme",
            first=harshest(profile),
        )
    for sentence in about_sensitivity(profile):
        st.markdown(plain(sentence))
    focus = _maps(profile, of, str(scheme))
    _ranking(profile, of, str(scheme), focus)
    if results.agreement is not None and results.measured is not None:
        st.subheader("Does the cheap estimate agree?")
        st.markdown(plain(about_agreement(results.agreement)))
        figure = figures.agreement_scatter(results.agreement, results.measured.additive, theme())
        chart(figure, "agreement", "Estimated against measured sensitivity, log axes")
        st.dataframe(agreement_table(results.agreement), hide_index=True)


def _quantity(profile: Sensitivity) -> str:
    """What is drawn: the headline metric where it was measured, or what adds up."""
    names = list(QUANTITIES) if profile.has_metric else ["what adds up"]
    picked = choice(
        "Shown",
        names,
        "shown",
        help=f"{profile.metric.change_heading}, or {profile.additive.heading}, which adds up over "
        "parts",
    )
    return QUANTITIES[picked or names[0]]


def _maps(profile: Sensitivity, of: str, scheme: str) -> list[str]:
    """Both maps; targets picked in them."""
    figure = figures.heat_map(profile, of, theme())
    picked = chart(figure, "map", "Loss of every target in every scheme", select=True)
    if profile.by == "site":
        layers = figures.layer_map(profile, scheme, of, theme())
        picked += chart(layers, "layers", "Loss by layer and part", select=True)
    return picked


def _ranking(profile: Sensitivity, of: str, scheme: str, focus: list[str]) -> None:
    """The ranking of the targets chosen in the table (all, where none are)."""
    targets = st.multiselect(
        "Only these targets",
        profile.targets,
        key="targets",
        bind="query-params",
        placeholder="all of them; pick rows of the table, or names here",
    )
    wanted = [*targets, *(name for name in focus if name not in targets)]
    kept = _of(profile, wanted)
    chart(
        figures.ranking(kept, of, theme=theme()),
        "ranking",
        "Targets by what they lose, with 95 % intervals",
    )
    table = tables.ranking(profile, of, scheme)
    st.caption("· no difference: within 1.96 standard errors of zero. ▲ max|A| above 1: unstable.")
    st.dataframe(
        table,
        hide_index=True,
        on_select=_take_rows,
        selection_mode="multi-row",
        key="rows",
    )
    st.session_state["_row_targets"] = list(table["target"])
    st.download_button(
        "Table as CSV",
        lambda: csv_bytes(rows.sensitivity_rows(profile)),
        f"sensitivity-{profile.method}.csv",
        "text/csv",
    )


def _take_rows() -> None:
    """Rows picked in the table become the targets that the ranking shows."""
    names = st.session_state.get("_row_targets", [])
    picked = st.session_state["rows"]["selection"]["rows"]
    st.session_state["targets"] = list(dict.fromkeys(names[k] for k in picked if k < len(names)))


def _of(profile: Sensitivity, targets: list[str]) -> Sensitivity:
    from dataclasses import replace

    if not targets:
        return profile
    return replace(profile, rows=tuple(row for row in profile.rows if row.target in targets))
