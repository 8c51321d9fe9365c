"""results.json as a picture: ours beside theirs, and what remedies do."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import tables
from matplotlib.axes import Axes

from sensprobe.report.drawing.paper import SMALL, saved, sheet
from sensprobe.report.theme import BLUE, GREY, LIGHT, ORANGE, VERMILION


def draw(found: Mapping[str, Any]) -> bytes:
    """PNG: accuracy of every row on the left, its distance from the published one on the right."""
    rows = found["rows"]
    figure, left = sheet(10.4, 0.245 * len(rows) + 1.5, "A published table of an S4D, run again")
    left.set_position((0.0, 0.0, 0.58, 1.0))
    right = figure.add_axes((0.62, 0.0, 0.38, 1.0))
    for side in ("top", "right", "left"):
        right.spines[side].set_visible(False)
    right.spines["bottom"].set_color(LIGHT.faint)
    right.tick_params(colors=LIGHT.ink, labelsize=9, length=0)
    right.set_axisbelow(True)
    _levels(left, rows, found["full_precision"]["all"]["value"])
    _gaps(right, rows)
    for axes in (left, right):
        axes.set_ylim(len(rows) - 0.4, -0.6)
        axes.grid(axis="x", color=LIGHT.faint, linewidth=0.6)
        for k, row in enumerate(rows):
            if k and row["table"] != rows[k - 1]["table"]:
                axes.axhline(k - 0.5, color=LIGHT.faint, linewidth=0.8)
    left.set_yticks(range(len(rows)), [row["name"] for row in rows], fontsize=8)
    right.set_yticks([])
    return saved(figure)


def _levels(axes: Axes, rows: list[Any], full: float) -> None:
    where = range(len(rows))
    axes.axvline(full, color=GREY, linestyle="--", linewidth=1, label="full precision")
    axes.plot(
        [row["published"] for row in rows],
        where,
        "o",
        markersize=8,
        markerfacecolor="none",
        markeredgecolor=LIGHT.ink,
        label="published, 1,000 images",
    )
    axes.plot(
        [row["s16"]["value"] for row in rows], where, "D", markersize=4, color=ORANGE,
        label="ours, scales in 16 bits",
    )  # fmt: skip
    axes.plot(
        [row["s32"]["value"] for row in rows], where, "o", markersize=4, color=BLUE,
        label="ours, scales in 32 bits",
    )  # fmt: skip
    axes.plot(
        [row["all"]["value"] for row in rows], [k + 0.22 for k in where], "|", markersize=7,
        color=VERMILION, label="ours, all 10,000 images",
    )  # fmt: skip
    unstable = [k for k, row in enumerate(rows) if row["s32_bytes"]["max_abs_A"] > 1]
    for k in unstable:
        text = f"max|A| {rows[k]['s32_bytes']['max_abs_A']:.4f}"
        far = rows[k]["published"] > 60
        at = rows[k]["published"] + (-5 if far else 2)
        axes.text(at, k, text, ha="right" if far else "left", va="center", **SMALL)
    axes.set_xlabel("accuracy (%)", fontsize=9, color=LIGHT.ink)
    axes.legend(fontsize=8, frameon=False, loc="lower left", bbox_to_anchor=(0.08, 0.06))


def _gaps(axes: Axes, rows: list[Any]) -> None:
    axes.set_title(
        "ours less published (points); grey: the bar set for it",
        loc="left",
        fontsize=9,
        color=LIGHT.ink,
    )
    for k, row in enumerate(rows):
        axes.barh(k, 2 * row["bar"], left=-row["bar"], height=0.86, color=LIGHT.missing)
    for column, marker, colour in (("s16", "D", ORANGE), ("s32", "o", BLUE)):
        gaps = [tables.difference(row, column) for row in rows]
        axes.plot(gaps, range(len(rows)), marker, markersize=4, color=colour)
    widest = max(abs(tables.difference(row, c)) for row in rows for c in tables.COLUMNS)
    axes.set_xlim(-1.1 * max(widest, 3), 1.1 * max(widest, 3))
    axes.set_xlabel("points", fontsize=9, color=LIGHT.ink)
