"""The expected gain of evaluating a plan, given a guess of its score and its exact bytes.

For a whole front: the expected growth of the hypervolume (score times log bytes). For budgets: the
expected gain of the best score within each. For `max_loss`: the expected fall of log bytes. The
expectation is a 15-point Gauss-Hermite sum over the surrogate's guess.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from sensprobe.scores.pareto import nondominated
from sensprobe.search.problem import Array, Assignment, Budget, Size
from sensprobe.search.surrogate import Surrogate

_NODES, _WEIGHTS = np.polynomial.hermite_e.hermegauss(15)
_WEIGHTS = _WEIGHTS / _WEIGHTS.sum()


@dataclass(frozen=True)
class Aim:
    """The aim of a search. No budgets: the whole front, against the reference point."""

    budgets: tuple[Budget, ...]
    baseline: float  # score at full precision
    reference_bytes: float
    reference_score: float


class Known(NamedTuple):
    """A plan whose score is known, or believed to be so."""

    size: Size
    score: float


def promise(
    aim: Aim,
    known: Sequence[Known],
    surrogate: Surrogate,
    plans: Sequence[Assignment],
    sizes: Array,
) -> Array:
    """Expected gain of each plan over the known. `sizes`: weight and state bytes, (plans, 2)."""
    mean, spread = surrogate.predict(plans)
    scores = surrogate.link.back(mean[:, None] + spread[:, None] * _NODES)  # (plans, nodes)
    total = sizes.sum(axis=1)
    if not aim.budgets:
        return _growth(aim, known, total, scores) @ _WEIGHTS
    gain = np.zeros_like(scores)
    span = max(aim.baseline - aim.reference_score, 1e-12)
    for budget in aim.budgets:
        fits = _admitted(budget, sizes)
        within = [c for c in known if budget.admits(c.size)]
        if budget.max_loss is None:
            best = max((c.score for c in within), default=aim.reference_score)
            gain += fits[:, None] * np.maximum(scores - best, 0.0) / span
        else:
            floor = aim.baseline - budget.max_loss
            met = [c.size.total for c in within if c.score >= floor]
            fall = np.log(min(met, default=aim.reference_bytes)) - np.log(np.maximum(total, 1))
            gain += (fits * np.maximum(fall, 0.0))[:, None] * (scores >= floor)
    return gain @ _WEIGHTS


def _admitted(budget: Budget, sizes: Array) -> NDArray[np.bool_]:
    weight, state = sizes[:, 0], sizes[:, 1]
    limits = ((budget.weight, weight), (budget.state, state), (budget.total, weight + state))
    fits = np.ones(len(sizes), bool)
    for limit, spent in limits:
        if limit is not None:
            fits &= spent <= limit
    return fits


def _growth(aim: Aim, known: Sequence[Known], total: Array, scores: Array) -> Array:
    """Hypervolume added by each (plan, node): the area above the front from its bytes on."""
    kept = nondominated([c.size.total for c in known], [c.score for c in known])
    inside = [known[k] for k in kept if known[k].size.total < aim.reference_bytes]
    edges = np.log([c.size.total for c in inside] + [aim.reference_bytes])
    levels = [aim.reference_score] + [max(c.score, aim.reference_score) for c in inside]
    start = np.log(np.maximum(total, 1))
    left, gain = start, np.zeros_like(scores)
    for edge, level in zip(edges, levels, strict=True):
        width = np.maximum(edge - left, 0.0)
        at = width > 0
        gain[at] += width[at, None] * np.maximum(scores[at] - level, 0.0)
        left = np.maximum(left, edge)
    return gain
