"""The curves as a picture, in the house style."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from matplotlib.axes import Axes

from sensprobe.report.drawing.paper import SMALL, saved, sheet
from sensprobe.report.theme import LIGHT, SERIES

NAMES = {
    "gains": "gains (sensprobe)",
    "gains, 8 workers": "gains, 8 plans at a time",
    "direct": "direct (sensprobe)",
    "tpe": "Optuna's TPE as it comes",
    "nsga2": "Optuna's NSGA-II, population 10",
    "random": "random",
}
FLOOR = 0.01  # % missing where the axis ends


def curves(quartiles: Mapping[str, np.ndarray], bar: float) -> bytes:
    """Missing share of the true hypervolume, log scale; lines are medians, bands the quartiles.

    `quartiles`: method -> (evaluations + 1, 3) fractions of the true hypervolume found.
    """
    figure, axes = sheet(7.4, 4.6, "How much of the true front is still missing")
    last = len(next(iter(quartiles.values()))) - 1
    for (name, values), colour in zip(quartiles.items(), SERIES, strict=False):
        _band(axes, np.maximum(100 * (1 - values), FLOOR), colour, NAMES[name])
    axes.axhline(100 * (1 - bar), color=LIGHT.ink, linewidth=1, linestyle="--", zorder=1)
    place = {"xytext": (2, 3), "textcoords": "offset points", **SMALL}
    axes.annotate(f"{100 * bar:g} % found", (0, 100 * (1 - bar)), **place)
    axes.set_yscale("log")
    axes.set_xlim(0, last)
    axes.set_ylim(FLOOR, 100)
    axes.set_yticks([0.01, 0.1, 1, 10, 100], ["0.01", "0.1", "1", "10", "100"])
    axes.tick_params(which="minor", length=0)
    axes.grid(color=LIGHT.faint, linewidth=0.6)
    small = {"fontsize": 9, "color": LIGHT.ink}
    axes.set_xlabel("evaluations spent, sensitivities and baseline counted in", **small)
    axes.set_ylabel("% of the true hypervolume missing (log scale)", **small)
    legend = axes.legend(loc="lower left", fontsize=8, frameon=True, edgecolor=LIGHT.faint)
    legend.get_frame().set_linewidth(0.6)
    return saved(figure)


def _band(axes: Axes, missing: np.ndarray, colour: str, name: str) -> None:
    low, middle, high = missing.T
    at = np.arange(len(missing))
    axes.step(at, middle, where="post", color=colour, linewidth=1.6, label=name, zorder=3)
    axes.fill_between(at, low, high, step="post", color=colour, alpha=0.15, linewidth=0, zorder=2)
