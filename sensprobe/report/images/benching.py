"""How fast operations on packed memory ran, for print."""

from __future__ import annotations

from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

from sensprobe.report.bench_lines import COPY, TICKS, TORCH, Shown, across, drawn, lines_of, spread
from sensprobe.report.benches import BenchRun
from sensprobe.report.images.paper import nothing, png, printable, sheet
from sensprobe.report.theme import GREY, LIGHT, MARKERS, SERIES


def bandwidths(found: BenchRun) -> bytes:
    """The share of the bandwidth of copying that every operation reaches, with quartiles."""
    return _drawn(COPY, found)


def ratios(found: BenchRun) -> bytes:
    """How many times as fast as PyTorch's own every operation is, with quartiles."""
    return _drawn(TORCH, found)


def _drawn(shown: Shown, found: BenchRun) -> bytes:
    cases = drawn(shown, found)
    if not cases:
        return nothing(shown.title, "nothing of the kind was measured")
    lines = lines_of(cases)
    figure, axes = sheet(6.6, 1.2 + 0.24 * len(lines), f"{shown.title} ({found.title})")
    for k, shape in enumerate(dict.fromkeys(case.model for case in cases)):
        mine = [case for case in cases if case.model == shape]
        axes.errorbar(
            [shown.value(c) for c in mine],
            [lines[c.operation, c.scheme] for c in mine],
            xerr=spread(shown, mine),
            fmt=MARKERS[k % len(MARKERS)],
            markersize=5,
            color=SERIES[k % len(SERIES)],
            elinewidth=0.8,
            label=printable(shape, 30),
        )
    axes.axvline(shown.same, color=GREY, linestyle=":", linewidth=1.2, zorder=0)
    axes.set_yticks(list(lines.values()), [printable(scheme or op, 40) for op, scheme in lines])
    for text, (_, scheme) in zip(axes.get_yticklabels(), lines, strict=True):
        text.set_fontweight("normal" if scheme else "bold")
    axes.set_ylim(len(lines) - 0.5, -0.5)
    if shown.log:
        axes.set_xscale("log")
        axes.xaxis.set_major_locator(FixedLocator(TICKS))
        axes.xaxis.set_major_formatter(FuncFormatter(lambda x, _: f"{x:g}"))
        axes.xaxis.set_minor_locator(NullLocator())
    axes.set_xlim(*across(shown, cases))
    axes.grid(color=LIGHT.faint, linewidth=0.6)
    axes.set_xlabel(printable(shown.heading), fontsize=9, color=LIGHT.ink)
    axes.legend(loc="upper left", bbox_to_anchor=(1.01, 1.0), fontsize=8, frameon=False)
    return png(figure)
