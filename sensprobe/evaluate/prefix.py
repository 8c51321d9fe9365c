"""Layers before the first one that a plan touches are run once, in full precision, and kept.

The inputs of all layers for a batch take (layers + 1) · batch · length · d_model · 4 bytes. Batches
are kept as they come until `KEPT_BYTES` are taken; others run from the start. Outputs have the same
bits either way: a layer sees the same numbers in the same shapes.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from sensprobe.models import forward
from sensprobe.numerics.taps import Tap

KEPT_BYTES = 2**30


@dataclass(slots=True)
class Prefixes:
    """Keeps the inputs of layers, by batch: (first, last) sample of a split."""

    model: Any
    _kept: dict[tuple[int, int], list[Tensor]] = field(default_factory=dict)

    def outputs(
        self, x: Tensor, tap: Tap, changed: Collection[str], batch: tuple[int, int]
    ) -> Tensor:
        """`model(x, tap)` of a tap that changes the sites of these names and no others."""
        layer = forward.first_layer(changed, self.model.config)
        if not layer or not self._room(x, batch):
            return forward.outputs(self.model, x, tap)
        if batch not in self._kept:
            self._kept[batch] = forward.hidden(self.model, x)
        return forward.resume(self.model, self._kept[batch][layer], layer, tap)

    def _room(self, x: Tensor, batch: tuple[int, int]) -> bool:
        """True if the batch is kept, or there is room to keep it."""
        if batch in self._kept:
            return True
        config = self.model.config
        needed = (config.layers + 1) * x.shape[0] * x.shape[1] * config.d_model * 4
        held = sum(u.nbytes for found in self._kept.values() for u in found)
        return held + needed <= KEPT_BYTES
