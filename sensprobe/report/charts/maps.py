"""Heat maps: sensitivity by part and scheme or by layer and part, and the bits of a plan.

Losses span decades, so colour grows with the logarithm beyond the typical error bar, zero in the
middle. What the error bar does not tell from zero has the colour of zero.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import copysign, floor, inf, isfinite, isnan, log10, nan
from statistics import median

from sensprobe.plans.plan import diff
from sensprobe.plans.scheme import parse
from sensprobe.plans.sites import Site
from sensprobe.report.charts.chart import Axis, Cell, Cells, Chart, Tick, named_rows, nothing
from sensprobe.report.editing import bits_of, cells_of, site_name
from sensprobe.report.plans import EXACT_TEXT, OUTSIDE, place_of, resolved
from sensprobe.report.results import Entries, Row, Sensitivity
from sensprobe.report.tables import worst
from sensprobe.report.values import (
    NOISE,
    UNSTABLE,
    Measured,
    digits,
    flagged,
    in_bytes,
    shortened,
)

DECADES = 5  # how far below the largest value a one-sided scale still tells values apart
FEWEST_BITS, FULL_BITS = 2.0, 16.0
"""Bits at the ends of the colour scale; from the larger on a cell looks like full precision."""
Grid = Sequence[Sequence[Row | None]]


def heat_map(
    found: Sensitivity, of: str = "metric", most: int = 60, *, every: bool = False
) -> Chart:
    """Groups down, the `most` worst where there are more (of `every` group, or of what a search
    changes), and schemes across. `of`: "metric" (change to full precision) or "additive"."""
    kept, note = worst(found, of, most, every=every)
    grid = kept.grid
    rows = [[grid.get((group, scheme)) for scheme in found.schemes] for group in kept.groups]
    what = f"{found.by} and scheme{f', {note}' if note else ''}"
    return _map(found, of, what, kept.groups, found.schemes, rows)


def layer_map(found: Sensitivity, scheme: str, of: str = "metric") -> Chart:
    """Every site of a profile by site, in one scheme: layers down, names within a layer across;
    what is in no layer comes last."""
    rows = {place_of(row.group): row for row in found.rows if row.scheme == scheme}
    layers = sorted(
        {layer for layer, _ in rows}, key=lambda name: inf if name == OUTSIDE else int(name)
    )
    across = list(dict.fromkeys(name for _, name in rows))
    grid = [[rows.get((layer, name)) for name in across] for layer in layers]
    return _map(found, of, f"layer and part, {scheme}", layers, across, grid)


def harshest(found: Sensitivity) -> str:
    """The scheme under which the groups lose most, added up."""
    lost = dict.fromkeys(found.schemes, 0.0)
    for row in found.rows:
        if isfinite(row.additive.value):
            lost[row.scheme] = lost.get(row.scheme, 0.0) + row.additive.value
    return max(lost, key=lambda scheme: lost[scheme], default="")


def _map(
    found: Sensitivity, of: str, what: str, down: Sequence[str], across: Sequence[str], grid: Grid
) -> Chart:
    name = found.quantity(of).name
    subject = f"Change of {name}" if of == "metric" else name[:1].upper() + name[1:]
    title = f"{subject} by {what}{', estimated' if found.method == 'taylor' else ''}"
    if not any(row for line in grid for row in line):
        return nothing(title, "nothing was measured")
    shades = shading(found, of)
    cells = tuple(
        tuple(_cell(found, row, of, shades) if row else None for row in line) for line in grid
    )
    return _heat(
        Chart(
            title,
            (
                f"{found.method}, {found.n:,} {found.split} samples; ± one standard error",
                f"{NOISE} within 1.96 standard errors of zero: no difference; "
                f"{UNSTABLE} {found.radius_name} above 1: unstable",
            ),
            cells=Cells(
                cells,
                -shades.limit if shades.diverging else 0.0,
                shades.limit,
                "diverging" if shades.diverging else "sequential",
                reverse=shades.diverging and shades.worse > 0,
                heading=found.heading(of),
                ticks=shades.ticks(),
            ),
        ),
        down,
        [_stacked(name) for name in across],
    )


def _heat(chart: Chart, down: Sequence[str], across: Sequence[str]) -> Chart:
    """A heat map with names down and across."""
    names = tuple(Tick(k, name) for k, name in enumerate(across))
    return replace(
        chart,
        x=Axis(ticks=names, ends=(-0.5, len(across) - 0.5), grid=False),
        y=replace(named_rows(down), ends=(len(down) - 0.5, -0.5)),
        height=240 + 25 * max(len(down), 4),
    )


def _stacked(name: str) -> str:
    """A long scheme on two lines, broken at its first slash."""
    head, slash, after = name.partition("/")
    if len(name) <= 14 or not slash:
        return shortened(name, 20)
    return f"{shortened(head + slash, 20)}\n{shortened(after, 20)}"


def _cell(found: Sensitivity, row: Row, of: str, shades: Shading) -> Cell:
    value = found.shown(row, of)
    text, mark = "", f"{UNSTABLE} " if row.unstable else ""
    if value.known:
        text = mark + flagged(found.text(row, of), value)
    short = f"{found.text(row, of, bars=False)} {mark}".rstrip() if value.differs else NOISE
    return Cell(
        shades.place(value), short if value.known else "", text, row.group, _about(found, row),
        faint=not value.differs,
    )  # fmt: skip


def _about(found: Sensitivity, row: Row) -> tuple[str, ...]:
    """Everything known of one observation, a line each."""
    lines = [row.group, f"scheme {row.scheme}"]
    if row.applied and row.applied != (row.scheme,):
        lines.append(f"applied {', '.join(row.applied)}")
    if row.change.known:
        lines.append(f"{found.metric.change_heading} {found.metric.change(row.change)}")
    if row.additive.known:
        lines.append(f"{found.additive.heading} {found.text(row, 'additive')}")
    lines.append(f"n {found.n:,} in {found.clusters:,} clusters")
    if not isnan(row.radius):
        unstable = " (unstable)" if row.unstable else ""
        lines.append(f"{found.radius_name} {digits(row.radius, 5)}{unstable}")
    if row.kind != "activation":
        lines.append(f"weights {in_bytes(row.weight_bytes)}, state {in_bytes(row.state_bytes)}")
    return tuple(lines)


@dataclass(frozen=True, slots=True)
class Shading:
    """Maps shown values to a colour's place between -limit and limit (or 0 and limit)."""

    linear: float  # below it colour grows in proportion, above it with the logarithm
    limit: float
    diverging: bool
    worse: int  # the sign of a value that is worse

    def place(self, value: Measured) -> float:
        """The place of a value; NaN where nothing is known, 0 for noise."""
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

    def ticks(self) -> tuple[Tick, ...]:
        """Places of round values along the colour bar, and their names."""
        largest = self.linear * (10**self.limit - 1)
        first = floor(log10(self.linear))
        steps = [m * 10.0**k for k in range(first, first + 12) for m in (1, 3)]
        reach = [s for s in steps if self.linear * 0.9 <= s <= largest * 1.001]
        reach = reach[:: 2 if len(reach) > 6 else 1]
        both = [-s for s in reversed(reach)] if self.diverging else []
        values = [*both, 0.0, *reach]
        return tuple(Tick(self._place(v), digits(v, 1, signed=self.diverging)) for v in values)


