"""Cheap sensitivities against measured ones, for print."""

from __future__ import annotations

from math import isfinite, nan

from sensprobe.report.agreement import Agreement, Pairing
from sensprobe.report.images.paper import SMALL, nothing, png, printable, sheet
from sensprobe.report.theme import BLUE, GREEN, GREY, LIGHT, VERMILION
from sensprobe.report.values import KL, Measured, Quantity, plus_minus

LOOKS = {"weight": ("o", BLUE), "state": ("D", VERMILION), "activation": ("s", GREEN)}


def agreement_scatter(found: Agreement, quantity: Quantity = KL) -> bytes:
    """Every target and scheme priced both ways, on log axes; on the line both say the same."""
    title = "Cheap against measured sensitivity"
    drawn = [p for p in found.pairings if _drawable(p)]
    if not drawn:
        return nothing(title, "no target was priced both ways")
    figure, axes = sheet(5.2, 4.4, title)
    tau = f"Kendall τ {plus_minus(found.overall)}, {found.overall.n} observations"
    axes.text(0.03, 0.7, printable(tau), transform=axes.transAxes, **SMALL)
    axes.set_xscale("log")
    axes.set_yscale("log")
    values = [v for p in drawn for v in (p.measured.additive.value, p.taylor.additive.value)]
    ends = [min(values), max(values)]
    axes.plot(ends, ends, color=GREY, linewidth=1, linestyle=":", label="equal")
    for kind, (marker, colour) in LOOKS.items():
        mine = [p for p in drawn if p.measured.kind == kind]
        if mine:
            axes.errorbar(
                [p.measured.additive.value for p in mine],
                [p.taylor.additive.value for p in mine],
                xerr=[_bar(p.measured.additive) for p in mine],
                yerr=[_bar(p.taylor.additive) for p in mine],
                fmt=marker,
                markersize=5,
                color=colour,
                elinewidth=0.7,
                label=kind,
            )
    axes.grid(color=LIGHT.faint, linewidth=0.6)
    axes.set_xlabel(printable(f"measured {quantity.heading}"), fontsize=9, color=LIGHT.ink)
    estimated = f"estimated from one gradient, {quantity.heading}"
    axes.set_ylabel(printable(estimated), fontsize=9, color=LIGHT.ink)
    axes.legend(fontsize=8, frameon=False)
    return png(figure)


def _drawable(pairing: Pairing) -> bool:
    values = (pairing.measured.additive.value, pairing.taylor.additive.value)
    return all(isfinite(value) and value > 0 for value in values)


def _bar(value: Measured) -> float:
    """An error bar that stays above zero, where a log axis ends."""
    return min(value.stderr, 0.99 * value.value) if isfinite(value.stderr) else nan
