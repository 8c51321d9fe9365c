"""Heat maps with numbers in their cells."""

from __future__ import annotations

from math import isfinite, nan

import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import QuadMesh
from matplotlib.colors import Colormap, LinearSegmentedColormap
from matplotlib.figure import Figure

from sensprobe.report.grids import (
    Grid,
    Shading,
    bars_text,
    by_layer,
    by_scheme,
    map_title,
    shading,
    shown,
)
from sensprobe.report.images.paper import note, nothing, png, printable, sheet
from sensprobe.report.results import Row, Sensitivity
from sensprobe.report.theme import LIGHT
from sensprobe.report.values import NOISE, UNSTABLE, Quantity, plus_minus

MOST_ROWS = 60  # a page holds no more
CELL_INCHES, LINE_INCHES = 1.18, 0.36
LEGEND = (
    f"{NOISE} within 1.96 standard errors of zero: no difference;  {UNSTABLE} max|A| "
    "(of Mambas the decay at rest) > 1: unstable"
)
FADED = "#7A8088"


def heat_map(found: Sensitivity, of: str = "metric") -> bytes:
    """Targets down, schemes across, value and error bar in every cell."""
    return _map(found, by_scheme(found), of, map_title(found, of, f"{found.by} and scheme"))


def layer_map(found: Sensitivity, scheme: str, of: str = "metric") -> bytes:
    """Layers down, parts across, in one scheme of a profile by site."""
    title = map_title(found, of, f"layer and part, {scheme}")
    return _map(found, by_layer(found, scheme), of, title)


def _map(found: Sensitivity, grid: Grid, of: str, title: str) -> bytes:
    if not grid.measured:
        return nothing(title, "nothing was measured")
    cells, names = grid.cells[:MOST_ROWS], grid.down[:MOST_ROWS]
    if len(grid.down) > MOST_ROWS:
        title += f" (first {MOST_ROWS} of {len(grid.down)})"
    shades = shading(found, of)
    figure, axes = sheet(
        1.6 + CELL_INCHES * len(grid.across), 1.0 + LINE_INCHES * max(len(names), 3), title
    )
    colours = _colours(shades)
    quantity = found.quantity(of)
    mesh = _mesh(axes, cells, quantity, of, shades, colours)
    for i, line in enumerate(cells):
        for j, row in enumerate(line):
            if row is not None:
                _write(axes, (j + 0.5, i + 0.5), row, quantity, of, (shades, colours))
    _name(axes, names, grid.across)
    _bar(
        figure, axes, mesh, shades, quantity.change_heading if of == "metric" else quantity.heading
    )
    about = f"{found.method}, {found.n:,} {found.split} samples; ± one standard error"
    note(axes, [about, LEGEND], 0.55)
    return png(figure)


def _colours(shades: Shading) -> Colormap:
    names = LIGHT.diverging if shades.diverging else LIGHT.sequential
    if shades.diverging and shades.worse > 0:
        names = names[::-1]
    return LinearSegmentedColormap.from_list("sensprobe", list(names))


def _mesh(
    axes: Axes,
    cells: tuple[tuple[Row | None, ...], ...],
    quantity: Quantity,
    of: str,
    shades: Shading,
    colours: Colormap,
) -> QuadMesh:
    z = [
        [nan if row is None else shades.place(shown(row, quantity, of)) for row in line]
        for line in cells
    ]
    axes.set_facecolor(LIGHT.missing)
    mesh = axes.pcolormesh(
        np.ma.masked_invalid(np.array(z, float)),
        cmap=colours,
        vmin=-shades.limit if shades.diverging else 0.0,
        vmax=shades.limit,
        edgecolors=LIGHT.paper,
        linewidth=1.5,
    )
    axes.invert_yaxis()
    return mesh


def _write(
    axes: Axes,
    centre: tuple[float, float],
    row: Row,
    quantity: Quantity,
    of: str,
    ground: tuple[Shading, Colormap],
) -> None:
    """Value and error bar, dark on light or light on dark; noise faint, behind its dot."""
    value = shown(row, quantity, of)
    if not value.known:
        return
    text = plus_minus(value, signed=True) if of == "metric" else bars_text(row, quantity, of)
    if not value.differs:
        text = f"{NOISE} {text}"
    if row.unstable:
        text = f"{UNSTABLE} {text}"
    colour = _ink(value.differs, ground[0].place(value), *ground)
    axes.text(*centre, printable(text), ha="center", va="center", fontsize=8, color=colour)


def _ink(differs: bool, place: float, shades: Shading, colours: Colormap) -> str:
    if not differs or not isfinite(place):
        return FADED
    low = -shades.limit if shades.diverging else 0.0
    red, green, blue, _ = colours((place - low) / (shades.limit - low))
    return LIGHT.ink if 0.299 * red + 0.587 * green + 0.114 * blue > 0.55 else "#FFFFFF"


def _name(axes: Axes, down: tuple[str, ...], across: tuple[str, ...]) -> None:
    axes.set_yticks([k + 0.5 for k in range(len(down))], [printable(n, 30) for n in down])
    axes.set_xticks([k + 0.5 for k in range(len(across))], [_stacked(n) for n in across])
    axes.tick_params(axis="x", labelsize=8)
    for spine in axes.spines.values():
        spine.set_visible(False)


def _stacked(scheme: str) -> str:
    """A scheme over two lines where it is long, broken at a slash."""
    head, slash, rest = scheme.partition("/")
    if len(scheme) <= 14 or not slash:
        return printable(scheme, 18)
    return f"{printable(head + slash, 18)}\n{printable(rest, 18)}"


def _bar(figure: Figure, axes: Axes, mesh: QuadMesh, shades: Shading, heading: str) -> None:
    bar = figure.colorbar(mesh, ax=axes, fraction=0.05, pad=0.025, aspect=28)
    ticks = shades.ticks()
    bar.set_ticks([place for place, _ in ticks], labels=[name for _, name in ticks])
    bar.ax.tick_params(labelsize=8, length=0, colors=LIGHT.ink)
    bar.outline.set_visible(False)
    bar.set_label(printable(heading), fontsize=9, color=LIGHT.ink)
