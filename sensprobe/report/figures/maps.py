"""Heat maps of sensitivity: part × scheme, and layer × part."""

from __future__ import annotations

import plotly.graph_objects as go

from sensprobe.report.figures.style import (
    empty,
    figure,
    heat_cells,
    label,
    number_or_none,
    scale,
    whole,
)
from sensprobe.report.grids import (
    Grid,
    Shading,
    bars_text,
    by_layer,
    by_scheme,
    cell_text,
    map_title,
    shading,
)
from sensprobe.report.results import Row, Sensitivity
from sensprobe.report.theme import LIGHT, Theme
from sensprobe.report.values import (
    NOISE,
    UNSTABLE,
    digits,
    flagged,
    in_bytes,
    plus_minus,
)

ROW_PIXELS = 27


def heat_map(found: Sensitivity, of: str = "metric", theme: Theme = LIGHT) -> go.Figure:
    """Every target in every scheme. `of`: "metric" (change to full precision) or "additive"."""
    return _map(found, by_scheme(found), of, theme, map_title(found, of, f"{found.by} and scheme"))


def layer_map(
    found: Sensitivity, scheme: str, of: str = "metric", theme: Theme = LIGHT
) -> go.Figure:
    """Every site of a profile by site, in one scheme: layers down, parts across."""
    title = map_title(found, of, f"layer and part, {scheme}")
    return _map(found, by_layer(found, scheme), of, theme, title)


def _map(found: Sensitivity, grid: Grid, of: str, theme: Theme, title: str) -> go.Figure:
    if not grid.measured:
        return empty(title, "nothing was measured", theme)
    quantity, shades = found.quantity(of), shading(found, of)
    z = [[number_or_none(_place(shades, found, row, of)) for row in line] for line in grid.cells]
    text = [[cell_text(row, quantity, of) for row in line] for line in grid.cells]
    data = [
        [[row.target, _hover(found, row)] if row else ["", ""] for row in line]
        for line in grid.cells
    ]
    trace = heat_cells(z, text, data)
    return figure(
        [trace],
        title,
        theme,
        subtitle=_caption(found),
        coloraxis=_coloraxis(found, of, shades, theme),
        meta={"scale": "diverging" if shades.diverging else "sequential"},
        xaxis={**_axis(grid.across, 20), "side": "bottom", "title": {"text": grid.across_title}},
        yaxis={**_axis(grid.down, 28), "autorange": "reversed"},
        height=170 + ROW_PIXELS * max(len(grid.down), 4),
    )


def _place(shades: Shading, found: Sensitivity, row: Row | None, of: str) -> float:
    if row is None:
        return float("nan")
    return shades.place(found.quantity(of).shown(row.change if of == "metric" else row.additive))


def _coloraxis(found: Sensitivity, of: str, shades: Shading, theme: Theme) -> dict[str, object]:
    quantity = found.quantity(of)
    ticks = shades.ticks()
    return {
        "colorscale": scale(theme.diverging if shades.diverging else theme.sequential),
        "reversescale": shades.diverging and shades.worse > 0,
        "cmin": -shades.limit if shades.diverging else 0,
        "cmax": shades.limit,
        "colorbar": {
            "title": {
                "text": quantity.change_heading if of == "metric" else quantity.heading,
                "side": "right",
            },
            "tickvals": [place for place, _ in ticks],
            "ticktext": [name for _, name in ticks],
            "outlinewidth": 0,
            "thickness": 14,
        },
    }


def _axis(names: tuple[str, ...], width: int) -> dict[str, object]:
    """Names at whole numbers, so that two names that shorten alike stay two."""
    return {
        "tickvals": list(range(len(names))),
        "ticktext": [_stacked(name, width) for name in names],
        "showgrid": False,
        "zeroline": False,
    }


def _stacked(name: str, width: int) -> str:
    """A long scheme on two lines, broken at its first slash."""
    head, slash, rest = name.partition("/")
    if len(name) <= width or not slash:
        return label(name, width)
    return f"{label(head + slash, width)}<br>{label(rest, width)}"


def _caption(found: Sensitivity) -> str:
    return (
        f"{found.n:,} {found.split} samples; {NOISE} within 1.96 standard errors of zero: "
        f"no difference; {UNSTABLE} {found.radius_name} above 1: unstable"
    )


def _hover(found: Sensitivity, row: Row) -> str:
    """Everything known of one observation."""
    lines = [f"<b>{whole(row.target)}</b>", f"scheme {whole(row.scheme)}"]
    if row.applied and row.applied != (row.scheme,):
        lines.append(f"applied {whole(', '.join(row.applied))}")
    if row.change.known:
        change = found.metric.shown(row.change)
        text = flagged(plus_minus(change, signed=True), change)
        lines.append(f"{found.metric.change_heading} {text}")
    if row.additive.known:
        lines.append(f"{found.additive.heading} {bars_text(row, found.additive, 'additive')}")
    lines.append(f"n {found.n:,} in {found.clusters:,} clusters")
    if row.radius == row.radius:
        unstable = " (unstable)" if row.unstable else ""
        lines.append(f"{found.radius_name} {digits(row.radius, 5)}{unstable}")
    if row.kind != "activation":
        lines.append(f"weights {in_bytes(row.weight_bytes)}, state {in_bytes(row.state_bytes)}")
    return "<br>".join(lines)
