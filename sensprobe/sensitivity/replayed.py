"""⟨g, Δ⟩ of every site of a model without `recurrences`, a forward and a backward pass a sample.

Such a model, a selective one above all, is not priced through a kernel of a convolution. Each
operation that rounds inside itself (the recurrence with its A, decay and state; the convolution
with its window) is run again with the rounding, on what the sites around it held, and
its change meets the gradient at the sites it feeds: to all orders inside the operation, to first
order after it. Activations meet theirs where they pass. Of other weights it is ⟨gradient, Δ⟩ with
the gradient of that sample alone, which is why samples go through the model one by one; what they
leave is priced a batch at a time.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor

from sensprobe.errors import UnsupportedError
from sensprobe.memory import free_bytes
from sensprobe.models import Model
from sensprobe.models.framed import Replay
from sensprobe.numerics.storage import Storage
from sensprobe.numerics.taps import EXACT, RoundingTap
from sensprobe.plans.scheme import Scheme
from sensprobe.plans.sites import Kind, Part, Site
from sensprobe.sensitivity.gradients import Tensors, exact_weights, pull

Key = tuple[str, Scheme]
ROOM_BYTES = 2**28
"""Bytes that the values and gradients of a batch may take; in a model of 2 · `SHALLOW` layers twice
as many, and so on, up to `SHARE` of the RAM that is free. To price a site in a scheme takes time
however few samples the batch holds, so if a deeper model had more batches, time would grow as the
square of its depth."""
SHALLOW = 8
SHARE = 0.25


def replayed(
    model: Model,
    taps: Mapping[Key, RoundingTap],
    x: Tensor,
    y: Tensor | None,
    task: str,
    tick: Callable[[int], None],
) -> Iterator[tuple[slice, dict[Key, Tensor]]]:
    """⟨g, Δ⟩ (b,), float64, by (site, scheme) of each batch of x (n, l, c), or tokens (n, l).

    y: targets of a language model (n, l), -1 where nothing is scored; of other models not read.
    """
    weights = exact_weights(model)
    inside = {name: replay for replay in model.replays for name in replay.names}
    trained = {name: w for name, w in weights.items() if name not in inside}
    changes = {
        key: tap.weights[key[0]] - weights[key[0]] for key, tap in taps.items() if key[0] in trained
    }
    size = _batch_size(model, x.shape[1])
    together = size * _batches_together(model, x.shape[1])

    def batch(here: slice) -> _Batch:
        found = _Batch(model, {}, {}, size)
        for i in range(here.start, here.stop):
            scored = None if y is None or task != "language" else y[i : i + 1] >= 0
            one = _pass(model, weights, trained, x[i : i + 1], scored, task, i)
            for tensors, added in zip((found.values, found.gradients), one, strict=True):
                _put(tensors, added, i - here.start, here.stop - here.start)
            tick(1)
        return found

    def priced(first: int, batch: _Batch) -> dict[Key, Tensor]:
        return {
            key: batch.product(key, tap.at(first), inside.get(key[0]), changes.get(key))
            for key, tap in taps.items()
        }

    for first in range(0, len(x), together):
        here = slice(first, min(first + together, len(x)))
        yield here, priced(first, batch(here))  # no name keeps a batch while the next one is made


def _batch_size(model: Model, length: int) -> int:
    """Samples whose values, and whose gradients, fit `ROOM_BYTES`."""
    return max(1, ROOM_BYTES // _bytes_a_sample(model, length))


def _batches_together(model: Model, length: int) -> int:
    """The number of batches of `_batch_size` samples that are priced together."""
    if _bytes_a_sample(model, length) > ROOM_BYTES:
        return 1
    together, free = model.config.layers // SHALLOW, free_bytes()
    if free is not None:
        together = min(together, int(SHARE * free / ROOM_BYTES))
    return max(1, together)


def _bytes_a_sample(model: Model, length: int) -> int:
    """The bytes that the values and gradients of one sample take."""
    reals = sum(
        site.reals * (2 * length if site.kind is Kind.ACTIVATION else 1)
        for site in model.sites.values()
        if site.kind is not Kind.STATE and site.part is not Part.DECAY
    )
    return 4 * reals


def _pass(
    model: Model, weights: Tensors, trained: Tensors, x: Tensor, scored: Tensor | None, task: str,
    position: int,
) -> tuple[Tensors, Tensors]:  # fmt: skip
    """A sample's values at activations, and its gradients there and of weights: (1, …) each."""
    own = {name: w.detach().requires_grad_() for name, w in trained.items()}
    leaves = _Leaves({**weights, **own})
    with torch.enable_grad():
        outputs = model(x, leaves)
        pulled = (outputs * _pull(outputs.detach(), scored, task, position)).sum()
        at = {**own, **leaves.values}
        grads = torch.autograd.grad(pulled, [*at.values()], allow_unused=True)
    gradients = {
        name: torch.zeros_like(leaf) if g is None else g
        for (name, leaf), g in zip(at.items(), grads, strict=True)
    }
    for name in own:
        gradients[name] = gradients[name][None]
    return {name: value.detach() for name, value in leaves.values.items()}, gradients


