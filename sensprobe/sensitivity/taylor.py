"""Taylor sensitivity: every target in every scheme from one forward and one backward pass.

Rounding moves the tensors of a target by Δ. To second order the full-precision output diverges by

    KL ≈ ½ E[⟨g, Δ⟩²],     g = gradient of -log p(y), y drawn from the model's own output

(the Fisher form: the gradient of the KL itself is zero at the baseline, and ⟨g, Δ⟩ without the
square cancels for a rounding of zero mean). g is taken per sample, so Δ of an activation is that
sample's. A state is rounded at every step: its Δ_t is the rounding error of the exact h_t, and its
gradient is the adjoint of the recurrence,

    λ_t = conj(A) λ_{t+1} + 2 conj(C) g_y,t        ⟨g, Δ⟩ = Σ_t ⟨λ_t, Δ_t⟩.

For regression, y is replaced by random signs over the outputs and the ½ falls away: what is
estimated is the mean squared change of the output. Error feedback and `every` are priced as
rounding at the steps they round; that feedback cancels errors later is not seen.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from sensprobe.apply import Applier
from sensprobe.evaluate.score import mean
from sensprobe.models import Model
from sensprobe.models.s4d import Recurrence
from sensprobe.rounding import real_view
from sensprobe.scheme import Scheme
from sensprobe.sensitivity.measured import Sensitivity, pairs_of
from sensprobe.sensitivity.targets import Target
from sensprobe.sites import Kind, Site
from sensprobe.storage import Rounded, Storage, fresh, store
from sensprobe.taps import EXACT, RoundingTap

BATCH = 16
SEED = 0
Tensors = dict[str, Tensor]


@dataclass(slots=True)
class _Leaves:
    """Adds a zero that gradients are taken of to every weight and activation, and keeps values."""

    weights: Mapping[str, Tensor]
    zeros: Mapping[str, Tensor]
    values: Tensors = field(default_factory=dict)

    def __call__(self, site: Site, x: Tensor) -> Tensor:
        if site.kind is Kind.WEIGHT:
            return self.weights[site.name]
        self.values[site.name] = x
        return x + self.zeros[site.name]

    def storage(self, site: Site) -> Storage:
        return None


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
    taps = {
        (name, scheme): applier.tap({name: scheme})
        for _, _, fitted in pairs
        for name, scheme in fitted.items()
    }
    parts: dict[tuple[str, Scheme], list[Tensor]] = {key: [] for key in taps}
    for first in range(0, len(x), BATCH):
        batch = x[first : first + BATCH]
        for key, products in _inner_products(model, taps, batch, task, first).items():
            parts[key].append(products)
        tick(len(batch))
    inner = {key: torch.cat(products).double().numpy() for key, products in parts.items()}
    name, factor = ("kl", 0.5) if task == "classification" else ("distance", 1.0)
    out = []
    for target, scheme, fitted in pairs:
        total = sum(inner[key] for key in fitted.items())
        out.append(Sensitivity(target, scheme, fitted, {name: mean(factor * total**2, groups)}))
    return out


def _inner_products(
    model: Model,
    taps: Mapping[tuple[str, Scheme], RoundingTap],
    x: Tensor,
    task: str,
    first: int,
) -> dict[tuple[str, Scheme], Tensor]:
    """⟨g, Δ⟩ of each sample (b,) for every site in every scheme."""
    weights = {
        name: EXACT(site, model.weights[name])
        for name, site in model.sites.items()
        if site.kind is Kind.WEIGHT
    }
    gradients, values = _gradients(model, weights, x, task, first)
    out: dict[tuple[str, Scheme], Tensor] = {}
    with torch.no_grad():
        for (name, scheme), tap in taps.items():
            site = model.sites[name]
            if site.kind is Kind.WEIGHT:
                delta = real_view(tap.weights[name]) - real_view(weights[name])
                out[name, scheme] = real_view(gradients[name]).flatten(1) @ delta.flatten()
            elif site.kind is Kind.ACTIVATION:
                rounded = tap.at(first)(site, values[name])
                out[name, scheme] = ((rounded - values[name]) * gradients[name]).flatten(1).sum(1)
        for recurrence in model.recurrences:
            wanted = {key: tap for key, tap in taps.items() if key[0] == recurrence.state}
            if wanted:
                out |= _state_products(model, recurrence, weights, gradients, values, wanted, first)
    return out


def _gradients(
    model: Model, weights: Tensors, x: Tensor, task: str, first: int
) -> tuple[Tensors, Tensors]:
    """Per-sample gradients of every weight and activation, and the activations' values."""
    with torch.no_grad():
        outputs = model(x, EXACT, mode="fft")
    signs = _draw(outputs, task, first)
    sites = [s for s in model.sites.values() if s.kind is Kind.ACTIVATION]
    sample = _Leaves(weights, {s.name: torch.zeros(()) for s in sites})
    with torch.no_grad():
        model(x[:1], sample, mode="traced")
    zeros = {name: torch.zeros_like(value) for name, value in sample.values.items()}

    def loss(weights: Tensors, zeros: Tensors, x: Tensor, y: Tensor) -> tuple[Tensor, Tensors]:
        leaves = _Leaves(weights, zeros)
        outputs = model(x[None], leaves, mode="traced")
        if task == "classification":
            return F.cross_entropy(outputs, y[None]), leaves.values
        return (outputs.flatten() * y).sum(), leaves.values

    per_sample = torch.func.vmap(
        torch.func.grad(loss, argnums=(0, 1), has_aux=True), in_dims=(None, None, 0, 0)
    )
    (of_weights, of_zeros), values = per_sample(weights, zeros, x, signs)
    squeeze = {name: g.squeeze(1) for name, g in of_zeros.items()}
    return {**of_weights, **squeeze}, {name: v.squeeze(1) for name, v in values.items()}


