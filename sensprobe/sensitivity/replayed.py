"""⟨g, Δ⟩ of every site of a selective model, one forward and one backward pass a sample.

A selective model is no convolution, so nothing is priced through a kernel of it. Instead each
operation that rounds inside itself (the recurrence with its A, decay and state; the convolution
with its filter and window) is run again with the rounding, on what the sites around it held, and
its change meets the gradient at the sites it feeds: to all orders inside the operation, to first
order after it. Activations meet theirs where they pass. Of other weights it is ⟨gradient, Δ⟩ with
the gradient of that sample alone, which is why samples go one by one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor

from sensprobe.models import Model
from sensprobe.models.selective import Replay
from sensprobe.scheme import Scheme
from sensprobe.sensitivity.gradients import Tensors, exact_weights, pull
from sensprobe.sites import Kind, Site
from sensprobe.storage import Storage
from sensprobe.taps import EXACT, RoundingTap

Key = tuple[str, Scheme]


def replayed(
    model: Model,
    taps: Mapping[Key, RoundingTap],
    x: Tensor,
    y: Tensor | None,
    task: str,
    tick: Callable[[int], None],
) -> Iterator[dict[Key, float]]:
    """⟨g, Δ⟩ by (site, scheme) of each sample of x (n, l, c), or tokens (n, l), in turn.

    y: targets of a language model (n, l), -1 where nothing is scored; of other models not read.
    """
    weights = exact_weights(model)
    inside = {name: replay for replay in model.replays for name in replay.names}
    trained = {name: w for name, w in weights.items() if name not in inside}
    changes = {
        key: tap.weights[key[0]] - weights[key[0]] for key, tap in taps.items() if key[0] in trained
    }
    for i in range(len(x)):
        scored = None if y is None or task != "language" else y[i : i + 1] >= 0
        sample = _Sample(model, weights, trained, x[i : i + 1], scored, task, i)
        yield {
            key: sample.product(key, tap.at(i), inside.get(key[0]), changes.get(key))
            for key, tap in taps.items()
        }
        tick(1)


class _Sample:
    """What one forward and one backward pass leave of a sample."""

    def __init__(
        self, model: Model, weights: Tensors, trained: Tensors, x: Tensor, scored: Tensor | None,
        task: str, position: int,
    ) -> None:  # fmt: skip
        own = {name: w.detach().requires_grad_() for name, w in trained.items()}
        leaves = _Leaves({**weights, **own})
        with torch.enable_grad():
            outputs = model(x, leaves)
            pulled = (outputs * _pull(outputs.detach(), scored, task, position)).sum()
            at = {**own, **leaves.zeros}
            grads = torch.autograd.grad(pulled, [*at.values()], allow_unused=True)
        self.model = model
        self.values = {name: value.detach() for name, value in leaves.values.items()}
        self.gradients = {
            name: torch.zeros_like(leaf) if g is None else g
            for (name, leaf), g in zip(at.items(), grads, strict=True)
        }
        self._exact: dict[frozenset[str], tuple[Tensor, ...]] = {}

    @torch.no_grad()
    def product(
        self, key: Key, tap: RoundingTap, replay: Replay | None, change: Tensor | None
    ) -> float:
        """⟨g, Δ⟩ of one site in one scheme."""
        name = key[0]
        if change is not None:
            return _dot(change, self.gradients[name])
        if replay is None:
            value = self.values[name]
            return _dot(tap(self.model.sites[name], value) - value, self.gradients[name])
        if replay.names not in self._exact:
            self._exact[replay.names] = replay.run(self.values, EXACT)
        exact, rounded = self._exact[replay.names], replay.run(self.values, tap)
        return sum(
            _dot(b - a, self.gradients[site])
            for site, a, b in zip(replay.outputs, exact, rounded, strict=True)
        )


@dataclass(slots=True)
class _Leaves:
    """Adds a zero that gradients are taken of to every activation, and keeps the values."""

    weights: Mapping[str, Tensor]
    zeros: Tensors = field(default_factory=dict)
    values: Tensors = field(default_factory=dict)

    def __call__(self, site: Site, x: Tensor) -> Tensor:
        if site.kind is Kind.WEIGHT:
            return self.weights[site.name]
        self.zeros[site.name] = torch.zeros_like(x, requires_grad=True)
        self.values[site.name] = x
        return x + self.zeros[site.name]

    def storage(self, site: Site) -> Storage:
        return None


def _pull(outputs: Tensor, scored: Tensor | None, task: str, first: int) -> Tensor:
    """`pull`; of a language model at every scored position apart, so that half the square of the
    sum is on average the mean divergence a token."""
    if task != "language":
        return pull(outputs, task, first)
    v = pull(outputs, "classification", first)
    if scored is None:
        return v / outputs.shape[1] ** 0.5
    return torch.where(scored[..., None], v, 0.0) / max(int(scored.sum()), 1) ** 0.5


def _dot(change: Tensor, gradient: Tensor) -> float:
    return float(torch.dot(change.flatten(), gradient.flatten()))
