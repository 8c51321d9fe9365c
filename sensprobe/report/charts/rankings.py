"""Groups ranked by what they lose, and measured sensitivities against the cheap estimate."""

from __future__ import annotations

from dataclasses import replace
from math import isfinite

from sensprobe.report.agreement import Agreement, Pairing
from sensprobe.report.charts.chart import (
    LABEL,
    ROW,
    Axis,
    Chart,
    Error,
    Look,
    Point,
    Series,
    error_of,
    named_rows,
    nothing,
)
from sensprobe.report.results import Row, Sensitivity
from sensprobe.report.tables import worst, worst_first
from sensprobe.report.theme import BLUE, GREEN, GREY, SERIES, SYMBOLS, VERMILION
from sensprobe.report.values import (
    KL,
    NOISE,
    Measured,
    Quantity,
    digits,
    plus_minus,
    shortened,
)

MOST = 40  # groups; beyond, the harmless end is left out
KINDS = {
    "weight": Look("circle", 8, BLUE, 0.85),
    "state": Look("diamond", 8, VERMILION, 0.85),
    "activation": Look("square", 8, GREEN, 0.85),
}


def ranking(
    found: Sensitivity, of: str = "metric", schemes: tuple[str, ...] = (), *, every: bool = False
) -> Chart:
    """Groups by the worst they do in any of the schemes (all, if none are named), worst on top; of
    many so many of what a search changes, or of `every` group.

    Bars are one standard error; what is within 1.96 of them of zero is drawn hollow.
    """
    title, wanted = "What hurts most", schemes or found.schemes
    drawn, note = worst(found, of, MOST, every=every)
    rows = [row for row in drawn.rows if row.scheme in wanted]
    rows = [row for row in rows if isfinite(found.shown(row, of).value)]
    order = worst_first(replace(drawn, rows=tuple(rows)), of)
    kept = {group: k for k, group in enumerate(order)}
    if not kept:
        return nothing(title, "nothing was measured")
    series = []
    for k, scheme in enumerate(wanted):
        mine = [row for row in rows if row.scheme == scheme]
        mine.sort(key=lambda row: not found.shown(row, of).differs)  # the legend shows the first
        points = tuple(_point(found, row, of, kept[row.group]) for row in mine)
        look = Look(SYMBOLS[k % len(SYMBOLS)], 10, SERIES[k % len(SERIES)])
        series.append(Series(shortened(scheme, LABEL), points, look))
    metric = of == "metric"
    return Chart(
        f"{title}: {note or found.kinds}",
        (f"bars: one standard error; hollow {NOISE} within 1.96 of them of zero: no difference",),
        x=Axis(found.heading(of), log=not metric, zero=metric),
        y=replace(named_rows(kept), grid=True),
        series=tuple(series),
        height=170 + ROW * max(len(kept), 4),
    )


def _point(found: Sensitivity, row: Row, of: str, place: int) -> Point:
    value = found.shown(row, of)
    unit = found.metric.change_unit if of == "metric" else found.additive.unit
    noise = "" if value.differs else f" {NOISE} no difference"
    lines = (row.group, row.scheme, f"{found.text(row, of)} {unit}{noise}")
    return Point(
        value.value, place, row.group, lines, x_error=error_of(value),
        hollow=not value.differs,
    )  # fmt: skip


def agreement_scatter(found: Agreement, quantity: Quantity = KL) -> Chart:
    """Every group and scheme priced both ways, on log axes; on the line both say the same."""
    title = "Cheap against measured sensitivity"
    drawn = [p for p in found.pairings if all(isfinite(v) and v > 0 for v in _prices(p))]
    if not drawn:
        return nothing(title, "no group was priced both ways")
    values = [value for pairing in drawn for value in _prices(pairing)]
    equal = tuple(Point(value, value) for value in (min(values), max(values)))
    left_out = len(found.pairings) - len(drawn)
    tau = f"Kendall τ {plus_minus(found.overall)} over {found.overall.n} observations"
    kinds: dict[str, list[Point]] = {kind: [] for kind in KINDS}
    for pairing in drawn:
        kind = pairing.measured.kind
        kinds[kind if kind in KINDS else "weight"].append(_pair(pairing))
    return Chart(
        title,
        (
            tau + (f"; {left_out} at zero, not drawn" if left_out else ""),
            "bars: one standard error",
        ),
        x=Axis(f"measured {quantity.name}", quantity.unit, log=True),
        y=Axis(f"estimated {quantity.name}", quantity.unit, log=True),
        series=(
            Series("equal", equal, Look(colour=GREY), "straight", "dot", marks=False),
            *(Series(kind, tuple(points), KINDS[kind]) for kind, points in kinds.items()),
        ),
        height=500,
        width=5.2,
    )


def _prices(pairing: Pairing) -> tuple[float, float]:
    return pairing.measured.additive.value, pairing.taylor.additive.value


def _pair(pairing: Pairing) -> Point:
    row, estimate = pairing.measured, pairing.taylor.additive
    lines = (
        row.group,
        row.scheme,
        f"measured {plus_minus(row.additive)}",
        f"estimated {digits(estimate.value, 3)}",
    )
    errors = _positive(row.additive), _positive(estimate)
    return Point(*_prices(pairing), row.group, lines, x_error=errors[0], y_error=errors[1])


def _positive(value: Measured) -> Error:
    """An error bar that stays above zero, where a log axis ends."""
    return min(value.stderr, 0.99 * value.value), value.stderr
