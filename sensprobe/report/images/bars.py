"""Bytes by part, for print."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from matplotlib.colors import to_rgb

from sensprobe.plans.sites import Site
from sensprobe.report import plans as plan_parts
from sensprobe.report.images.paper import nothing, png, printable, sheet
from sensprobe.report.results import Entries
from sensprobe.report.theme import LIGHT, part_colour
from sensprobe.report.values import byte_unit, in_bytes

NAMED = 0.05  # share of the longest bar from which a segment has room for its name


def bytes_by_part(plans: Mapping[str, Entries], sites: Sequence[Site], batch: int = 1) -> bytes:
    """One stacked bar a plan, one colour a part; the state, counted at the batch, is hatched."""
    title = "Which parts spend the bytes"
    spent = {
        name: plan_parts.bytes_by_part(entries, sites, batch) for name, entries in plans.items()
    }
    totals = {name: sum(part.total for part in parts) for name, parts in spent.items()}
    if not any(totals.values()):
        return nothing(title, "no plan to show")
    unit, size = byte_unit(totals.values())
    figure, axes = sheet(7.4, 1.5 + 0.55 * len(plans), title)
    longest, named = max(totals.values()), set[str]()
    for k, parts in enumerate(spent.values()):
        left = 0.0
        for part in parts:
            colour = part_colour(part.part)
            axes.barh(
                k,
                part.total / size,
                left=left,
                height=0.62,
                color=colour,
                edgecolor=LIGHT.paper,
                linewidth=0.8,
                hatch="////" if part.part == "state" else None,
                label=None if part.part in named else part.part,
            )
            if part.total >= NAMED * longest:
                middle = left + part.total / size / 2
                ink = LIGHT.ink if _bright(colour) else LIGHT.paper
                box = {"facecolor": colour, "edgecolor": "none", "pad": 1.2}
                axes.text(
                    middle, k, part.part, ha="center", va="center", fontsize=8, color=ink, bbox=box
                )
            named.add(part.part)
            left += part.total / size
    names = [f"{printable(name, 30)}\n{in_bytes(totals[name])}" for name in plans]
    axes.set_yticks(range(len(names)), names)
    axes.invert_yaxis()
    axes.grid(axis="x", color=LIGHT.faint, linewidth=0.6)
    axes.set_xlabel(f"weights and state at batch {batch} ({unit})", fontsize=9, color=LIGHT.ink)
    axes.legend(loc="upper left", bbox_to_anchor=(1.01, 1.0), fontsize=8, frameon=False)
    return png(figure)


def _bright(colour: str) -> bool:
    red, green, blue = to_rgb(colour)
    return 0.299 * red + 0.587 * green + 0.114 * blue > 0.55
