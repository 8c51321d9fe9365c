"""results.json as pictures: what is sensitive, and searched plans beside presets."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from matplotlib.axes import Axes
from plans import STUDY

from sensprobe.report.drawing.paper import saved, sheet
from sensprobe.report.theme import BLUE, GREY, LIGHT, VERMILION, part_colour

LANGUAGE = [name for name in STUDY["models"] if name != "har"]
SURE = 1.96
LEAST = 1e-4
"""Bits a byte below which a loss is drawn at the edge."""


def pictures(found: Mapping[str, Any]) -> dict[str, bytes]:
    """File name -> PNG."""
    return {"parts.png": _parts(found), "searched.png": _searched(found)}


def _parts(found: Mapping[str, Any]) -> bytes:
    """KL of each part alone at 8 and 4 bits, a panel a language model."""
    figure, first = sheet(11.5, 6.2, "Each part alone, one static scale a tensor")
    first.set_position((0.0, 0.0, 0.42, 1.0))
    second = figure.add_axes((0.58, 0.0, 0.42, 1.0))
    for axes, name in zip((first, second), LANGUAGE, strict=True):
        rows = [r for r in found[name] if r["section"] == "alone"]
        parts = list(dict.fromkeys(r["part"] for r in rows))
        for r in rows:
            low = r["bits"] == min(STUDY["alone"]["bits"])
            value = max(r["kl"]["value"], 1e-6)
            axes.plot(
                [value],
                [parts.index(r["part"])],
                "o",
                markersize=6,
                color=part_colour(r["part"]),
                markerfacecolor=part_colour(r["part"]) if low else "none",
            )
        _plain(axes)
        axes.set_xscale("log")
        axes.set_yticks(range(len(parts)), parts)
        axes.set_ylim(len(parts) - 0.5, -0.5)
        axes.grid(axis="both", color=LIGHT.faint, linewidth=0.5)
        axes.set_xlabel(f"{name}: KL, nats a token (hollow: 8 bits, filled: 4)", fontsize=9)
    return saved(figure)


def _searched(found: Mapping[str, Any]) -> bytes:
    """Loss against bytes, a panel a model and batch."""
    every = STUDY["search"]["batches"]
    panels = [
        (name, batch) for name in LANGUAGE for batch in STUDY["models"][name].get("batches", every)
    ]
    figure, first = sheet(
        11.5, 6.5, "Searched plans and known recipes at equal bytes, unseen novels"
    )
    first.set_position((0.0, 0.58, 0.44, 0.42))
    places = [(0.56, 0.58), (0.0, 0.0), (0.56, 0.0)][: len(panels) - 1]
    rest = [figure.add_axes((x, y, 0.44, 0.42)) for x, y in places]
    for axes, (name, batch) in zip([first, *rest], panels, strict=True):
        rows = [r for r in found[f"{name} searched"] if r["batch"] == batch]
        _line(axes, rows, "searched", BLUE, "searched plan", "o-")
        rows = [r for r in rows if r["preset"]]
        _line(axes, rows, "preset_loss", VERMILION, "known recipe", "s")
        for r in rows:
            where = (r["budget"] / 2**20, max(r["preset_loss"]["value"], LEAST))
            axes.annotate(
                r["preset"], where, xytext=(5, 4), textcoords="offset points", fontsize=7,
                color=GREY,
            )  # fmt: skip
        _plain(axes)
        axes.set_yscale("log")
        axes.grid(color=LIGHT.faint, linewidth=0.5)
        axes.set_xlabel(f"{name}, batch {batch}: MiB of weights and state", fontsize=9)
        axes.set_ylabel("bits a byte lost", fontsize=9, color=LIGHT.ink)
        axes.legend(fontsize=8, frameon=False, loc="lower left")
    return saved(figure)


def _line(axes: Axes, rows: list[Any], key: str, colour: str, label: str, look: str) -> None:
    axes.errorbar(
        [r["budget" if key == "preset_loss" else "bytes"] / 2**20 for r in rows],
        [max(r[key]["value"], LEAST) for r in rows],
        yerr=[SURE * r[key]["stderr"] for r in rows],
        fmt=look,
        markersize=5,
        linewidth=1,
        color=colour,
        label=label,
    )


def _plain(axes: Axes) -> None:
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    for side in ("left", "bottom"):
        axes.spines[side].set_color(LIGHT.faint)
    axes.tick_params(colors=LIGHT.ink, labelsize=8, length=0)
