from __future__ import annotations

import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from search_problems import every, random_problem

from sensprobe.errors import UsageError
from sensprobe.search.frontier import every_point, sweep
from sensprobe.search.problem import Decision, Option, Pair, Problem

seeds = st.integers(0, 10**6)


def lower_hull_by_pairs(points: list[tuple[int, float]]) -> list[tuple[int, float]]:
    """Front points no chord between two others passes below: the definition, cubic."""
    best: dict[int, float] = {}
    for size, loss in points:
        best[size] = min(loss, best.get(size, np.inf))
    front = [(s, v) for s, v in best.items() if all(v < w for t, w in best.items() if t < s)]
    hull = []
    for size, loss in front:
        left = [p for p in front if p[0] < size]
        right = [p for p in front if p[0] > size]
        chords = (a[1] + (b[1] - a[1]) * (size - a[0]) / (b[0] - a[0]) for a in left for b in right)
        if all(loss < chord - 1e-9 for chord in chords):
            hull.append((size, loss))
    return sorted(hull)


@settings(max_examples=60, deadline=None)
@given(seeds)
def test_sweep_holds_every_corner_and_lies_on_the_hull(seed: int) -> None:
    problem = random_problem(seed)
    hull = sweep(problem)
    corners = lower_hull_by_pairs(
        [(problem.size(a).total, problem.loss(a)) for a in every(problem)]
    )
    got = dict(zip(hull.total_bytes.tolist(), hull.loss.tolist(), strict=True))
    for size, loss in corners:
        assert got[size] == pytest.approx(loss, abs=1e-9)
    xs, ys = zip(*corners, strict=True)
    assert np.interp(hull.total_bytes, xs, ys) == pytest.approx(hull.loss, abs=1e-9)


@given(seeds)
def test_breakpoints_are_the_assignments_they_name(seed: int) -> None:
    problem = random_problem(seed, decisions=6, options=4)
    hull = sweep(problem)
    for k, assignment in enumerate(hull.assignments()):
        assert assignment == hull.assignment(k)
        assert problem.size(assignment).total == hull.total_bytes[k]
        assert problem.loss(assignment) == pytest.approx(hull.loss[k], abs=1e-9)


@settings(max_examples=40, deadline=None)
@given(seeds, st.integers(0, 3))
def test_every_point_is_the_front_of_all(seed: int, pairs: int) -> None:
    problem = random_problem(seed, pairs=pairs)
    best: dict[int, float] = {}
    for assignment in every(problem):
        size = problem.size(assignment).total
        best[size] = min(problem.loss(assignment), best.get(size, np.inf))
    for size, loss, assignment in (points := every_point(problem)):
        assert problem.size(assignment).total == size
        assert problem.loss(assignment) == pytest.approx(loss, abs=1e-9)
    got_size, got_loss = [p[0] for p in points], [p[1] for p in points]
    assert got_size == sorted(set(got_size))
    for size, loss in best.items():  # at every size the front is as good as the best of all
        place = np.searchsorted(got_size, size, side="right") - 1
        assert got_loss[place] <= loss + 1e-9


def test_every_point_says_when_there_are_too_many() -> None:
    options = tuple(Option(f"{k}", k, 0, float(8 - k)) for k in range(8))
    rows = tuple(Decision(f"d{d}", "p", 0.0, options) for d in range(9))
    joined = tuple(Pair(d, 0, d + 1, 0, 1.0) for d in range(8))
    with pytest.raises(UsageError, match="too large to hold"):
        every_point(Problem(rows, pairs=joined))
    assert len(every_point(Problem(rows))) == 64


def test_sweep_takes_milliseconds_for_200_decisions_of_8_options() -> None:
    rng = np.random.default_rng(0)
    rows = tuple(
        Decision(
            f"d{d}",
            "p",
            0.0,
            tuple(
                Option(f"{k}", 1000 * (k + 1) + d, 0, float(rng.gamma(0.5) * 4.0**-k))
                for k in range(8)
            ),
        )
        for d in range(200)
    )
    problem = Problem(rows)
    took = []
    for _ in range(5):
        start = time.perf_counter()
        sweep(problem)
        took.append(time.perf_counter() - start)
    assert min(took) < 0.05
