"""The model as a graph: the tensors of a layer, their shapes, and their schemes under a plan."""

from __future__ import annotations

import streamlit as st

from sensprobe.plans.sites import Kind
from sensprobe.report import charts
from sensprobe.report.names import told_apart
from sensprobe.report.plans import OUTSIDE, place_of
from sensprobe.report.results import Entries
from sensprobe.report.tables import notable
from sensprobe.report.values import in_bytes
from sensprobe_app.controls import chart, choice, plain, profile_command
from sensprobe_app.store import Found

EXACT = "full precision"


def show(found: Found) -> None:
    """What the model is made of, then one layer of it under a plan."""
    st.title("Model")
    if not found.sites:
        profile_command(found.line, "This run did not keep the model's sites; this keeps them:")
        return
    layers = list(dict.fromkeys(place_of(site.name)[0] for site in found.sites))
    layers.sort(key=lambda layer: layer == OUTSIDE)
    count = sum(layer != OUTSIDE for layer in layers)
    held = {k: sum(s.full_bytes for s in found.sites if s.kind is k) for k in Kind}
    st.markdown(
        f"**{plain(found.line.model)}: {len(found.sites)} tensors in {count} "
        f"layer{'s' * (count != 1)}; {in_bytes(held[Kind.WEIGHT])} of weights and "
        f"{in_bytes(held[Kind.STATE])} of state a sequence at full precision.**"
    )
    plans: dict[str, Entries] = {EXACT: ()}
    told = {EXACT: EXACT}
    if (search := found.search) is not None:
        kept = sorted(notable(search), key=lambda c: c.name not in search.picks)
        plans = {c.name: c.entries for c in kept} | plans
        told |= told_apart(kept, search)
    first, second = st.columns(2)
    with first:
        plan = choice("Under the plan", list(plans), "under", told=told) or EXACT
    with second:
        layer = choice("Layer", layers, "layer") or layers[0]
    graph = charts.model_graph(found.sites, plans[plan], layer)
    chart(graph, "model", "The tensors of a layer with shape and scheme, and what reads what")
    rows = {p.name: p.about for series in graph.series if series.marks for p in series.points}
    columns = ("site", "kind", "shape", "scheme")
    st.dataframe(
        [dict(zip(columns, rows[s.name], strict=False)) for s in found.sites if s.name in rows],
        hide_index=True,
    )
