"""Gradients of each sample's own outputs, of everything at once: weights, activations, recurrences.

What is differentiated is ⟨v, outputs⟩ with a random v a sample whose second moment is the metric of
the output space (`pull`). Weights and activations come from autograd: each sample gets its own copy
of every weight, so that one backward pass over a batch keeps samples apart.

A recurrence is linear in its drive, so what any rounding inside it does to the outputs goes through
its y alone: ⟨gradient of y, change of y⟩. For A, B and C that is ⟨gradient of K, change of K⟩ with
the kernel K of y_t = Σ_l K_l x_{t-l}: h·l numbers a sample, where a gradient of every state would
be h·n·l.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor

from sensprobe.models import Model
from sensprobe.models.framed import columns
from sensprobe.numerics.philox import key_of, noise_like
from sensprobe.numerics.storage import Storage
from sensprobe.numerics.taps import EXACT
from sensprobe.ops.convolution import fft_length
from sensprobe.plans.sites import Kind, Site

SEED = 0
Tensors = dict[str, Tensor]
Shapes = dict[str, torch.Size]


@dataclass(frozen=True, slots=True)
class Gradients:
    """Gradients of one batch, by site, the sample first.

    `gradients`: of weights outside recurrences (b, …) and of activations, (b, l, …) or pooled;
    `values`: of activations; `kernels`: by state, of its recurrence's kernel (b, k, l).
    """

    gradients: Tensors
    values: Tensors
    kernels: Tensors


def exact_weights(model: Model) -> Tensors:
    """The weights as full precision runs them."""
    return {
        name: EXACT(site, model.weights[name])
        for name, site in model.sites.items()
        if site.kind is Kind.WEIGHT
    }


def pull(outputs: Tensor, task: str, first: int) -> Tensor:
    """Random v, of unit variance in the metric of the outputs (b, o), or (b, l, o) at every step.

    Classification: E[v vᵀ] = diag(p) - p pᵀ, the Fisher information of the logits, as v = S r with
    S = diag(√p) - p √pᵀ and random signs r. A drawn label, v = e_y - p, has the same second moment,
    but is heavy-tailed where the model is sure: nearly all of its square rests on rare labels.
    Regression: v = r / √o, at every step r / √(l o). r depends on a sample's position alone;
    `first` is the first one's.
    """
    signs = 2 * (noise_like(outputs, key_of(SEED, "pull"), first) < 0.5).to(outputs.dtype) - 1
    if task != "classification":
        return signs / outputs.shape[1:].numel() ** 0.5
    p = outputs.softmax(-1)
    v = p.sqrt() * signs
    return v - p * v.sum(-1, keepdim=True)


def activation_shapes(model: Model, weights: Tensors, x: Tensor) -> Shapes:
    """Shape (1, …) of every activation of one sequence as long as those of x (n, l, c)."""
    names = [s.name for s in model.sites.values() if s.kind is Kind.ACTIVATION]
    leaves = _Leaves(weights, dict.fromkeys(names, torch.zeros(())))
    with torch.no_grad():
        model(x[:1], leaves, mode="traced")
    return {name: value.shape for name, value in leaves.values.items()}


def gradients_of(
    model: Model, weights: Tensors, shapes: Shapes, x: Tensor, task: str, first: int
) -> Gradients:
    """Gradients of x (b, l, c), whose first sample is at position `first` of the data."""
    inside = {name for r in model.recurrences for name in (r.A, r.B, r.C)}
    copies = {
        name: w.expand(len(x), *w.shape).contiguous().requires_grad_()
        for name, w in weights.items()
        if name not in inside
    }
    zeros = {name: torch.zeros(len(x), *s, requires_grad=True) for name, s in shapes.items()}

    def run(own: Tensors, zeros: Tensors, x: Tensor) -> tuple[Tensor, Tensors]:
        leaves = _Leaves({**weights, **own}, zeros)
        return model(x[None], leaves, mode="traced").squeeze(0), leaves.values

    outputs, values = torch.vmap(run)(copies, zeros, x)
    leaves = {**copies, **zeros}
    pulled = (outputs * pull(outputs.detach(), task, first)).sum()
    found = dict(zip(leaves, torch.autograd.grad(pulled, [*leaves.values()]), strict=True))
    found |= {name: found[name].squeeze(1) for name in zeros}
    values = {name: value.detach().squeeze(1) for name, value in values.items()}
    kernels = {
        r.state: _correlate(columns(found[r.y], r.heads), columns(values[r.x], r.heads))
        for r in model.recurrences
    }
    return Gradients(found, values, kernels)


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


def _correlate(g: Tensor, u: Tensor) -> Tensor:
    """Σ_t g_t u_{t-k} for every lag k: (b, h, l) from g, u (b, l, h)."""
    length = u.shape[1]
    size = fft_length(2 * length - 1)
    G, U = (torch.fft.rfft(v.transpose(1, 2), n=size) for v in (g, u))
    return torch.fft.irfft(G * U.conj(), n=size)[..., :length]
