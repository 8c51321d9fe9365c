"""What each state variable of a time-invariant model is worth: the price of taking it away.

Without mode n, y loses what C_n reads of it: as far as the outputs go, C_n becomes 0. To second
order they diverge by ½ E[⟨g, Δ⟩²] with Δ = -C_n and g the gradient of a sample (see `taylor`), so
one backward pass a sample prices every mode alone. Prices do not add up where modes make up for one
another.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from sensprobe.models import Model
from sensprobe.models.family import Pruning
from sensprobe.numerics.rounding import real_view
from sensprobe.numerics.taps import EXACT
from sensprobe.plans.sites import Part, Site
from sensprobe.sensitivity.gradients import pull


@dataclass(frozen=True, slots=True)
class _Reading:
    """The exact tap, with leaves of a graph for every C."""

    C: dict[str, Tensor]

    def __call__(self, site: Site, x: Tensor) -> Tensor:
        return self.C[site.name] if site.name in self.C else EXACT(site, x)

    def storage(self, site: Site) -> None:
        return None


def mode_prices(
    model: Model,
    pruning: Pruning,
    x: Tensor,
    task: str,
    tick: Callable[[int], None] = lambda count: None,
) -> list[Tensor]:
    """The price of every state variable of every layer: (rows, n) float64, as A has them.

    x: samples (n, l, c). Prices are nats of divergence, of a regression the mean squared change.
    """
    sites = [s for s in model.sites.values() if s.part is Part.C]
    leaves = {s.name: EXACT(s, model.weights[s.name]).clone().requires_grad_() for s in sites}
    total: list[Tensor | float] = [0.0] * len(sites)
    factor = 1.0 if task == "regression" else 0.5
    for k, sample in enumerate(x):
        outputs = model(sample[None], _Reading(leaves), mode=model.described.exact_mode)
        pulled = (outputs * pull(outputs.detach(), task, k)).sum()
        gradients = torch.autograd.grad(pulled, [*leaves.values()])
        for i, (C, g) in enumerate(zip(leaves.values(), gradients, strict=True)):
            product = (real_view(C.detach()) * real_view(g)).double()
            share = pruning.shares(product, model.config)
            total[i] = total[i] + factor / len(x) * share.square()
        tick(1)
    return [torch.as_tensor(one) for one in total]
