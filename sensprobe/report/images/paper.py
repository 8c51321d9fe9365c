"""What every printed figure has in common."""

from __future__ import annotations

import io
from functools import cache
from pathlib import Path
from typing import Any

from matplotlib import get_data_path
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ft2font import FT2Font
from matplotlib.ticker import FixedFormatter, FixedLocator, NullLocator

from sensprobe.report.theme import LIGHT
from sensprobe.report.values import byte_ticks, shortened

DPI = 200
SMALL: dict[str, Any] = {"fontsize": 8, "color": LIGHT.ink}


@cache
def _letters() -> frozenset[int]:
    path = Path(get_data_path()) / "fonts" / "ttf" / "DejaVuSans.ttf"
    return frozenset(FT2Font(str(path)).get_charmap())


def printable(text: str, width: int = 200) -> str:
    """One line as matplotlib may draw it: short, no mathematics, no letter without a shape."""
    kept = "".join(c if ord(c) in _letters() else "□" for c in shortened(text, width))
    return kept.replace("$", r"\$")


def png(figure: Figure) -> bytes:
    """The figure as a PNG file, cropped to what is drawn."""
    FigureCanvasAgg(figure)
    out = io.BytesIO()
    figure.savefig(
        out,
        format="png",
        dpi=DPI,
        facecolor=LIGHT.paper,
        bbox_inches="tight",
        metadata={"Software": "sensprobe"},
    )
    return out.getvalue()


def sheet(width: float, height: float, title: str) -> tuple[Figure, Axes]:
    """A figure of so many inches with one pair of axes under a title."""
    figure = Figure(figsize=(width, height), facecolor=LIGHT.paper)
    axes = figure.add_subplot()
    axes.set_title(printable(title), loc="left", fontsize=11, color=LIGHT.ink, pad=10)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    for side in ("left", "bottom"):
        axes.spines[side].set_color(LIGHT.faint)
    axes.tick_params(colors=LIGHT.ink, labelsize=9, length=0)
    axes.set_axisbelow(True)
    return figure, axes


def nothing(title: str, why: str) -> bytes:
    """A picture that says why there is nothing to see."""
    figure, axes = sheet(6, 1.6, title)
    axes.axis("off")
    axes.text(0.5, 0.4, printable(why), ha="center", color=LIGHT.ink, transform=axes.transAxes)
    return png(figure)


def note(axes: Axes, lines: list[str], below_inches: float) -> None:
    """Small print under the axes, `below_inches` below their lower edge."""
    height = axes.figure.get_size_inches()[1] * axes.get_position().height  # type: ignore[union-attr]
    text = "\n".join(printable(line) for line in lines)
    axes.text(0, -below_inches / height, text, va="top", transform=axes.transAxes, **SMALL)


def byte_axis(axes: Axes, low: float, high: float) -> str:
    """Makes x a log axis of bytes; the unit its ticks are named in."""
    unit, ticks = byte_ticks(low, high)
    axes.set_xscale("log")
    axes.set_xlim(low, high)
    axes.xaxis.set_major_locator(FixedLocator([size for size, _ in ticks]))
    axes.xaxis.set_major_formatter(FixedFormatter([name for _, name in ticks]))
    axes.xaxis.set_minor_locator(NullLocator())
    return unit
