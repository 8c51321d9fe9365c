"""Taylor sensitivity: every target in every scheme from one forward and one backward pass.

Rounding moves the tensors of a target by Δ. To second order the full-precision output diverges by

    KL ≈ ½ E[⟨g, Δ⟩²],     g = gradient of -log p(y), y drawn from the model's own output

(the Fisher form: the gradient of the KL itself is zero at the baseline, and ⟨g, Δ⟩ without the
square cancels for a rounding of zero mean). g is taken per sample (see `gradients`), so Δ of an
activation is that sample's. A state is rounded at every step: its Δ_t is the rounding error of the
exact h_t, and ⟨g, Δ⟩ = Σ_t ⟨λ_t, Δ_t⟩ with the adjoint λ. Every h_t is known beforehand, so all
steps are rounded at once.

For regression, y is replaced by random signs over the outputs and the ½ falls away: what is
estimated is the mean squared change of the output. Error feedback and `every` are priced as
rounding at the steps they round; that feedback cancels errors later is not seen.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from sensprobe.apply import Applier
from sensprobe.evaluate.score import mean
from sensprobe.models import Model
from sensprobe.rounding import real_view
from sensprobe.scheme import Rounding, Scheme
from sensprobe.sensitivity.gradients import (
    Gradients,
    Trajectory,
    draw,
    exact_weights,
    gradients_of,
)
from sensprobe.sensitivity.measured import Sensitivity, pairs_of
from sensprobe.sensitivity.targets import Target
from sensprobe.sites import Kind
from sensprobe.storage import Rounded, fresh, store
from sensprobe.taps import RoundingTap

BATCH = 128
ROOM_BYTES = 2**26
"""What the trajectories of a batch may take; long sequences of many states go in smaller ones."""
CACHED = 2**15
"""Numbers rounded together: few enough for the cache, enough to hide the cost of a call."""

Key = tuple[str, Scheme]


def taylor(
    model: Model,
    applier: Applier,
    targets: Sequence[Target],
    schemes: Sequence[Scheme],
    x: Tensor,
    task: str,
    groups: np.ndarray | None = None,
    tick: Callable[[int], None] = lambda count: None,
) -> list[Sensitivity]:
    """Estimated divergence of every (target, scheme) that makes sense, over samples x (n, l, c).

    Scores are under "kl" (classification, nats) or "distance" (regression).
    """
    pairs = list(pairs_of(targets, schemes))
    keys = dict.fromkeys(key for _, _, fitted in pairs for key in fitted.items())
    taps = {(name, scheme): applier.tap({name: scheme}) for name, scheme in keys}
    inner = {key: np.zeros(len(x)) for key in taps}
    y, weights = draw(model, x, task), exact_weights(model)
    size = batch_size(model, x.shape[1])
    for first in range(0, len(x), size):
        here = slice(first, first + size)
        found = gradients_of(model, weights, x[here], y[here], task)
        for key, tap in taps.items():
            products = _inner_product(model, weights, found, key, tap.at(first))
            inner[key][here] = products.double().numpy()
        tick(len(x[here]))
    name, factor = ("kl", 0.5) if task == "classification" else ("distance", 1.0)
    out = []
    for target, scheme, fitted in pairs:
        total = np.sum([inner[key] for key in fitted.items()], axis=0)
        out.append(Sensitivity(target, scheme, fitted, {name: mean(factor * total**2, groups)}))
    return out


def batch_size(model: Model, length: int) -> int:
    """Samples whose trajectories fit in `ROOM_BYTES`."""
    states = sum(model.sites[r.state].reals for r in model.recurrences)
    return min(BATCH, max(1, ROOM_BYTES // (2 * 4 * states * length)))


@torch.no_grad()
def _inner_product(
    model: Model, weights: Mapping[str, Tensor], found: Gradients, key: Key, tap: RoundingTap
) -> Tensor:
    """⟨g, Δ⟩ of each sample (b,) for one site in one scheme."""
    site = model.sites[key[0]]
    if site.kind is Kind.STATE:
        storage = tap.storage(site)
        assert isinstance(storage, Rounded)
        return _state_product(found.trajectories[site.name], storage)
    gradient = real_view(found.gradients[site.name]).flatten(1)
    if site.kind is Kind.WEIGHT:
        delta = real_view(tap.weights[site.name]) - real_view(weights[site.name])
        return gradient @ delta.flatten()
    exact = found.values[site.name]
    return torch.linalg.vecdot((tap(site, exact) - exact).flatten(1), gradient)


def _state_product(path: Trajectory, storage: Rounded) -> Tensor:
    """Σ_t ⟨λ_t, Δ_t⟩ (b,), Δ_t what memory makes of the exact h_t."""
    every = storage.scheme.every
    states, adjoints = path.states[every - 1 :: every], path.adjoints[every - 1 :: every]
    count, batch = states.shape[:2]
    total = torch.zeros(batch)
    if storage.scheme.rounding is Rounding.STOCHASTIC:  # its noise is of a sequence and a step
        steps = 1
    else:
        steps = max(1, CACHED // (2 * states[0].numel()))
    for start in range(0, count, steps):
        part = slice(start, start + steps)
        new, pull = (torch.view_as_real(v[part]).flatten(0, 1) for v in (states, adjoints))
        memory = fresh(len(new), tuple(new.shape[1:]), storage)
        step = (start + 1) * every - 1
        kept = store(replace(memory, step=step), new, storage).state
        products = torch.linalg.vecdot((kept - new).flatten(1), pull.flatten(1))
        total += products.view(-1, batch).sum(0)
    return total
