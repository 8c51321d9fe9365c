"""What every evaluation shares: how many sequences run together, and how stable a plan is."""

from __future__ import annotations

from collections.abc import Mapping

from sensprobe.apply import Applier
from sensprobe.models import Model
from sensprobe.scheme import Scheme
from sensprobe.sites import Part
from sensprobe.taps import EXACT

BATCH = 128
"""Sequences run together. Fixed: float sums may depend on the shape they are computed in."""


def radius(model: Model, applier: Applier, plan: Mapping[str, Scheme]) -> float:
    """max |A| as the plan stores it, uncalibrated; above 1 the recurrence is unstable."""
    stored = {name: s for name, s in plan.items() if model.sites[name].part is Part.A}
    return model.spectral_radius(applier.tap(stored) if stored else EXACT)
