"""The number of sequences that run together, and the tap that they run under."""

from __future__ import annotations

from collections.abc import Mapping

from sensprobe.models.apply import Applier
from sensprobe.models.crossbar import mounted
from sensprobe.models.noisy import noisy_tap
from sensprobe.numerics.noise import NoiseTap
from sensprobe.numerics.taps import EXACT, RoundingTap, Tap
from sensprobe.plans.noise import Draw
from sensprobe.plans.scheme import Scheme

BATCH = 128
"""Fixed: float sums may depend on the shape they are computed in."""


def tap_of(applier: Applier, plan: Mapping[str, Scheme], draw: Draw | None) -> Tap:
    """The tap of a resolved plan and, where one is given, a draw of noise; its matrices on the
    applier's crossbar, where it has one."""
    if draw is not None:
        return mounted(noisy_tap(applier, plan, draw), applier, plan, draw)
    return mounted(applier.tap(plan), applier, plan) if plan else EXACT


def placed(tap: Tap, first: int) -> Tap:
    """The tap for a batch whose first sequence is at a position of its split."""
    return tap.at(first) if isinstance(tap, RoundingTap | NoiseTap) else tap
