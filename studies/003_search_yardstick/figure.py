"""The curves as a picture, in the house style."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from matplotlib.axes import Axes
from replay import Curve

from sensprobe.report.images.paper import SMALL, png, sheet
from sensprobe.report.theme import LIGHT, SERIES

NAMES = {
    "gains": "gains (ours)",
    "direct": "direct (ours)",
    "tpe": "raw TPE",
    "nsga2": "raw NSGA-II, population 10",
    "random": "random",
}


def curves(found: Mapping[str, np.ndarray], bar: float, beneath: float = 0.6) -> bytes:
    """Missing share of the true hypervolume, log scale; lines are medians, bands the quartiles."""
    figure, axes = sheet(7.4, 4.6, "How much of the true front is still missing")
    evaluations = np.arange(next(iter(found.values())).shape[1])
    for (name, values), colour in zip(found.items(), SERIES, strict=False):
        _band(axes, evaluations, 100 * (1 - values), colour, NAMES[name])
    axes.axhline(100 * (1 - bar), color=LIGHT.ink, linewidth=1, linestyle="--", zorder=1)
    axes.annotate(
        f"{100 * bar:g} % found",
        (evaluations[-1], 100 * (1 - bar)),
        xytext=(-2, 3),
        textcoords="offset points",
        ha="right",
        **SMALL,
    )
    axes.set_yscale("log")
    axes.set_xlim(0, evaluations[-1])
    axes.set_ylim(beneath * 100 * (1 - max(0.999, bar)), 100)
    axes.set_yticks([0.1, 1, 10, 100], ["0.1", "1", "10", "100"])
    axes.grid(color=LIGHT.faint, linewidth=0.6)
    small = {"fontsize": 9, "color": LIGHT.ink}
    axes.set_xlabel("evaluations spent, sensitivities and baseline counted in", **small)
    axes.set_ylabel("% of the true hypervolume missing (log scale)", **small)
    legend = axes.legend(loc="lower left", fontsize=8, frameon=True, edgecolor=LIGHT.faint)
    legend.get_frame().set_linewidth(0.6)
    return png(figure)


def _band(axes: Axes, at: np.ndarray, missing: Curve, colour: str, name: str) -> None:
    low, middle, high = np.quantile(missing, [0.25, 0.5, 0.75], axis=0)
    axes.step(at, middle, where="post", color=colour, linewidth=1.6, label=name, zorder=3)
    axes.fill_between(at, low, high, step="post", color=colour, alpha=0.15, linewidth=0, zorder=2)
