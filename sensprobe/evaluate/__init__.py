"""Running a model over samples and scoring what comes out."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from sensprobe.data import Split
from sensprobe.evaluate.batches import BATCH, placed, tap_of
from sensprobe.evaluate.dead_band import by_position, dead_bands, seconds_a_step
from sensprobe.evaluate.outcomes import Metric, outcomes, told_apart
from sensprobe.evaluate.saturation import SEQUENCES, rows_of, saturations, sentences, watched
from sensprobe.evaluate.text import TextEvaluator, bucket_of
from sensprobe.models import Model, per_step
from sensprobe.models.apply import Applier
from sensprobe.numerics.taps import EXACT
from sensprobe.plans.noise import Draw
from sensprobe.plans.scheme import Scheme
from sensprobe.scores.metrics import ADDITIVE, DIVERGENCE, NAMES, PRIMARY
from sensprobe.scores.score import Score, mean, paired, ratio, score_document, with_p

__all__ = [
    "ADDITIVE",
    "BATCH",
    "DIVERGENCE",
    "NAMES",
    "PRIMARY",
    "SEQUENCES",
    "Evaluator",
    "Metric",
    "Score",
    "TextEvaluator",
    "bucket_of",
    "by_position",
    "dead_bands",
    "mean",
    "outcomes",
    "paired",
    "ratio",
    "rows_of",
    "saturations",
    "score_document",
    "seconds_a_step",
    "sentences",
    "told_apart",
    "watched",
    "with_p",
]


@dataclass(slots=True)
class Evaluator:
    """Runs plans on one split of data. `tick` is told how many samples a batch has finished."""

    model: Model
    applier: Applier
    split: Split
    task: str
    metric: Metric | None = None
    tick: Callable[[int], None] = lambda count: None
    divergence: bool = True  # whether `evaluate` also compares with full precision
    more: frozenset[str] = frozenset()  # arrays beyond those that every evaluation keeps
    _baseline: dict[int, Tensor] = field(default_factory=dict)

    def outputs(
        self, plan: Mapping[str, Scheme], start: int, stop: int, draw: Draw | None = None
    ) -> Tensor:
        """Model outputs under a resolved plan, and a draw of noise where one is given, for samples
        [start, stop): (n, d_output), or (n, l, d_output) of a model with an output at every
        step."""
        tap = tap_of(self.applier, plan, draw)
        parts = [self._none()]
        with torch.inference_mode():
            for first in range(start, stop, BATCH):
                last = min(first + BATCH, stop)
                parts.append(self.model(self.split.x[first:last], placed(tap, first)))
                self.tick(last - first)
        return torch.cat(parts)

    def baseline(self, start: int, stop: int) -> Tensor:
        """Full-precision outputs for [start, stop); computed once a block of samples."""
        parts = [self._none()]
        for block in range(start // BATCH, -(-stop // BATCH)):
            first = block * BATCH
            if block not in self._baseline:
                last = min(first + BATCH, len(self.split))
                with torch.inference_mode():
                    self._baseline[block] = self.model(self.split.x[first:last], EXACT)
            parts.append(self._baseline[block][max(start - first, 0) : stop - first])
        return torch.cat(parts)

    def _none(self) -> Tensor:
        """The outputs of no samples."""
        steps = self.split.x.shape[1:2] if per_step(self.model) else ()
        return torch.zeros(0, *steps, self.model.config.d_output)

    def evaluate(
        self, plan: Mapping[str, Scheme], start: int, stop: int, draw: Draw | None = None
    ) -> dict[str, np.ndarray]:
        """Per-sample arrays of a resolved plan, and a draw of noise where one is given, on samples
        [start, stop)."""
        base = self.baseline(start, stop) if self.divergence else None
        if plan or draw or base is None:
            outputs = self.outputs(plan, start, stop, draw)
        else:
            outputs = base
            self.tick(stop - start)
        return outcomes(self.task, outputs, self.split.y[start:stop], base, self.metric, self.more)

    def spectral_radius(self, plan: Mapping[str, Scheme]) -> float:
        """max |A| as the plan stores it, uncalibrated; above 1 the recurrence is unstable."""
        return self.applier.spectral_radius(plan)
