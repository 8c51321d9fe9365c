"""The bytes that each part of a model takes under a plan."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from sensprobe.plans.sites import Site
from sensprobe.report import plans as plan_parts
from sensprobe.report.charts.chart import LABEL, Axis, Bar, Bars, Chart, Tick, nothing
from sensprobe.report.results import Entries
from sensprobe.report.theme import part_colour
from sensprobe.report.values import byte_unit, in_bytes, shortened

NAMED = 0.05  # share of the longest bar from which a segment has room for its name


def bytes_by_part(plans: Mapping[str, Entries], sites: Sequence[Site], batch: int = 1) -> Chart:
    """One stacked bar a plan, one colour a part; the state, counted at the batch, is hatched."""
    title = "Which parts spend the bytes"
    spent = {
        name: {part.part: part.total for part in plan_parts.bytes_by_part(entries, sites, batch)}
        for name, entries in plans.items()
    }
    totals = {name: sum(parts.values()) for name, parts in spent.items()}
    longest = max(totals.values(), default=0)
    if not longest:
        return nothing(title, "no plan to show")
    unit, size = byte_unit(totals.values())

    def bar(plan: str, part: str) -> Bar:
        count = spent[plan].get(part, 0)
        label = part if count >= NAMED * longest else ""
        return Bar(count / size, plan, (plan, f"{part} {in_bytes(count)}"), label)

    ticks = tuple(
        Tick(k, f"{shortened(plan, LABEL)}\n{in_bytes(total)}")
        for k, (plan, total) in enumerate(totals.items())
    )
    return Chart(
        title,
        x=Axis(f"weights and state at batch {batch}", unit),
        y=Axis(ticks=ticks, ends=(len(ticks) - 0.5, -0.5), grid=False),
        bars=tuple(
            Bars(
                part,
                tuple(bar(plan, part) for plan in spent),
                part_colour(part),
                part.endswith("state"),
            )
            for part in dict.fromkeys(part for parts in spent.values() for part in parts)
        ),
        height=170 + 46 * max(len(plans), 2),
    )
