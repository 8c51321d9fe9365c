"""The front of the additive model: its convex hull in milliseconds, and all of it when small.

With additive losses the Lagrangian min Σ (loss + λ·bytes) falls apart into one choice a decision,
and as λ falls each decision walks along its own lower convex hull. Sorting the slopes of all those
steps gives every breakpoint exactly; no bisection on λ. Points off the hull need `knapsack.solve`,
or `every_point` where the problem is small. The hull knows no pairs: an interaction has no slope.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise, product
from math import prod

import numpy as np
from numpy.typing import NDArray

from sensprobe.errors import UsageError
from sensprobe.search.problem import OVERFLOW_NATS, Array, Assignment, Decision, Problem

EVERY_POINT_LIMIT = 2_000_000  # partial plans held at once


@dataclass(frozen=True, eq=False)
class Hull:
    """Breakpoints in growing bytes, falling loss. Step k moves one decision to one option."""

    total_bytes: NDArray[np.int64]  # (points,)
    loss: Array  # (points,)
    start: Assignment
    moves: tuple[tuple[int, int], ...]  # (decision, option), one fewer than points

    def __len__(self) -> int:
        return len(self.loss)

    def assignment(self, k: int) -> Assignment:
        """The assignment at breakpoint k."""
        chosen = list(self.start)
        for decision, option in self.moves[:k]:
            chosen[decision] = option
        return tuple(chosen)

    def assignments(self) -> Iterator[Assignment]:
        """Every breakpoint's assignment, in growing bytes."""
        chosen = list(self.start)
        yield tuple(chosen)
        for decision, option in self.moves:
            chosen[decision] = option
            yield tuple(chosen)


def scaled_losses(problem: Problem, gains: Sequence[float] | None = None) -> list[Array]:
    """Each decision's option losses times its gain, finite."""
    factors = [1.0] * len(problem.decisions) if gains is None else gains
    return [
        factor * np.array([min(option.loss, OVERFLOW_NATS) for option in decision.options])
        for decision, factor in zip(problem.decisions, factors, strict=True)
    ]


def sweep(problem: Problem, *, gains: Sequence[float] | None = None) -> Hull:
    """The lower convex hull of (total bytes, additive loss) over all assignments."""
    start: list[int] = []
    steps: list[tuple[float, int, int, int, float]] = []  # slope, decision, option, bytes, loss
    losses = scaled_losses(problem, gains)
    for d, decision in enumerate(problem.decisions):
        corners = _lower_hull(_bytes_of(decision), losses[d])
        start.append(corners[0])
        sizes = _bytes_of(decision)
        for before, after in pairwise(corners):
            added = int(sizes[after] - sizes[before])
            change = float(losses[d][after] - losses[d][before])
            steps.append((change / added, d, after, added, change))
    # one decision's slopes rise along its hull, so a stable sort keeps its steps in order
    steps.sort(key=lambda step: (step[0], step[1]))
    first = sum(row[option] for row, option in zip(losses, start, strict=True))
    base = problem.size(tuple(start)).total
    return Hull(
        np.cumsum([base] + [step[3] for step in steps], dtype=np.int64),
        np.cumsum([first] + [step[4] for step in steps]),
        tuple(start),
        tuple((step[1], step[2]) for step in steps),
    )


def every_point(problem: Problem) -> list[tuple[int, float, Assignment]]:
    """The whole front (bytes, loss, assignment), exact, pairs included; growing bytes.

    Decisions joined by pairs are enumerated together; the rest is dynamic programming over
    partial fronts. An error when more than `EVERY_POINT_LIMIT` partial plans would be held.
    """
    order: list[int] = []
    partial: list[tuple[int, float, Assignment]] = [
        (problem.fixed_weight_bytes + problem.fixed_state_bytes, 0.0, ())
    ]
    for members in _components(problem):
        choices = _joint(problem, members)
        _check_room(problem, len(partial) * len(choices))
        grown = [
            (size + more, loss + extra, chosen + options)
            for size, loss, chosen in partial
            for more, extra, options in choices
        ]
        partial = _prune(grown)
        order.extend(members)
    back = np.argsort(order)
    return [(size, loss, tuple(chosen[k] for k in back)) for size, loss, chosen in partial]


def _check_room(problem: Problem, partial_plans: int) -> None:
    if partial_plans > EVERY_POINT_LIMIT:
        raise UsageError(
            f"the whole front of {problem.count:.3g} plans is too large to hold; "
            "ask `sweep` for its convex hull, or `solve` for one budget."
        )


def _bytes_of(decision: Decision) -> NDArray[np.int64]:
    return np.array([option.total_bytes for option in decision.options], dtype=np.int64)


def _lower_hull(size: NDArray[np.int64], loss: Array) -> list[int]:
    """Indices along the lower convex hull, growing bytes and strictly falling loss."""
    hull: list[int] = []
    for k in _prune_indices(size, loss):
        while len(hull) > 1 and _above(size, loss, hull[-2], hull[-1], k):
            hull.pop()
        hull.append(k)
    return hull


def _above(size: NDArray[np.int64], loss: Array, a: int, b: int, c: int) -> bool:
    """True if b lies on or above the line from a to c."""
    left = (loss[b] - loss[a]) * float(size[c] - size[a])
    return bool(left >= (loss[c] - loss[a]) * float(size[b] - size[a]))


def _prune_indices(size: NDArray[np.int64], loss: Array) -> list[int]:
    kept: list[int] = []
    for k in np.lexsort((loss, size)).tolist():
        if not kept or loss[k] < loss[kept[-1]]:
            kept.append(k)
    return kept


def _prune(points: list[tuple[int, float, Assignment]]) -> list[tuple[int, float, Assignment]]:
    kept: list[tuple[int, float, Assignment]] = []
    for point in sorted(points):
        if not kept or point[1] < kept[-1][1]:
            kept.append(point)
    return kept


def _components(problem: Problem) -> list[list[int]]:
    """Decisions grouped so that every pair lies inside one group."""
    label = list(range(len(problem.decisions)))
    for pair in problem.pairs:
        old, new = label[pair.j], label[pair.i]
        label = [new if mine == old else mine for mine in label]
    return [[d for d, mine in enumerate(label) if mine == group] for group in sorted(set(label))]


def _joint(problem: Problem, members: list[int]) -> list[tuple[int, float, Assignment]]:
    """Every combination of the members' options: bytes, loss with pairs, options."""
    count = prod(len(problem.decisions[d].options) for d in members)
    _check_room(problem, count)
    place = {d: k for k, d in enumerate(members)}
    pairs = [pair for pair in problem.pairs if pair.i in place]
    losses = scaled_losses(problem)
    joint = []
    for chosen in product(*(range(len(problem.decisions[d].options)) for d in members)):
        options = [problem.decisions[d].options[o] for d, o in zip(members, chosen, strict=True)]
        met = (p for p in pairs if chosen[place[p.i]] == p.a and chosen[place[p.j]] == p.b)
        loss = sum(float(losses[d][o]) for d, o in zip(members, chosen, strict=True))
        size = sum(option.total_bytes for option in options)
        joint.append((size, loss + sum(pair.extra for pair in met), chosen))
    return joint
