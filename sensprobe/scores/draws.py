"""Scores over draws of noise: the same samples run on several devices.

A mean over n samples and K draws is uncertain for two reasons: other samples, and other devices.
Its squared error is the sum of two: that of the mean over samples of what a sample has on average
over draws, and the variance of the draws' scores over K. What samples and draws do to each other is
in both, so the error is not too small.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from math import inf, sqrt
from typing import Any

import numpy as np

from sensprobe.scores.metrics import LABEL, PREDICTED
from sensprobe.scores.score import Score

NOT_AVERAGED = (LABEL, PREDICTED)
"""Arrays of names of classes, which have no mean."""


@dataclass(frozen=True, slots=True)
class Spread:
    """The score of each draw, their standard deviation, and the standard error of their mean. The
    latter two are infinite where there is one draw."""

    values: tuple[float, ...]
    spread: float
    stderr: float

    def to_json(self) -> dict[str, Any]:
        """The fields as JSON values."""
        return asdict(self) | {"values": list(self.values)}


def spread(values: Sequence[float]) -> Spread:
    """The spread of the scores of some draws."""
    count = len(values)
    deviation = float(np.std(values, ddof=1)) if count > 1 else inf
    return Spread(tuple(values), deviation, deviation / sqrt(count))


def averaged(draws: Sequence[Mapping[str, np.ndarray]]) -> dict[str, np.ndarray]:
    """The mean over draws of each per-sample array that all of them have; names of classes are
    left out."""
    shared = [n for n in draws[0] if n not in NOT_AVERAGED and all(n in d for d in draws)]
    return {n: np.mean([d[n].astype(np.float64) for d in draws], axis=0) for n in shared}


def over_draws(found: Score, draws: Sequence[np.ndarray]) -> Score:
    """A score of the mean over draws of per-sample values, with the error that draws add.

    `draws` has the per-sample values of each draw. Fewer than two draws add nothing.
    """
    if len(draws) < 2:
        return found
    among = spread([float(values.mean()) for values in draws]).stderr
    return replace(found, stderr=sqrt(found.stderr**2 + among**2))
