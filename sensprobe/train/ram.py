"""The RAM that a step of training takes, and layers that are recomputed where it is scarce.

What the graph of a forward pass saves for the backward pass is counted, on a few sequences, a layer
at a time. If it is more than `SHARE` of the RAM that is free, only the inputs of the layers are
kept, and each layer is run again when its gradient is due: about a third more time, and the same
gradients to the bit. So the bytes decide, never the processor.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from torch import Tensor
from torch.autograd.graph import saved_tensors_hooks
from torch.utils.checkpoint import checkpoint

from sensprobe.models.forward import Carries, Layer, Mixing, one_layer
from sensprobe.numerics.taps import Tap

SHARE = 0.5
"""The share of the free RAM that a step may take with everything kept."""
COUNTED = 16
"""Sequences that are counted on: the kernel of S4D works on as many at a time."""
COPIES = 6
"""Float32 tensors of a parameter's size: itself, its average, gradient, two moments, deployed."""


def recomputed(
    model: Mixing, i: int, u: Tensor, tap: Tap, carries: Carries
) -> tuple[Tensor, Carries]:
    """`one_layer`, of which only the input is kept for the backward pass."""
    found: tuple[Tensor, Carries] = checkpoint(
        one_layer, model, i, u, tap, carries, use_reentrant=False, preserve_rng_state=False
    )
    return found


@dataclass(frozen=True, slots=True)
class StepBytes:
    """Bytes of RAM that a step takes, beside the model and the data.

    `largest` is what the layer that saves most saves, `layers` all of them, `inputs` their inputs,
    and `outside` what is saved before the first and after the last; all a sequence. `parameters`
    is of training whatever the batch.
    """

    largest: float
    layers: float
    inputs: float
    outside: float
    parameters: int

    def kept(self, batch: int) -> int:
        """Bytes of a step that keeps everything."""
        return self._of(batch, self.layers)

    def least(self, batch: int) -> int:
        """Bytes of a step that recomputes every layer, unless that takes more than keeping them."""
        return self._of(batch, min(self.layers, self.inputs + self.largest))

    def _of(self, batch: int, saved: float) -> int:
        """Gradients that are on their way take as much again as one layer, or what is outside."""
        on_their_way = max(self.largest, self.outside)
        return self.parameters + int(batch * (saved + self.outside + on_their_way))

    def fitting(self, free: int) -> int:
        """The largest batch of which a step takes no more than so many bytes; 0 if none does."""
        return max(0, int((free - self.parameters) / (self.least(1) - self.parameters)))

    def layer(self, batch: int, free: int | None) -> Layer:
        """The way to run the layers where so many bytes are free; None: nobody knows."""
        plenty = free is None or self.kept(batch) <= SHARE * free
        return one_layer if plenty or self.least(batch) == self.kept(batch) else recomputed


@dataclass
class _Counter:
    """Bytes of the tensors that a graph saves, by the layer that saves them: each once, for which
    those of the layer that is running are held."""

    layer: int | None = None  # the one that is running
    saved: dict[int | None, int] = field(default_factory=dict)
    inputs: int = 0
    _held: dict[int, Tensor] = field(default_factory=dict)

    def save(self, x: Tensor) -> None:
        storage = x.untyped_storage()
        if storage.data_ptr() not in self._held:
            self._held[storage.data_ptr()] = x
            self.saved[self.layer] = self.saved.get(self.layer, 0) + storage.nbytes()

    def run(
        self, model: Mixing, i: int, u: Tensor, tap: Tap, carries: Carries
    ) -> tuple[Tensor, Carries]:
        """`one_layer`, which is running meanwhile."""
        self._begin(i)
        self.inputs += u.nbytes
        found = one_layer(model, i, u, tap, carries)
        self._begin(None)
        return found

    def _begin(self, layer: int | None) -> None:
        self.layer = layer
        self._held.clear()


def step_bytes(
    loss: Callable[[Layer, int], Tensor], trained: Iterable[Tensor], batch: int
) -> StepBytes:
    """Count a step. `loss(layer, n)` is the loss of n sequences, whose layers `layer` runs; no
    gradient is asked of it."""
    counter, n = _Counter(), min(batch, COUNTED)
    with saved_tensors_hooks(counter.save, lambda nothing: nothing):
        loss(counter.run, n)
    outside = counter.saved.pop(None, 0)
    each = counter.saved.values()
    return StepBytes(
        max(each, default=0) / n, sum(each) / n, counter.inputs / n, outside / n,
        4 * COPIES * sum(p.numel() for p in trained),
    )  # fmt: skip
