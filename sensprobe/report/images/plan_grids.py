"""A plan at a glance, for print."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.colors import LinearSegmentedColormap

from sensprobe.plans.sites import Site
from sensprobe.report.editing import bits_of, cells_of
from sensprobe.report.images.paper import nothing, png, printable, sheet
from sensprobe.report.plans import OUTSIDE
from sensprobe.report.results import Entries
from sensprobe.report.theme import LIGHT

FEWEST, DEEPEST = 2.0, 16.0
"""Bits at the ends of the colour scale; from the larger on a cell is as full precision."""


def plan_grid(entries: Entries, sites: Sequence[Site], title: str) -> bytes:
    """Layers down, names within a layer across; what is in no layer first."""
    if not sites:
        return nothing(title, "this run did not keep the model's sites")
    layers, across, cells = cells_of(entries, sites)
    figure, axes = sheet(1.4 + 0.42 * len(across), 1.3 + 0.34 * len(layers), title)
    bits = np.array([[np.nan if s is None else bits_of(s) for s in row] for row in cells])
    colours = LinearSegmentedColormap.from_list("bits", LIGHT.sequential[::-1])
    axes.imshow(bits.clip(FEWEST, DEEPEST), cmap=colours, vmin=FEWEST, vmax=DEEPEST, aspect="auto")
    for y, row in enumerate(cells):
        for x, text in enumerate(row):
            if text is not None:
                ink = LIGHT.paper if bits[y, x] <= 6 else LIGHT.ink
                name = "·" if text == "fp32" else f"{bits[y, x]:g}"
                axes.text(x, y, name, ha="center", va="center", fontsize=7, color=ink)
    names = [printable(name, 20) for name in across]
    axes.set_xticks(range(len(across)), names, rotation=60, ha="right", fontsize=7)
    shown = ["no layer" if layer == OUTSIDE else f"layer {layer}" for layer in layers]
    axes.set_yticks(range(len(layers)), shown, fontsize=8)
    for side in ("left", "bottom"):
        axes.spines[side].set_visible(False)
    return png(figure)
