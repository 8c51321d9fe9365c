"""results.json as a picture: each thing alone, and the choices of the quantizer."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from plans import STUDY

from sensprobe.report.drawing.paper import saved, sheet
from sensprobe.report.theme import BLUE, GREEN, GREY, LIGHT, VERMILION, part_colour

LOOKS = {
    "A": (part_colour("A"), "o", "-"),
    "B": (part_colour("B"), "s", "-"),
    "C": (part_colour("C"), "^", "-"),
    "D": (part_colour("D"), "v", "-"),
    "other weights": (part_colour("out_proj"), "P", "-"),
    "state, static": (part_colour("state"), "D", "-"),
    "state, dynamic": (part_colour("state"), "D", "--"),
    "activations, static": (GREY, "X", "-"),
    "activations, dynamic": (GREY, "X", "--"),
}
VERDICTS = {"holds": BLUE, "reversed": VERMILION, "noise": GREY}


def draw(found: Mapping[str, Any]) -> bytes:
    """PNG: accuracy by bits on the left; each finding's paired difference on the right."""
    figure, left = sheet(11.5, 4.6, "Rounded alone (hollow: published)")
    left.set_position((0.0, 0.0, 0.4, 1.0))
    _alone(left, found)
    _findings(_second(figure), found["findings"])
    return saved(figure)


def _second(figure: Figure) -> Axes:
    axes = figure.add_axes((0.66, 0.0, 0.34, 1.0))
    for side in ("top", "right", "left"):
        axes.spines[side].set_visible(False)
    axes.spines["bottom"].set_color(LIGHT.faint)
    axes.tick_params(colors=LIGHT.ink, labelsize=8, length=0)
    axes.set_axisbelow(True)
    return axes


def _alone(axes: Axes, found: Mapping[str, Any]) -> None:
    widths = STUDY["alone"]["bits"]
    rows = {(r["thing"], r["bits"]): r for r in found["small"] if r["section"] == "alone"}
    axes.axhline(found["small"][0]["value"], color=GREY, linewidth=1, linestyle=":")
    for k, thing in enumerate(STUDY["alone"]["things"]):
        name = thing["name"]
        colour, marker, line = LOOKS[name]
        shift = 0.05 * (k - 4)
        where = [place + shift for place in range(len(widths))]
        mine = [rows[name, bits] for bits in widths]
        axes.errorbar(
            where,
            [r["value"] for r in mine],
            yerr=[1.96 * r["stderr"] for r in mine],
            color=colour,
            marker=marker,
            markersize=4,
            linestyle=line,
            linewidth=1,
            label=name,
        )
        theirs = thing["published"]
        axes.plot(
            where[: len(theirs)],
            theirs,
            marker,
            markersize=8,
            markerfacecolor="none",
            markeredgecolor=colour,
            linestyle="none",
        )
    axes.set_xticks(range(len(widths)), [f"{bits} bits" for bits in widths])
    axes.set_ylim(0, 102)
    axes.grid(axis="y", color=LIGHT.faint, linewidth=0.6)
    axes.set_ylabel("accuracy (%), 10,000 images", fontsize=9, color=LIGHT.ink)
    axes.legend(fontsize=7, frameon=False, loc="upper left", bbox_to_anchor=(0.0, -0.08), ncols=3)


def _findings(axes: Axes, findings: list[Any]) -> None:
    axes.set_title(
        "What the paper finds, tested on ours (points, 95 %)",
        loc="left",
        fontsize=11,
        color=LIGHT.ink,
        pad=10,
    )
    axes.axvline(0, color=LIGHT.ink, linewidth=0.8)
    for verdict, colour in VERDICTS.items():
        mine = [(k, f) for k, f in enumerate(findings) if f["verdict"] == verdict]
        if mine:
            axes.errorbar(
                [f["difference"]["value"] for _, f in mine],
                [k for k, _ in mine],
                xerr=[1.96 * f["difference"]["stderr"] for _, f in mine],
                fmt="o",
                markersize=4,
                color=colour,
                label=verdict,
            )
    theirs = [(k, f["published"]) for k, f in enumerate(findings) if f["published"]]
    axes.plot(
        [better - worse for _, (worse, better) in theirs],
        [k for k, _ in theirs],
        "o",
        markersize=8,
        markerfacecolor="none",
        markeredgecolor=GREEN,
        linestyle="none",
        label="published",
    )
    axes.set_yticks(range(len(findings)), [_name(f) for f in findings])
    axes.set_ylim(len(findings) - 0.5, -0.6)
    axes.grid(axis="x", color=LIGHT.faint, linewidth=0.6)
    axes.legend(fontsize=8, frameon=False, loc="lower right")


def _name(finding: Mapping[str, Any]) -> str:
    if "sensitive" in finding["claim"]:
        return f"{finding['where']}, {finding['bits']} bits"
    short = finding["claim"].replace(" better than ", " over ")
    return f"{short}: {finding['where']}, {finding['bits']} bits"
