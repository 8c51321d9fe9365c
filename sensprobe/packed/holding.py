"""The bytes that a plan's states take while a model streams, from shapes and schemes alone.

Steps run on packed states where kernels run every site in its scheme. Where one does not, every
state is in float32, whatever its scheme, and budgets must count that.
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
from sensprobe.packed.compile import compiled
from sensprobe.packed.weights import PackedWeights
from sensprobe.plans.cost import site_bytes
from sensprobe.plans.scheme import EXACT, Rounding, Scheme, scale_shape
from sensprobe.plans.sites import Kind, Site, group_pattern


def why_unpacked(model: Model, plan: Mapping[str, Scheme]) -> str:
    """The reason that steps under a resolved plan keep states in float32; "" where they are packed.

    One reason is not known before calibration: a static range that does not contain 0, where every
    state starts, is refused when the model is loaded.
    """
    weights, scales = shapes_only(model, plan)
    try:
        return compiled(model, weights, scales, 1).no_steps
    except UnsupportedError as error:
        return str(error)


def shapes_only(
    model: Model, plan: Mapping[str, Scheme]
) -> tuple[PackedWeights, dict[str, StaticScale]]:
    """Packed weights, all zeros, and static scales of a resolved plan, where only their places and
    shapes matter."""
    entries = layout(model.sites, plan)
    data = np.zeros(sum(entry.size_bytes for entry in entries.values()), np.uint8)
    places, tensors, at = {}, {}, 0
    for name, entry in entries.items():
        tensors[name] = torch.from_numpy(data[at : at + entry.size_bytes])
        places[name], at = at, at + entry.size_bytes
    weights = PackedWeights(model.sites, dict(plan), data, places, tensors)
    scales = {n: _static(s, model.sites[n]) for n, s in plan.items() if s.scaled and not s.dynamic}
    return weights, scales


def _static(scheme: Scheme, site: Site) -> StaticScale:
    """Scales of the right shape, as calibration would find some."""
    shape = scale_shape(scheme, site)
    return torch.ones(shape), torch.zeros(shape) if scheme.asym else None


def unpacked_bytes(site: Site, scheme: Scheme = EXACT) -> tuple[int, int]:
    """`cost.site_bytes` of a runtime that keeps states and residuals of feedback in float32."""
    once, each = site_bytes(site, scheme)
    if site.kind is not Kind.STATE:
        return once, each
    return once, 4 * site.reals * (2 if scheme.rounding is Rounding.FEEDBACK else 1)


@dataclass
class Holding:
    """The state bytes of plans of one model, and why they are not packed where they are not.

    A plan runs packed where each of its sites does alone, so every pair of a site and a scheme is
    tried once, in one layer for all layers.
    """

    model: Model
    _known: dict[tuple[str, Scheme], str] = field(default_factory=dict)
    _model_why: str | None = None

    @property
    def never(self) -> str:
        """The reason that no plan of the model runs packed; "" where some do."""
        if self._model_why is None:
            self._model_why = why_unpacked(self.model, {})
        return self._model_why

    def reasons(self, plan: Mapping[str, Scheme]) -> dict[str, str]:
        """The sites of a plan that no kernel streams in their schemes, each with the reason."""
        found = {name: self._reason(self.model.sites[name], s) for name, s in plan.items()}
        return {name: why for name, why in found.items() if why}

    def why(self, plan: Mapping[str, Scheme]) -> str:
        """The reason that states are in float32 under a plan; "" where they are packed."""
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