def shading(found: Sensitivity, of: str) -> Shading:
    """The shading of every map of a profile: one colour means one value in all of them."""
    quantity = found.quantity(of)
    values = [found.shown(row, of) for row in found.rows]
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


def plan_grid(
    entries: Entries,
    sites: Sequence[Site],
    title: str = "Bits by layer and part",
    before: Entries | None = None,
) -> Chart:
    """Bits of a plan: layers down, names within a layer across; what is in no layer has a row of
    its own, first. The name of a cell is its site. Cells that were other `before` are framed."""
    if not sites:
        return nothing(title, "this run did not keep the model's sites")
    layers, across, schemes = cells_of(entries, sites)
    kinds = {site.name: site.kind.value for site in sites}
    old = {} if before is None else diff(resolved(before, sites), resolved(entries, sites))
    caption = "bits a value, scales apart; a dot stands for full precision"

    def cell(site: str, text: str | None) -> Cell | None:
        if text is None:
            return None
        bits = NOISE if text == EXACT_TEXT else f"{parse(text).bits_per_real:g}"
        place = min(max(bits_of(text), FEWEST_BITS), FULL_BITS)
        about = (site, kinds[site], text, *(f"before {old[site][0]}" for _ in range(site in old)))
        return Cell(place, bits, bits, site, about, framed=site in old)

    rows = tuple(
        tuple(cell(site_name(layer, name), text) for name, text in zip(across, line, strict=True))
        for layer, line in zip(layers, schemes, strict=True)
    )
    return _heat(
        Chart(
            title,
            (f"{caption}; framed: changed" if old else caption,),
            cells=Cells(rows, FEWEST_BITS, FULL_BITS, "sequential", reverse=True, heading="bits"),
        ),
        ["no layer" if layer == OUTSIDE else f"layer {layer}" for layer in layers],
        [shortened(name, 20) for name in across],
    )
