"""What hurts most: every target with its error bar, sorted."""

from __future__ import annotations

from math import isfinite

import plotly.graph_objects as go

from sensprobe.report.figures.style import empty, figure, label, number_or_none, whole
from sensprobe.report.grids import bars_text, shown
from sensprobe.report.results import Row, Sensitivity
from sensprobe.report.theme import LIGHT, SERIES, SYMBOLS, Theme
from sensprobe.report.values import NOISE, Z95, Measured

MOST = 40  # targets; beyond, the harmless end is left out


def ranking(
    found: Sensitivity,
    of: str = "metric",
    schemes: tuple[str, ...] = (),
    theme: Theme = LIGHT,
    most: int = MOST,
) -> go.Figure:
    """Targets by the worst they do in any of the schemes (all, if none are named), worst on top.

    Bars are 95 % intervals; what they do not tell from zero is drawn hollow.
    """
    title = "What hurts most"
    wanted = schemes or found.schemes
    order = _order(found, of, wanted)[:most]
    if not order:
        return empty(title, "nothing was measured", theme)
    quantity = found.quantity(of)
    places = {target: k for k, target in enumerate(order)}
    traces = []
    for k, scheme in enumerate(wanted):
        rows = [row for row in found.rows if row.scheme == scheme and row.target in places]
        clear = [row for row in rows if shown(row, quantity, of).differs]
        noise = [row for row in rows if row not in clear]
        traces.append(_trace(clear, found, of, places, k, scheme, "", named=bool(clear)))
        traces.append(_trace(noise, found, of, places, k, scheme, "-open", named=not clear))
    heading = quantity.change_heading if of == "metric" else quantity.heading
    left_out = len(found.targets) - len(order)
    note = f", the {len(order)} worst of {len(found.targets)}" if left_out > 0 else ""
    return figure(
        traces,
        title + note,
        theme,
        xaxis={
            "title": {"text": f"{heading}, 95 % interval"},
            "type": "linear" if of == "metric" else "log",
            "zeroline": of == "metric",
            "zerolinewidth": 2,
            "exponentformat": "power",
        },
        yaxis={
            "tickvals": list(places.values()),
            "ticktext": [label(target) for target in order],
            "range": [len(order) - 0.4, -0.6],
        },
        height=170 + 24 * max(len(order), 4),
    )


def _order(found: Sensitivity, of: str, schemes: tuple[str, ...]) -> list[str]:
    """Targets, the worst first."""
    quantity, worst = found.quantity(of), dict[str, float]()
    for row in found.rows:
        value = shown(row, quantity, of).value
        if row.scheme in schemes and isfinite(value):
            harm = -quantity.sign * value
            worst[row.target] = max(worst.get(row.target, harm), harm)
    return sorted(worst, key=lambda target: -worst[target])


def _trace(
    rows: list[Row],
    found: Sensitivity,
    of: str,
    places: dict[str, int],
    k: int,
    scheme: str,
    filling: str,
    *,
    named: bool,
) -> go.Scatter:
    """Marks of one scheme, filled or hollow; the legend names it once, filled where any is."""
    quantity = found.quantity(of)
    values = [shown(row, quantity, of) for row in rows]
    colour = SERIES[k % len(SERIES)]
    return go.Scatter(
        x=[number_or_none(v.value) if of == "metric" or v.value > 0 else None for v in values],
        y=[places[row.target] for row in rows],
        mode="markers",
        name=label(scheme),
        legendgroup=str(k),
        showlegend=named,
        marker={
            "symbol": SYMBOLS[k % len(SYMBOLS)] + filling,
            "size": 10,
            "color": colour,
        },
        error_x={"type": "data", "array": [_half(v) for v in values], "thickness": 1.4, "width": 3},
        customdata=[[row.target, _hover(row, found, of)] for row in rows],
        hovertemplate="%{customdata[1]}<extra></extra>",
    )


def _half(value: Measured) -> float | None:
    return number_or_none(Z95 * value.stderr)


def _hover(row: Row, found: Sensitivity, of: str) -> str:
    quantity = found.quantity(of)
    value = shown(row, quantity, of)
    unit = quantity.change_unit if of == "metric" else quantity.unit
    noise = "" if value.differs else f" {NOISE} no difference"
    return (
        f"<b>{whole(row.target)}</b><br>{whole(row.scheme)}<br>"
        f"{bars_text(row, quantity, of)} {unit}{noise}"
    )
