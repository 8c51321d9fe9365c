"""The sensitivities of a model: maps, a ranking, and the cheap estimate against the measured."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial

import streamlit as st

from sensprobe.report import charts, rows, tables
from sensprobe.report.agreement import agreement_table
from sensprobe.report.prose import about_agreement, about_sensitivity
from sensprobe.report.results import KINDS, Sensitivity
from sensprobe.report.writing import csv_bytes
from sensprobe_app.controls import add, chart, choice, picked, plain, profile_command, stands_alone
from sensprobe_app.store import Found

MOST = 24
"""Rows of the map by group: what one screen holds with its heading; filters reach the others."""
QUANTITIES = {"headline metric": "metric", "what adds up": "additive"}


def show(found: Found) -> None:
    """The profile picked, as maps, a ranking and a table that choose what each other show: layers
    by parts first, then the worst."""
    st.title("Sensitivity")
    results = found.results
    if results is None or not results.profiles:
        profile_command(found.line, "This run holds no sensitivities yet; they come from:")
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
            first=charts.harshest(profile),
        )
    for sentence in about_sensitivity(profile):
        st.markdown(plain(sentence))
    shown = _filtered(profile)
    if shown.rows:
        if not _maps(shown, of, str(scheme)):
            return
        _ranking(shown, of, str(scheme))
    else:
        st.info("No group of this profile is of these kinds, parts and layers.")
    if results.agreement is not None and results.measured is not None:
        st.subheader("Does the cheap estimate agree?")
        st.markdown(plain(about_agreement(results.agreement)))
        scatter = charts.agreement_scatter(results.agreement, results.measured.additive)
        chart(scatter, "agreement", "Estimated against measured sensitivity, log axes")
        with st.expander("Kendall τ by scheme", key="taus", on_change="rerun") as taus:
            if taus.open:
                st.dataframe(agreement_table(results.agreement), hide_index=True)


def _quantity(profile: Sensitivity) -> str:
    """Ask what is drawn, and return it: "metric" (where it was measured) or "additive"."""
    names = list(QUANTITIES) if profile.has_metric else ["what adds up"]
    picked = choice(
        "Shown",
        names,
        "shown",
        help=plain(
            f"{profile.metric.change_heading}, or {profile.additive.heading}, which adds up over "
            "parts"
        ),
    )
    return QUANTITIES[picked or names[0]]


def _filtered(profile: Sensitivity) -> Sensitivity:
    """The groups of the kinds, parts and layers that are asked for: at first what a search
    changes, of all parts and layers."""
    every = profile.rows
    layers = sorted({row.layer for row in every if row.layer is not None})
    boxes = st.columns(3 if layers else 2)
    with boxes[0]:
        kinds = _some("Kinds", [k for k in KINDS if any(row.kind == k for row in every)], "kinds",
                      [row.kind for row in profile.searched.rows])  # fmt: skip
    with boxes[1]:
        parts = _some("Parts", list(dict.fromkeys(row.part for row in every)), "parts")
    names = []
    if layers:
        with boxes[2]:
            names = _some("Layers", [str(layer) for layer in layers], "layer")
    kept = [
        row for row in every
        if (not kinds or row.kind in kinds) and (not parts or row.part in parts)
        and (not names or str(row.layer) in names)
    ]  # fmt: skip
    return replace(profile, rows=tuple(kept))


def _some(label: str, options: list[str], key: str, first: Sequence[str] = ()) -> list[str]:
    """Some of the options; those of another profile that this one lacks are forgotten."""
    if key in st.session_state:
        st.session_state[key] = [one for one in st.session_state[key] if one in options]
    default = None if key in st.session_state else [one for one in options if one in first]
    return st.multiselect(
        label, options, default, key=key, bind="query-params", placeholder="all",
    )  # fmt: skip


def _maps(shown: Sensitivity, of: str, scheme: str) -> bool:
    """Both maps; groups picked in them join those that the ranking shows. Returns whether more
    shall follow them."""
    if shown.by == "site":
        layers = charts.layer_map(shown, scheme, of)
        chart(layers, "layers", "Loss by layer and part", partial(_take, "layers"))
        if stands_alone():
            return False
    chart(
        charts.heat_map(shown, of, MOST, every=True),
        "map",
        "Loss of every group, or of the worst, in every scheme",
        partial(_take, "map"),
    )
    return not stands_alone()


def _take(key: str) -> None:
    add("targets", picked(key))


def _ranking(profile: Sensitivity, of: str, scheme: str) -> None:
    """The ranking of the groups picked (all, where none are), and the table to pick from."""
    groups = st.multiselect(
        "Only these groups",
        profile.groups,
        key="targets",
        bind="query-params",
        placeholder="the worst of all; pick cells of a map, rows of the table, or names here",
    )
    chart(
        charts.ranking(_of(profile, groups), of, every=True),
        "ranking",
        "Groups by what they lose, with bars of one standard error",
    )
    with st.expander(f"All in {plain(scheme)}, worst first", key="table", on_change="rerun") as all:
        if all.open:  # a browser loads what draws tables while it could be drawing the maps
            _table(profile, of, scheme)
    st.download_button(
        "Table as CSV",
        lambda: csv_bytes(rows.sensitivity_rows(profile)),
        f"sensitivity-{profile.method}.csv",
        "text/csv",
    )


def _table(profile: Sensitivity, of: str, scheme: str) -> None:
    """Every group in one scheme, to pick those that the ranking shows."""
    table = tables.ranking(profile, of, scheme)
    st.caption(
        "· no difference: within 1.96 standard errors of zero. "
        f"▲ {profile.radius_name} above 1: unstable."
    )
    st.dataframe(
        table,
        hide_index=True,
        on_select=partial(_take_rows, list(table["target"])),
        selection_mode="multi-row",
        key="rows",
    )


def _take_rows(names: list[str]) -> None:
    """Rows picked in the table become the groups that the ranking shows."""
    rows_picked = st.session_state["rows"]["selection"]["rows"]
    st.session_state["targets"] = list(dict.fromkeys(names[k] for k in rows_picked))


def _of(profile: Sensitivity, groups: list[str]) -> Sensitivity:
    if not groups:
        return profile
    return replace(profile, rows=tuple(row for row in profile.rows if row.group in groups))
