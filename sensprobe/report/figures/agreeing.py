"""Cheap sensitivities against measured ones."""

from __future__ import annotations

import plotly.graph_objects as go

from sensprobe.report.agreement import Agreement, Pairing
from sensprobe.report.figures.style import empty, figure, number_or_none, whole
from sensprobe.report.theme import BLUE, GREEN, LIGHT, VERMILION, Theme
from sensprobe.report.values import KL, Quantity, digits, plus_minus

LOOKS = {
    "weight": ("circle", BLUE),
    "state": ("diamond", VERMILION),
    "activation": ("square", GREEN),
}


def agreement_scatter(found: Agreement, quantity: Quantity = KL, theme: Theme = LIGHT) -> go.Figure:
    """Every target and scheme priced both ways, on log axes; on the line both say the same."""
    title = "Cheap against measured sensitivity"
    drawn = [p for p in found.pairings if _point(p) is not None]
    if not drawn:
        return empty(title, "no target was priced both ways", theme)
    values = [v for p in drawn for v in (p.measured.additive.value, p.taylor.additive.value)]
    low, high = min(values), max(values)
    line = go.Scatter(
        x=[low, high],
        y=[low, high],
        mode="lines",
        name="equal",
        line={"dash": "dot", "width": 1.5, "color": "#8A8F98"},
        hoverinfo="skip",
    )
    axis = {"type": "log", "exponentformat": "power"}
    tau = f"Kendall τ {plus_minus(found.overall)} over {found.overall.n} observations"
    left_out = len(found.pairings) - len(drawn)
    note = f"; {left_out} at zero, not drawn" if left_out else ""
    return figure(
        [line, *(_trace(kind, drawn) for kind in LOOKS)],
        f"{title}: {tau}{note}",
        theme,
        xaxis={**axis, "title": {"text": f"measured {quantity.heading}"}},
        yaxis={**axis, "title": {"text": f"estimated from one gradient, {quantity.heading}"}},
        height=500,
    )


def _point(pairing: Pairing) -> tuple[float, float] | None:
    """Where a pairing lies on log axes, if it does."""
    x, y = (number_or_none(r.additive.value) for r in (pairing.measured, pairing.taylor))
    return (x, y) if x is not None and y is not None and x > 0 and y > 0 else None


def _trace(kind: str, drawn: list[Pairing]) -> go.Scatter:
    symbol, colour = LOOKS[kind]
    mine = [p for p in drawn if (p.measured.kind if p.measured.kind in LOOKS else "weight") == kind]
    error = {"type": "data", "thickness": 1, "width": 0}
    return go.Scatter(
        x=[p.measured.additive.value for p in mine],
        y=[p.taylor.additive.value for p in mine],
        error_x={**error, "array": [number_or_none(p.measured.additive.stderr) for p in mine]},
        error_y={**error, "array": [number_or_none(p.taylor.additive.stderr) for p in mine]},
        mode="markers",
        name=kind,
        marker={"symbol": symbol, "color": colour, "size": 8, "opacity": 0.85},
        customdata=[[p.measured.target, _hover(p)] for p in mine],
        hovertemplate="%{customdata[1]}<extra></extra>",
    )


def _hover(pairing: Pairing) -> str:
    row = pairing.measured
    lines = [
        f"<b>{whole(row.target)}</b>",
        whole(row.scheme),
        f"measured {plus_minus(row.additive)}",
        f"estimated {digits(pairing.taylor.additive.value, 3)}",
    ]
    return "<br>".join(lines)
