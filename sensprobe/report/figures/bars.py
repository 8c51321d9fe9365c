"""Which parts spend the bytes of a plan."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import plotly.graph_objects as go

from sensprobe.plans.sites import Site
from sensprobe.report import plans as plan_parts
from sensprobe.report.figures.style import empty, figure, label, whole
from sensprobe.report.results import Entries
from sensprobe.report.theme import LIGHT, Theme, part_colour
from sensprobe.report.values import byte_unit, in_bytes

NAMED = 0.05  # share of the longest bar from which a segment has room for its name


def bytes_by_part(
    plans: Mapping[str, Entries], sites: Sequence[Site], batch: int = 1, theme: Theme = LIGHT
) -> go.Figure:
    """One stacked bar a plan, one colour a part; the state, counted at the batch, is hatched."""
    title = "Which parts spend the bytes"
    spent = {
        name: plan_parts.bytes_by_part(entries, sites, batch) for name, entries in plans.items()
    }
    totals = {name: sum(part.total for part in parts) for name, parts in spent.items()}
    if not any(totals.values()):
        return empty(title, "no plan to show", theme)
    unit, size = byte_unit(totals.values())
    by_part = {name: {p.part: p.total for p in parts} for name, parts in spent.items()}
    parts = list(dict.fromkeys(part for column in by_part.values() for part in column))
    longest = max(totals.values())
    names = list(plans)
    traces = [_bar(part, names, by_part, size, longest) for part in parts]
    return figure(
        traces,
        title,
        theme,
        barmode="stack",
        xaxis={"title": {"text": f"weights and state at batch {batch} ({unit})"}},
        yaxis={
            "tickvals": list(range(len(names))),
            "ticktext": [f"{label(name)}<br>{in_bytes(totals[name])}" for name in names],
            "autorange": "reversed",
            "showgrid": False,
        },
        legend={"traceorder": "normal"},
        bargap=0.3,
        height=170 + 46 * max(len(names), 2),
    )


def _bar(
    part: str, names: list[str], by_part: dict[str, dict[str, int]], size: int, longest: int
) -> go.Bar:
    counts = [by_part[name].get(part, 0) for name in names]
    return go.Bar(
        x=[count / size for count in counts],
        y=list(range(len(names))),
        orientation="h",
        name=part,
        text=[part if count >= NAMED * longest else "" for count in counts],
        textposition="inside",
        insidetextanchor="middle",
        textangle=0,
        marker={
            "color": part_colour(part),
            "pattern": {
                "shape": "/" if part == "state" else "",
                "fillmode": "overlay",
                "fgcolor": "rgba(255, 255, 255, 0.45)",
                "size": 9,
            },
            "line": {"width": 0},
        },
        customdata=[
            [name, f"<b>{whole(name)}</b><br>{part} {in_bytes(count)}"]
            for name, count in zip(names, counts, strict=True)
        ],
        hovertemplate="%{customdata[1]}<extra></extra>",
    )
