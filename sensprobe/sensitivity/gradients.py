"""Gradients of each sample's own loss: of weights, of activations, of the state at every step.

Weights and activations come from autograd: each sample gets its own copy of every weight, so that
one backward pass over a batch keeps samples apart. What lies inside a recurrence comes from its
adjoint instead, which is needed for the state anyway:

    h_t = A h_{t-1} + B u_t,   y_t = 2 Re(C h_t)        g = gradient of y
    λ_t = conj(A) λ_{t+1} + 2 conj(C) g_t                gradient of h_t
    A: Σ_t λ_t conj(h_{t-1})   B: Σ_t λ_t u_t   C: Σ_t 2 g_t conj(h_t)

A gradient z of a complex number stands for the inner product Re(z) Re(Δ) + Im(z) Im(Δ).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from torch import Tensor

from sensprobe.models import Model
from sensprobe.models.s4d import Recurrence
from sensprobe.sites import Kind, Site
from sensprobe.storage import Storage
from sensprobe.taps import EXACT

DRAW = 16
"""Samples whose labels are drawn together, so that a label depends on its position alone."""
SEED = 0
Tensors = dict[str, Tensor]


@dataclass(frozen=True, slots=True)
class Trajectory:
    """A recurrence over a batch, exact: h_t and λ_t, each (l, b, h, n) complex."""

    states: Tensor
    adjoints: Tensor


@dataclass(frozen=True, slots=True)
class Gradients:
    """Of one batch. By site: gradients with the sample first (b, …), values of activations
    (b, …), and the trajectory of each state."""

    gradients: Tensors
    values: Tensors
    trajectories: dict[str, Trajectory]


def draw(model: Model, x: Tensor, task: str) -> Tensor:
    """What each sample's loss is taken against: labels drawn from the model's own distribution
    (n,), or random signs / sqrt(outputs) (n, outputs) for regression."""
    drawn = []
    for first in range(0, len(x), DRAW):
        with torch.no_grad():
            outputs = model(x[first : first + DRAW], EXACT, mode="fft")
        generator = torch.Generator().manual_seed(SEED + first)
        if task == "classification":
            drawn.append(torch.multinomial(outputs.softmax(-1), 1, generator=generator).squeeze(1))
        else:
            signs = torch.randint(0, 2, outputs.shape, generator=generator) * 2.0 - 1
            drawn.append(signs / outputs.shape[-1] ** 0.5)
    return torch.cat(drawn)


def exact_weights(model: Model) -> Tensors:
    """The weights as full precision runs them."""
    return {
        name: EXACT(site, model.weights[name])
        for name, site in model.sites.items()
        if site.kind is Kind.WEIGHT
    }


def gradients_of(model: Model, weights: Tensors, x: Tensor, y: Tensor, task: str) -> Gradients:
    """Gradients of the losses of x (b, l, c) against what was drawn for them."""
    inside = {name for r in model.recurrences for name in (r.A, r.B, r.C)}
    copies = {
        name: w.expand(len(x), *w.shape).contiguous().requires_grad_()
        for name, w in weights.items()
        if name not in inside
    }
    zeros = _zeros(model, weights, x)

    def loss(own: Tensors, zeros: Tensors, x: Tensor, y: Tensor) -> tuple[Tensor, Tensors]:
        leaves = _Leaves({**weights, **own}, zeros)
        outputs = model(x[None], leaves, mode="traced")
        if task == "classification":
            return F.cross_entropy(outputs, y[None]), leaves.values
        return (outputs.flatten() * y).sum(), leaves.values

    losses, values = torch.vmap(loss)(copies, zeros, x, y)
    leaves = {**copies, **zeros}
    found = torch.autograd.grad(losses.sum(), list(leaves.values()))
    gradients = dict(zip(leaves, found, strict=True))
    gradients |= {name: gradients[name].squeeze(1) for name in zeros}
    values = {name: v.detach().squeeze(1) for name, v in values.items()}
    trajectories = {}
    for r in model.recurrences:
        trajectories[r.state] = _trajectory(r, weights, values[r.x], gradients[r.y])
        gradients |= _inside(r, trajectories[r.state], values[r.x], gradients[r.y])
    return Gradients(gradients, values, trajectories)


@dataclass(slots=True)
class _Leaves:
    """Adds a zero that gradients are taken of to every activation, and keeps the values."""

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


def _zeros(model: Model, weights: Tensors, x: Tensor) -> Tensors:
    """A zero for every activation of every sample: (b, 1, …)."""
    names = [s.name for s in model.sites.values() if s.kind is Kind.ACTIVATION]
    leaves = _Leaves(weights, dict.fromkeys(names, torch.zeros(())))
    with torch.no_grad():
        model(x[:1], leaves, mode="traced")
    return {
        name: torch.zeros(len(x), *value.shape, requires_grad=True)
        for name, value in leaves.values.items()
    }


def _trajectory(r: Recurrence, weights: Tensors, u: Tensor, g: Tensor) -> Trajectory:
    """The exact states and their adjoints. u, g: (b, l, h)."""
    A, B, C = (weights[name] for name in (r.A, r.B, r.C))
    states = B * u.transpose(0, 1)[..., None]  # (l, b, h, n)
    adjoints = 2 * C.conj() * g.transpose(0, 1)[..., None]
    for t in range(1, len(states)):
        states[t].addcmul_(A, states[t - 1])
    back = A.conj().resolve_conj()
    for t in reversed(range(len(adjoints) - 1)):
        adjoints[t].addcmul_(back, adjoints[t + 1])
    return Trajectory(states, adjoints)


def _inside(r: Recurrence, path: Trajectory, u: Tensor, g: Tensor) -> Tensors:
    """Gradients of A, B and C, (b, h, n)."""
    u, g = (v.transpose(0, 1)[..., None] for v in (u, g))  # (l, b, h, 1)
    return {
        r.A: (path.adjoints[1:] * path.states[:-1].conj()).sum(0),
        r.B: (path.adjoints * u).sum(0),
        r.C: 2 * (path.states.conj() * g).sum(0),
    }
