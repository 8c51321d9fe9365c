"""Taylor sensitivity: every group in every scheme from one forward and one backward pass.

Rounding moves a tensor by Δ. To second order the full-precision output diverges by

    KL ≈ ½ E[⟨g, Δ⟩²],     g = gradient of ⟨v, logits⟩, E[v vᵀ] the Fisher information

(the gradient of the KL itself is zero at the baseline, and ⟨g, Δ⟩ without the square cancels for a
rounding of zero mean). g is taken per sample (see `gradients`), so Δ of an activation is that
sample's. For regression v vᵀ is the identity over the number of outputs in the mean and the ½ falls
away: what is estimated is the mean squared change of the output.

What is rounded inside a recurrence is priced at its output y. Of a state that is the recurrence run
again from the same x with the state in its scheme: each step's rounding error Δ_t reaches y through
exact steps, so that with the adjoint λ_t = conj(A) λ_{t+1} + 2 conj(C) g_t

    ⟨g, change of y⟩ = Σ_t ⟨λ_t, Δ_t⟩

holds as an identity, for error feedback and `every` as well, without the h·n·l numbers of λ. Of A,
B and C it is the change of the kernel, to all orders: an |A| pushed above 1 is seen to explode.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from sensprobe import ops
from sensprobe.evaluate.outcomes import CAP, FARTHEST
from sensprobe.models import Model
from sensprobe.models.apply import Applier
from sensprobe.models.framed import Recurrence, columns
from sensprobe.numerics.rounding import real_view
from sensprobe.numerics.storage import Storage
from sensprobe.numerics.taps import RoundingTap
from sensprobe.ops.convolution import ssm_kernel
from sensprobe.plans.scheme import Scheme
from sensprobe.plans.sites import Kind
from sensprobe.scores.metrics import ADDITIVE
from sensprobe.scores.score import mean
from sensprobe.sensitivity.gradients import (
    Gradients,
    activation_shapes,
    exact_weights,
    gradients_of,
)
from sensprobe.sensitivity.groups import Group
from sensprobe.sensitivity.measured import Sensitivity, pairs_of
from sensprobe.sensitivity.replayed import replayed

BATCH = 128
ROOM_BYTES = 2**27
"""Bytes that a batch may take."""
KEPT_BYTES = 2**26
"""Bytes that the changes of kernels may take which are kept for the next batch."""

Key = tuple[str, Scheme]


def taylor(
    model: Model,
    applier: Applier,
    groups: Sequence[Group],
    schemes: Sequence[Scheme],
    x: Tensor,
    task: str,
    clusters: np.ndarray | None = None,
    tick: Callable[[int], None] = lambda count: None,
    y: Tensor | None = None,
) -> list[Sensitivity]:
    """Estimated divergence of every (group, scheme) that makes sense, over samples x (n, l, c).

    y: targets of a language model (n, l), which say what is scored. Scores are under "kl" (classes
    and tokens, nats) or "distance" (regression), capped a sample where measured ones are.
    """
    pairs = list(pairs_of(groups, schemes))
    keys = dict.fromkeys(key for _, _, fitted in pairs for key in fitted.items())
    taps = {(name, scheme): applier.partial_tap({name: scheme}) for name, scheme in keys}
    inner = {key: np.zeros(len(x)) for key in taps}
    if model.recurrences:
        _convolved(model, taps, x, task, tick, inner)
    else:
        for here, found in replayed(model, taps, x, y, task, tick):
            for key, values in found.items():
                inner[key][here] = values.numpy()
    out = []
    for group, scheme, fitted in pairs:
        losses = _losses([inner[key] for key in fitted.items()], task)
        scores = {ADDITIVE[task]: mean(losses, clusters)}
        out.append(Sensitivity(group, scheme, fitted, scores))
    return out


def _convolved(
    model: Model, taps: Mapping[Key, RoundingTap], x: Tensor, task: str,
    tick: Callable[[int], None], inner: dict[Key, np.ndarray],
) -> None:  # fmt: skip
    """Fill in ⟨g, Δ⟩ of a model that convolves, a batch at a time."""
    pricing = _Pricing(model, exact_weights(model), x.shape[1])
    shapes = activation_shapes(model, pricing.weights, x)
    size = batch_size(model, x.shape[1])
    for first in range(0, len(x), size):
        here = slice(first, first + size)
        found = gradients_of(model, pricing.weights, shapes, x[here], task, first)
        exact = pricing.exact_outputs(found)
        for key, tap in taps.items():
            inner[key][here] = pricing.products(found, exact, key, tap.at(first)).numpy()
        tick(len(x[here]))


def _losses(inner: Sequence[np.ndarray], task: str) -> np.ndarray:
    """Divergence of each sample (n,) from ⟨g, Δ⟩ of each site perturbed together."""
    factor, cap = (1.0, FARTHEST) if task == "regression" else (0.5, CAP)
    with np.errstate(over="ignore", invalid="ignore"):
        losses = factor * np.sum(inner, axis=0) ** 2
    return np.fmin(losses, cap)  # of a NaN: the cap


def batch_size(model: Model, length: int) -> int:
    """Samples whose activations and copies of weights, with their gradients, fit `ROOM_BYTES`."""
    reals = sum(
        s.reals * (length if s.kind is Kind.ACTIVATION else 1)
        for s in model.sites.values()
        if s.kind is not Kind.STATE
    )
    return min(BATCH, max(1, ROOM_BYTES // (3 * 4 * reals)))


@dataclass(slots=True)
class _Pricing:
    """⟨g, Δ⟩ of a model's sites on sequences of one length; keeps what no batch changes."""

    model: Model
    weights: dict[str, Tensor]
    length: int
    _kept: dict[Key, Tensor] = field(default_factory=dict)

    def exact_outputs(self, found: Gradients) -> Mapping[str, Tensor]:
        """y (b, l, k) of every recurrence, by state, from the scan that rounded ones run on."""
        return {r.state: self._scan(r, found, None) for r in self.model.recurrences}

    @torch.no_grad()
    def products(
        self, found: Gradients, exact: Mapping[str, Tensor], key: Key, tap: RoundingTap
    ) -> Tensor:
        """⟨g, Δ⟩ of each sample (b,), float64, for one site in one scheme."""
        site = self.model.sites[key[0]]
        if site.kind is Kind.ACTIVATION:
            value = found.values[site.name]
            return _dot(tap(site, value) - value, found.gradients[site.name])
        for r in self.model.recurrences:
            if site.name == r.state:
                change = self._scan(r, found, tap.storage(site)) - exact[r.state]
                return _dot(change, columns(found.gradients[r.y], r.heads))
            if site.name in (r.A, r.B, r.C):
                return found.kernels[r.state].flatten(1).double() @ self._change(r, key, tap)
        delta = real_view(tap.weights[site.name]) - real_view(self.weights[site.name])
        return _dot(delta[None], real_view(found.gradients[site.name]))

    def _scan(self, r: Recurrence, found: Gradients, storage: Storage) -> Tensor:
        A, B, C = (self.weights[name] for name in (r.A, r.B, r.C))
        x = columns(found.values[r.x], r.heads)
        return ops.diagonal_scan(x, A, B, C, storage)[0]

    def _change(self, r: Recurrence, key: Key, tap: RoundingTap) -> Tensor:
        """The change of the kernel by a rounded A, B or C: (k · l,) float64."""
        if key in self._kept:
            return self._kept[key]
        rounded = {**self.weights, key[0]: tap.weights[key[0]]}
        change = (self._kernel(r, rounded) - self._kernel(r, self.weights)).flatten()
        if (len(self._kept) + 1) * change.nbytes <= KEPT_BYTES:  # all are of about one size
            self._kept[key] = change
        return change

    def _kernel(self, r: Recurrence, weights: Mapping[str, Tensor]) -> Tensor:
        A, B, C = (weights[name].to(torch.complex128) for name in (r.A, r.B, r.C))
        return ssm_kernel(A, B, C, self.length)


def _dot(change: Tensor, gradient: Tensor) -> Tensor:
    """Inner product of each sample (b,), float64."""
    return torch.linalg.vecdot(change.flatten(1), gradient.flatten(1)).double()
