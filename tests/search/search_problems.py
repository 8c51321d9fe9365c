"""Small made-up problems the search tests share."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise, product

import numpy as np

from sensprobe.search.problem import (
    Assignment,
    Decision,
    Evaluate,
    Option,
    Pair,
    Problem,
    Sample,
)

WIDTHS = (3, 4, 6, 8)
PIECES = (100, 100, 200)


def random_problem(seed: int, *, decisions: int = 4, options: int = 3, pairs: int = 0) -> Problem:
    """Coarse losses and bytes, so that ties are common; both kinds of bytes; pairs of any sign."""
    rng = np.random.default_rng(seed)

    def option(k: int) -> Option:
        weight, state = (int(n) for n in rng.integers(0, 50, 2))
        return Option(f"s{k}", weight, state, float(rng.integers(0, 20)) / 7, 0.0, float(k))

    rows = tuple(
        Decision(f"d{d}", "part", 0.0, tuple(option(k) for k in range(options)))
        for d in range(decisions)
    )
    joined = []
    for _ in range(pairs):
        i, j = (int(n) for n in rng.permutation(decisions)[:2])
        a, b = (int(n) for n in rng.integers(0, options, 2))
        joined.append(Pair(i, a, j, b, float(rng.normal())))
    return Problem(rows, 5, 7, tuple(joined))


def every(problem: Problem) -> list[Assignment]:
    return list(product(*(range(len(decision.options)) for decision in problem.decisions)))


def classifier(seed: int = 0, *, decisions: int = 5) -> tuple[Problem, Evaluate, list[Sample]]:
    """A made-up classifier: accuracy falls from 0.97 to chance as losses and one interaction grow.

    Every sample has its own threshold, so plans are compared on the same samples.
    """
    rng = np.random.default_rng(seed)
    harm, count = rng.gamma(0.7, size=decisions), rng.integers(50, 2000, decisions)

    def option(d: int, bits: int) -> Option:
        loss = float(harm[d] * 2.0 ** (-1.5 * (bits - 3)))
        return Option(f"int{bits}", int(count[d] * bits / 8), 0, loss, 0.01, bits)

    problem = Problem(
        tuple(
            Decision(f"d{d}", f"p{d % 3}", d / decisions, tuple(option(d, b) for b in WIDTHS))
            for d in range(decisions)
        )
    )
    thresholds = rng.random(sum(PIECES))
    start = np.concatenate([[0], np.cumsum(PIECES)])

    def one(assignment: Assignment, piece: int) -> Sample:
        losses = [o.loss for o in problem.chosen(assignment)]
        total = sum(losses) + 2 * losses[0] * losses[1]
        part = thresholds[start[piece] : start[piece + 1]]
        return Sample((part < 0.1 + 0.87 * np.exp(-total)).astype(float), np.full(len(part), total))

    def evaluate(assignments: Sequence[Assignment], piece: int) -> list[Sample]:
        return [one(assignment, piece) for assignment in assignments]

    exact = [
        Sample((thresholds[a:b] < 0.97).astype(float), np.zeros(b - a)) for a, b in pairwise(start)
    ]
    return problem, evaluate, exact


def counted(evaluate: Evaluate) -> tuple[Evaluate, Callable[[], int]]:
    """The callback, and how many samples it was asked for."""
    seen = 0

    def wrapped(assignments: Sequence[Assignment], piece: int) -> Sequence[Sample]:
        nonlocal seen
        samples = evaluate(assignments, piece)
        seen += sum(sample.n for sample in samples)
        return samples

    return wrapped, lambda: seen