def _draw(outputs: Tensor, task: str, first: int) -> Tensor:
    """Labels from the model's own distribution, or signs / sqrt(outputs); seeded by position."""
    generator = torch.Generator().manual_seed(SEED + first)
    if task == "classification":
        return torch.multinomial(outputs.softmax(-1), 1, generator=generator).squeeze(1)
    signs = torch.randint(0, 2, outputs.shape, generator=generator) * 2.0 - 1
    return signs / outputs.shape[-1] ** 0.5


def _state_products(
    model: Model,
    recurrence: Recurrence,
    weights: Tensors,
    gradients: Tensors,
    values: Tensors,
    taps: Mapping[tuple[str, Scheme], RoundingTap],
    first: int,
) -> dict[tuple[str, Scheme], Tensor]:
    """Σ_t ⟨λ_t, Δ_t⟩ (b,) for one state in every scheme."""
    A, B, C = (weights[name] for name in (recurrence.A, recurrence.B, recurrence.C))
    u, g = values[recurrence.x], gradients[recurrence.y]  # (b, l, h)
    length = u.shape[1]
    adjoint = torch.empty(length, u.shape[0], *A.shape, dtype=A.dtype)
    running = torch.zeros(u.shape[0], *A.shape, dtype=A.dtype)
    for t in reversed(range(length)):
        running = A.conj() * running + 2 * C.conj() * g[:, t, :, None]
        adjoint[t] = running
    storages = {key: tap.at(first).storage(model.sites[key[0]]) for key, tap in taps.items()}
    sums = {key: torch.zeros(u.shape[0]) for key in taps}
    state = torch.zeros_like(running)
    for t in range(length):
        state = A * state + B * u[:, t, :, None]
        new, pull = torch.view_as_real(state), torch.view_as_real(adjoint[t])
        for key, storage in storages.items():
            sums[key] += ((_kept(new, storage, t) - new) * pull).flatten(1).sum(1)
    return sums


def _kept(new: Tensor, storage: Storage, t: int) -> Tensor:
    """The state as memory keeps it after step t, from an exact state."""
    assert isinstance(storage, Rounded)
    memory = fresh(new.shape[0], tuple(new.shape[1:]), storage)
    return store(type(memory)(new, memory.residual, t), new, storage).state
