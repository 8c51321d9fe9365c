"""Sensitivities on a grid, and how dark each cell is: shared by the screen's and the paper's maps.

Losses span decades, so colour grows with the logarithm beyond the typical error bar, zero in the
middle. What the error bar does not tell from zero has the colour of zero.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from math import copysign, floor, inf, isfinite, isnan, log10, nan
from statistics import median

from sensprobe.report.plans import OUTSIDE
from sensprobe.report.results import Row, Sensitivity
from sensprobe.report.values import (
    NOISE,
    UNSTABLE,
    Measured,
    Quantity,
    digits,
    level_text,
    plus_minus,
    short,
)

DECADES = 5  # how far below the largest value a one-sided scale still tells values apart


@dataclass(frozen=True, slots=True)
class Grid:
    """Cells with names down and across; None where nothing was measured."""

    down: tuple[str, ...]
    across: tuple[str, ...]
    cells: tuple[tuple[Row | None, ...], ...]
    down_title: str
    across_title: str

    @property
    def measured(self) -> bool:
        """Whether any cell holds something."""
        return any(True for _ in self.rows())

    def rows(self) -> Iterable[Row]:
        return (row for line in self.cells for row in line if row is not None)


def by_scheme(found: Sensitivity) -> Grid:
    """Targets down, schemes across."""
    grid, schemes = found.grid, found.schemes
    cells = tuple(tuple(grid.get((t, s)) for s in schemes) for t in found.targets)
    return Grid(tuple(found.targets), schemes, cells, found.by, "scheme")


def harshest(found: Sensitivity) -> str:
    """The scheme under which the targets lose most, added up."""
    lost = dict.fromkeys(found.schemes, 0.0)
    for row in found.rows:
        if isfinite(row.additive.value):
            lost[row.scheme] = lost.get(row.scheme, 0.0) + row.additive.value
    return max(lost, key=lambda scheme: lost[scheme])


def by_layer(found: Sensitivity, scheme: str) -> Grid:
    """Layers down, names within a layer across, in one scheme; what is in no layer comes last."""
    rows = {(_layer(row), _inner(row)): row for row in found.rows if row.scheme == scheme}
    layers = sorted({layer for layer, _ in rows if layer != OUTSIDE}, key=int)
    layers += [OUTSIDE] if any(layer == OUTSIDE for layer, _ in rows) else []
    inner = tuple(dict.fromkeys(name for _, name in rows))
    cells = tuple(tuple(rows.get((layer, name)) for name in inner) for layer in layers)
    return Grid(tuple(layers), inner, cells, "layer", "part")


def _layer(row: Row) -> str:
    return OUTSIDE if row.layer is None else str(row.layer)


def _inner(row: Row) -> str:
    """`layers.3.out_proj` -> `out_proj`."""
    return row.target if row.layer is None else row.target.split(".", 2)[-1]


def map_title(found: Sensitivity, of: str, what: str) -> str:
    """What a map shows: "Change of accuracy by part and scheme"."""
    name = found.quantity(of).name
    subject = f"Change of {name}" if of == "metric" else name[:1].upper() + name[1:]
    estimated = ", estimated" if found.method == "taylor" else ""
    return f"{subject} by {what}{estimated}"


def shown(row: Row, quantity: Quantity, of: str) -> Measured:
    """The observation a map is about, in the shown unit."""
    return quantity.shown(row.change if of == "metric" else row.additive)


@dataclass(frozen=True, slots=True)
class Shading:
    """Maps shown values to a colour's place between -limit and limit (or 0 and limit)."""

    linear: float  # below it colour grows in proportion, above it with the logarithm
    limit: float
    diverging: bool
    worse: int  # the sign of a value that is worse

    def place(self, value: Measured) -> float:
        """NaN where nothing is known; 0 for noise."""
        if not value.known:
            return nan
        return self._place(value.value) if value.differs else 0.0

    def _place(self, value: float) -> float:
        if not self.diverging:
            value = max(value, 0.0)
        if not isfinite(value):
            return copysign(self.limit, value)
        place = copysign(log10(1 + abs(value) / self.linear), value)
        return max(-self.limit, min(self.limit, place))

    def ticks(self) -> list[tuple[float, str]]:
        """Places of round values along the colour bar, and their names."""
        largest = self.linear * (10**self.limit - 1)
        first = floor(log10(self.linear))
        steps = [m * 10.0**k for k in range(first, first + 12) for m in (1, 3)]
        reach = [s for s in steps if self.linear * 0.9 <= s <= largest * 1.001]
        reach = reach[:: 2 if len(reach) > 6 else 1]
        both = [-s for s in reversed(reach)] if self.diverging else []
        values = [*both, 0.0, *reach]
        return [(self._place(v), digits(v, 1, signed=self.diverging)) for v in values]


def shading(found: Sensitivity, of: str) -> Shading:
    """The shading of every map of a profile: one colour means one value in all of them."""
    quantity = found.quantity(of)
    values = [shown(row, quantity, of) for row in found.rows]
    sizes = [abs(v.value) for v in values if isfinite(v.value) and v.differs and v.value != 0]
    errors = [v.stderr for v in values if isfinite(v.stderr) and v.stderr > 0]
    largest = max(sizes, default=0.0)
    if of == "metric":
        linear = median(errors) if errors else largest / 100
    else:
        linear = max(largest / 10.0**DECADES, quantity.floor)
    linear = linear if linear > 0 and not isnan(linear) else 1.0
    limit = log10(1 + largest / linear) if 0 < largest < inf else 1.0
    return Shading(linear, limit, of == "metric", -quantity.sign)


def cell_text(row: Row | None, quantity: Quantity, of: str) -> str:
    """What a small cell says: the value's digits, a dot for noise, nothing where nothing is."""
    if row is None:
        return ""
    value = shown(row, quantity, of)
    if not value.known:
        return ""
    if not value.differs:
        return NOISE
    text = short(value, signed=True) if of == "metric" else level_text(quantity, value, bars=False)
    return f"{text} {UNSTABLE}" if row.unstable else text


def bars_text(row: Row, quantity: Quantity, of: str) -> str:
    """Value and error bar."""
    value = shown(row, quantity, of)
    return plus_minus(value, signed=True) if of == "metric" else level_text(quantity, value)
