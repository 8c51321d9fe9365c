"""`sensprobe program`: the streaming program of a model under a plan, as text."""

from __future__ import annotations

from sensprobe.packed.compile import compiled
from sensprobe.packed.holding import shapes_only
from sensprobe.packed.listing import listing
from sensprobe.packed.weights import PackedWeights
from sensprobe.plans.plan import Resolved
from sensprobe.session.source import Source


def program(source: Source, plan: Resolved, batch: int = 1) -> str:
    """The program of a step of `batch` sequences under a resolved plan, as `packed.listing` has it.

    Raises UnsupportedError, which names the site, for a plan that no kernel streams.
    """
    if source.artefact is not None:
        weights = PackedWeights.of(source.artefact.tensors, source.model.sites, plan)
        scales = weights.scales()
    else:
        weights, scales = shapes_only(source.model, plan)
    return listing(compiled(source.model, weights, scales, batch), source.model, weights)
