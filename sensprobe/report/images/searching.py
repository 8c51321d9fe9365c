"""How a search went, for print."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from matplotlib.axes import Axes

from sensprobe.report.course import Course
from sensprobe.report.images.paper import note, nothing, png, printable, sheet
from sensprobe.report.theme import BLUE, GREEN, LIGHT


def convergence(course: Course) -> bytes:
    """Hypervolume of the front after each plan, as a share of the last."""
    title = "What each evaluation gained"
    if len(course.volume) < 2 or not course.volume[-1] > 0:
        return nothing(title, "nothing better than the reference was evaluated yet")
    figure, axes = sheet(6, 3.2, title)
    share = [100 * volume / course.volume[-1] for volume in course.volume]
    axes.step(range(1, len(share) + 1), share, where="post", color=BLUE, linewidth=1.4)
    axes.set_ylim(0, 104)
    _named(axes, "plans evaluated", "hypervolume (% of the last)")
    note(axes, [f"reference: {course.reference}"], 0.5)
    return png(figure)


def importances(shares: Mapping[str, float]) -> bytes:
    """Shares of the variance of the loss, the largest on top."""
    title = "Which multipliers matter"
    if not shares:
        return nothing(title, "too few proposals to tell")
    order = sorted(shares, key=lambda name: shares[name])
    figure, axes = sheet(6, 1.2 + 0.24 * len(order), title)
    axes.barh(
        [printable(name, 30) for name in order], [100 * shares[n] for n in order], color=GREEN
    )
    _named(axes, "share of the loss's variance that each explains (fANOVA, %)", "")
    return png(figure)


def durations(seconds: Sequence[float]) -> bytes:
    """Time of every evaluation in the order they were made."""
    title = "Time per evaluation"
    if not seconds:
        return nothing(title, "nothing was evaluated yet")
    figure, axes = sheet(6, 3.0, f"{title}: {sum(seconds):,.3g} s in all")
    axes.plot(range(1, len(seconds) + 1), seconds, "o", markersize=2.5, color=BLUE)
    axes.set_yscale("log")
    _named(axes, "evaluation", "seconds (log scale)")
    return png(figure)


def _named(axes: Axes, across: str, up: str) -> None:
    axes.grid(color=LIGHT.faint, linewidth=0.6)
    axes.set_xlabel(across, fontsize=9, color=LIGHT.ink)
    axes.set_ylabel(up, fontsize=9, color=LIGHT.ink)
