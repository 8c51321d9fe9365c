"""Running a language model over windows of text.

Outputs are (n, l, vocabulary): they are scored a batch at a time and never held for a whole split.
What comparing with full precision needs of them is kept between plans up to `KEPT_BYTES`, and
computed again beyond.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from sensprobe.data import Split
from sensprobe.evaluate.batches import BATCH, placed, tap_of
from sensprobe.evaluate.language import bucket_of, language
from sensprobe.evaluate.outcomes import Metric, custom
from sensprobe.evaluate.prefix import Prefixes
from sensprobe.models import Model, together
from sensprobe.models.apply import Applier
from sensprobe.numerics.taps import EXACT, Tap
from sensprobe.plans.noise import Draw
from sensprobe.plans.scheme import Scheme

__all__ = ["KEPT_BYTES", "TextEvaluator", "bucket_of"]

KEPT_BYTES = 2**30


@dataclass(slots=True)
class TextEvaluator:
    """Runs plans on windows of text, as `Evaluator` does on other data. A user's metric sees one
    batch at a time."""

    model: Model
    applier: Applier
    split: Split
    metric: Metric | None = None
    tick: Callable[[int], None] = lambda count: None
    divergence: bool = True  # whether `evaluate` also compares with full precision
    more: frozenset[str] = frozenset()  # arrays beyond those that every evaluation keeps
    _baseline: dict[tuple[int, int], Tensor] = field(default_factory=dict)
    _prefixes: Prefixes = field(init=False)

    def __post_init__(self) -> None:
        self._prefixes = Prefixes(self.model)

    @property
    def batch(self) -> int:
        """Sequences run together."""
        return together(self.model, self.split.x.shape[1], BATCH)

    @property
    def bytes_a_window(self) -> float:
        """Bytes that a window of the split scores on average."""
        assert self.split.scored_bytes is not None
        return float(self.split.scored_bytes.double().mean())

    def outputs(
        self, plan: Mapping[str, Scheme], start: int, stop: int, draw: Draw | None = None
    ) -> Tensor:
        """Outputs of windows [start, stop) in one batch: (n, l, vocabulary)."""
        return self._run(_changed(plan, draw), tap_of(self.applier, plan, draw), start, stop)

    def evaluate(
        self, plan: Mapping[str, Scheme], start: int, stop: int, draw: Draw | None = None
    ) -> dict[str, np.ndarray]:
        """Per-window arrays of a resolved plan, and a draw of noise where one is given, on windows
        [start, stop)."""
        tap, changed = tap_of(self.applier, plan, draw), _changed(plan, draw)
        parts: dict[str, list[np.ndarray]] = {}
        for first, last in self._batches(start, stop):
            y = self.split.y[first:last]
            base = self._exact(first, last) if self.divergence else None
            exact = None if changed else base
            outputs = self._run(changed, tap, first, last) if exact is None else exact
            found = language(outputs, y, self.bytes_a_window, base, self.more)
            if self.metric is not None:
                found["custom"] = custom(self.metric, outputs, y)
            for name, values in found.items():
                parts.setdefault(name, []).append(values)
            self.tick(last - first)
        return {name: np.concatenate(values) for name, values in parts.items()}

    def spectral_radius(self, plan: Mapping[str, Scheme]) -> float:
        """The largest decay at rest as the plan stores it; above 1 the recurrence is unstable."""
        return self.applier.spectral_radius(plan)

    def _batches(self, start: int, stop: int) -> Iterator[tuple[int, int]]:
        """[start, stop) cut where batches end that are counted from the split's first window."""
        while start < stop:
            end = min((start // self.batch + 1) * self.batch, stop)
            yield start, end
            start = end

    def _run(self, changed: Collection[str], tap: Tap, first: int, last: int) -> Tensor:
        with torch.inference_mode():
            x = self.split.x[first:last]
            return self._prefixes.outputs(x, placed(tap, first), changed, (first, last))

    def _exact(self, first: int, last: int) -> Tensor:
        """Full-precision outputs of one batch."""
        if (first, last) in self._baseline:
            return self._baseline[first, last]
        outputs = self._run((), EXACT, first, last)
        if sum(x.nbytes for x in self._baseline.values()) + outputs.nbytes <= KEPT_BYTES:
            self._baseline[first, last] = outputs
        return outputs


def _changed(plan: Mapping[str, Scheme], draw: Draw | None) -> frozenset[str]:
    """The names of the sites that a plan and a draw of noise change."""
    return frozenset(plan) | frozenset(draw.noises if draw else ())
