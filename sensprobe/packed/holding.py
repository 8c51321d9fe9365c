"""What the streaming runtime holds of a plan, from shapes and schemes alone: no weights are needed.

Steps run from packed memory where kernels have a way for every site. Where one lacks, steps decode
weights as they go and every state is in float32, whatever its scheme: budgets must count that.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import torch

from sensprobe.errors import UnsupportedError
from sensprobe.export.tensors import layout
from sensprobe.models import Model
from sensprobe.numerics.taps import StaticScale
from sensprobe.packed.arena import Arena
from sensprobe.packed.program import compiled
from sensprobe.plans.cost import site_bytes
from sensprobe.plans.scheme import EXACT, Rounding, Scheme, scale_shape
from sensprobe.plans.sites import Kind, Site, group_pattern


def why_unpacked(model: Model, plan: Mapping[str, Scheme]) -> str:
    """Why steps under a resolved plan keep states in float32; "" where they run from packed memory.

    One thing is not known before calibration: a static range that leaves out 0, where every state
    starts, is refused when the model is loaded.
    """
    entries = layout(model.sites, plan)
    data = np.zeros(sum(entry.size_bytes for entry in entries.values()), np.uint8)
    places, tensors, at = {}, {}, 0
    for name, entry in entries.items():
        tensors[name] = torch.from_numpy(data[at : at + entry.size_bytes])
        places[name], at = at, at + entry.size_bytes
    arena = Arena(model.sites, dict(plan), data, places, tensors)
    scales = {n: _static(s, model.sites[n]) for n, s in plan.items() if s.scaled and not s.dynamic}
    try:
        return compiled(model, arena, scales, 1).no_steps
    except UnsupportedError as error:
        return str(error)


def _static(scheme: Scheme, site: Site) -> StaticScale:
    """Scales of the right shape, as calibration would find some."""
    shape = scale_shape(scheme, site)
    return torch.ones(shape), torch.zeros(shape) if scheme.asym else None


def unpacked_bytes(site: Site, scheme: Scheme = EXACT) -> tuple[int, int]:
    """`cost.site_bytes` of a runtime that keeps states, and residuals of feedback, in float32."""
    once, each = site_bytes(site, scheme)
    if site.kind is not Kind.STATE:
        return once, each
    return once, 4 * site.reals * (2 if scheme.rounding is Rounding.FEEDBACK else 1)


@dataclass
class Holding:
    """What the streaming runtime holds of plans of one model.

    A plan runs packed where each of its sites would alone, so every site and scheme is looked at
    once, in one layer for all.
    """

    model: Model
    _known: dict[tuple[str, Scheme], str] = field(default_factory=dict)
    _model_why: str | None = None

    @property
    def never(self) -> str:
        """Why no plan of the model runs packed; "" where some do."""
        if self._model_why is None:
            self._model_why = why_unpacked(self.model, {})
        return self._model_why

    def reasons(self, plan: Mapping[str, Scheme]) -> dict[str, str]:
        """Site -> why no kernel streams it in its scheme, of those in a plan."""
        found = {name: self._reason(self.model.sites[name], s) for name, s in plan.items()}
        return {name: why for name, why in found.items() if why}

    def why(self, plan: Mapping[str, Scheme]) -> str:
        """Why states are in float32 under a plan; "" where they are packed."""
        return self.never or next(iter(self.reasons(plan).values()), "")

    def state_bytes(self, plan: Mapping[str, Scheme]) -> int:
        """Bytes of one sequence's states between steps."""
        price = unpacked_bytes if self.why(plan) else site_bytes
        states = (s for s in self.model.sites.values() if s.kind is Kind.STATE)
        return sum(price(site, plan.get(site.name, EXACT))[1] for site in states)

    def _reason(self, site: Site, scheme: Scheme) -> str:
        key = group_pattern(site), scheme
        if key not in self._known:
            self._known[key] = "" if self.never else why_unpacked(self.model, {site.name: scheme})
        return self._known[key]
