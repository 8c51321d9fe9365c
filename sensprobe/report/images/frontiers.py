"""Score against bytes, for print."""

from __future__ import annotations

from dataclasses import dataclass
from math import isfinite, nan

from matplotlib.axes import Axes

from sensprobe.report.images.paper import SMALL, byte_axis, nothing, png, printable, sheet
from sensprobe.report.results import Beside, Candidate, Search
from sensprobe.report.tables import CHOSEN, DOMINATED, FRONT, UNIFORM, symbol, thinned
from sensprobe.report.theme import BLUE, GREEN, GREY, LIGHT, ORANGE, VERMILION
from sensprobe.report.values import plus_minus


@dataclass(frozen=True, slots=True)
class Look:
    name: str
    marker: str
    size: float
    colour: str


LOOKS = {
    DOMINATED: Look("dominated", "o", 3.2, GREY),
    FRONT: Look("front", "o", 5.5, BLUE),
    UNIFORM: Look("uniform", "D", 6.5, ORANGE),
    CHOSEN: Look("chosen", "*", 13, GREEN),
}


def frontier(search: Search) -> bytes:
    """Bytes on a log axis, error bars of one standard error, full precision as a band."""
    title = f"What {search.quantity.name} the memory buys"
    plotted = [c for c in search.candidates if c.total_bytes > 0 and isfinite(c.metric.value)]
    if not plotted:
        return nothing(title, "no plan was evaluated")
    figure, axes = sheet(7.4, 4.6, title)
    beside = [b for b in search.also if b.total_bytes > 0 and isfinite(b.metric.value)]
    sizes = [c.total_bytes for c in plotted] + [b.total_bytes for b in beside]
    low, high = min(sizes), max(*sizes, search.full_bytes, 1.3 * min(sizes))
    unit = byte_axis(axes, low / 1.08, high * 1.08)
    axes.grid(color=LIGHT.faint, linewidth=0.6)
    _full_precision(axes, search)
    _steps(axes, search, plotted)
    for mark in LOOKS:
        _marks(axes, mark, [c for c in plotted if symbol(c, search) == mark], search)
    _recipes(axes, beside, search)
    batch = f"weights and state at batch {search.batch}"
    axes.set_xlabel(f"{batch} ({unit}, log scale)", fontsize=9, color=LIGHT.ink)
    where = f"on {search.n:,} {search.split} samples"
    axes.set_ylabel(printable(f"{search.quantity.heading} {where}"), fontsize=9, color=LIGHT.ink)
    legend = axes.legend(loc="lower right", fontsize=8, frameon=True, edgecolor=LIGHT.faint)
    legend.get_frame().set_linewidth(0.6)
    return png(figure)


def _full_precision(axes: Axes, search: Search) -> None:
    full = search.quantity.shown(search.full)
    if not isfinite(full.value):
        return
    name = f"full precision {plus_minus(full)} {search.quantity.unit}".rstrip()
    axes.axhline(
        full.value, color=GREY, linewidth=1, linestyle="--", label=printable(name), zorder=1
    )
    if isfinite(full.stderr):
        low, high = full.value - full.stderr, full.value + full.stderr
        axes.axhspan(low, high, color=GREY, alpha=0.18, linewidth=0, zorder=0)


def _steps(axes: Axes, search: Search, plotted: list[Candidate]) -> None:
    front = sorted((c for c in plotted if c.on_front), key=lambda c: c.total_bytes)
    levels = [search.quantity.scale * c.metric.value for c in front]
    axes.step(
        [c.total_bytes for c in front], levels, where="post", color=BLUE, linewidth=1, zorder=2
    )


def _marks(axes: Axes, mark: str, found: list[Candidate], search: Search) -> None:
    if not found:
        return
    look, faint = LOOKS[mark], mark == DOMINATED
    drawn = thinned(found) if faint else found
    values = [search.quantity.shown(c.metric) for c in drawn]
    axes.errorbar(
        [c.total_bytes for c in drawn],
        [v.value for v in values],
        yerr=None if faint else [v.stderr if isfinite(v.stderr) else nan for v in values],
        fmt=look.marker,
        markersize=look.size,
        color=look.colour,
        markeredgecolor=look.colour if faint else LIGHT.paper,
        markeredgewidth=0.6,
        elinewidth=0.9,
        alpha=0.4 if faint else 1.0,
        label=look.name,
        zorder=3 if faint else 4 + list(LOOKS).index(mark),
    )
    largest = max(c.total_bytes for c in drawn)
    for c, value in zip(drawn, values, strict=True):
        _label(axes, mark, c, value.value, search, last=c.total_bytes == largest)


def _recipes(axes: Axes, found: list[Beside], search: Search) -> None:
    """Plans measured beside the search, by their names."""
    if not found:
        return
    values = [search.quantity.shown(b.metric) for b in found]
    axes.errorbar(
        [b.total_bytes for b in found],
        [v.value for v in values],
        yerr=[v.stderr if isfinite(v.stderr) else nan for v in values],
        fmt="s",
        markersize=6,
        color=VERMILION,
        markeredgecolor=LIGHT.paper,
        markeredgewidth=0.6,
        elinewidth=0.9,
        label="known recipe",
        zorder=8,
    )
    for b, value in zip(found, values, strict=True):
        axes.annotate(
            printable(b.name, 16),
            (b.total_bytes, value.value),
            xytext=(0, -13),
            textcoords="offset points",
            ha="center",
            zorder=9,
            **SMALL,
        )


def _label(axes: Axes, mark: str, c: Candidate, level: float, search: Search, last: bool) -> None:
    if mark == CHOSEN:
        text = ", ".join(search.picks.get(c.name, ()))
        offset, side = ((8, 7), "left") if last else ((-8, 7), "right")
    elif mark == UNIFORM:
        text, offset, side = (c.uniform or "").split("/")[0], (7, -9), "left"
    else:
        return
    axes.annotate(
        printable(text, 30),
        (c.total_bytes, level),
        xytext=offset,
        textcoords="offset points",
        ha=side,
        zorder=9,
        **SMALL,
    )