def _put(tensors: Tensors, added: Tensors, k: int, count: int) -> None:
    """Copy tensors of one sample (1, …) into row k of those of `count` samples, which the first one
    makes room for: what a pass allocates is free again before the next one."""
    for name, value in added.items():
        if name not in tensors:
            tensors[name] = value.new_empty(count, *value.shape[1:])
        tensors[name][k] = value[0]


@dataclass(slots=True)
class _Batch:
    """The values and gradients that a forward and a backward pass a sample leave."""

    model: Model
    values: Tensors
    gradients: Tensors
    summed: int  # samples given to one matrix product: its order of summation depends on them
    _exact: dict[frozenset[str], tuple[Tensor, ...]] = field(default_factory=dict)

    @torch.no_grad()
    def product(
        self, key: Key, tap: RoundingTap, replay: Replay | None, change: Tensor | None
    ) -> Tensor:
        """⟨g, Δ⟩ of one site in one scheme, of each sample."""
        name = key[0]
        if change is not None:
            parts = self.gradients[name].flatten(1).split(self.summed)
            return torch.cat([part @ change.flatten() for part in parts]).double()
        if replay is None:
            if name not in self.values:
                raise UnsupportedError(
                    f"{name} is kept inside an operation, and no replay of this model names it; "
                    "use method measured, or give its family one (`Framed.replays`)."
                )
            value = self.values[name]
            return _moved(value, tap(self.model.sites[name], value), self.gradients[name])
        if replay.names not in self._exact:
            self._exact[replay.names] = replay.run(self.values, EXACT)
        exact, rounded = self._exact[replay.names], replay.run(self.values, tap)
        products = [
            _moved(a, b, self.gradients[site])
            for site, a, b in zip(replay.outputs, exact, rounded, strict=True)
        ]
        return torch.stack(products).sum(0)


@dataclass(slots=True)
class _Leaves:
    """Keeps the values of every activation, apart from what they were computed from: a gradient
    there is of what reads the site alone."""

    weights: Mapping[str, Tensor]
    values: Tensors = field(default_factory=dict)

    def __call__(self, site: Site, x: Tensor) -> Tensor:
        if site.kind is Kind.WEIGHT:
            return self.weights[site.name]
        self.values[site.name] = x.view_as(x) if x.requires_grad else x.detach().requires_grad_()
        return self.values[site.name]

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


def _moved(before: Tensor, after: Tensor, gradient: Tensor) -> Tensor:
    """⟨gradient, after - before⟩ of each sample (b,), float64. A sample at a time, which stays in
    the processor's caches."""
    each = zip(before.flatten(1), after.flatten(1), gradient.flatten(1), strict=True)
    return torch.stack([torch.dot(b - a, g) for a, b, g in each]).double()
