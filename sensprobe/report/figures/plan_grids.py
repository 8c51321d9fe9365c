"""A plan at a glance: bits by layer and part."""

from __future__ import annotations

from collections.abc import Sequence

import plotly.graph_objects as go

from sensprobe.plans.scheme import parse
from sensprobe.plans.sites import Kind, Site
from sensprobe.report.editing import bits_of, cells_of, site_name
from sensprobe.report.figures.style import empty, figure, heat_cells, label, scale, whole
from sensprobe.report.plans import OUTSIDE
from sensprobe.report.results import Entries
from sensprobe.report.theme import LIGHT, Theme

DEEPEST = 16.0
"""Bits from which a cell has the colour of full precision."""
ROW_PIXELS = 30


def plan_grid(
    entries: Entries,
    sites: Sequence[Site],
    title: str = "Bits by layer and part",
    theme: Theme = LIGHT,
) -> go.Figure:
    """Layers down, names within a layer across; what is in no layer has a row of its own, first.

    `customdata[0]` of a cell is its site.
    """
    if not sites:
        return empty(title, "this run did not keep the model's sites", theme)
    layers, across, cells = cells_of(entries, sites)
    kinds = {site.name: site.kind for site in sites}
    z, text, data = [], [], []
    for layer, found in zip(layers, cells, strict=True):
        z.append([None if s is None else min(bits_of(s), DEEPEST) for s in found])
        text.append(["" if s is None else _short(s) for s in found])
        names = [site_name(layer, name) for name in across]
        data.append(
            [
                ["", ""] if s is None else [name, _hover(name, s, kinds[name])]
                for name, s in zip(names, found, strict=True)
            ]
        )
    plain = {"showgrid": False, "zeroline": False}
    return figure(
        [heat_cells(z, text, data)],
        title,
        theme,
        subtitle="bits a value, scales apart; a dot stands for full precision",
        coloraxis={
            "colorscale": scale(theme.sequential),
            "reversescale": True,
            "cmin": 2,
            "cmax": DEEPEST,
            "colorbar": {
                "title": {"text": "bits", "side": "right"},
                "outlinewidth": 0,
                "thickness": 14,
            },
        },
        meta={"scale": "sequential"},
        xaxis={
            "tickvals": list(range(len(across))),
            "ticktext": [label(name, 20) for name in across],
            "side": "bottom",
            **plain,
        },
        yaxis={
            "tickvals": list(range(len(layers))),
            "ticktext": ["no layer" if name == OUTSIDE else f"layer {name}" for name in layers],
            "autorange": "reversed",
            **plain,
        },
        height=200 + ROW_PIXELS * max(len(layers), 3),
    )


def _short(text: str) -> str:
    """ "4" of int4/group64, "·" of full precision."""
    return "·" if text == "fp32" else f"{parse(text).bits_per_real:g}"


def _hover(name: str, text: str, kind: Kind) -> str:
    return f"<b>{whole(name)}</b><br>{kind.value}<br>{whole(text)}"
