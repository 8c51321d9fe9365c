from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sensprobe.scores.pareto import hypervolume, nondominated

clouds = st.lists(st.tuples(st.integers(1, 40), st.integers(0, 20)), max_size=25)


@given(clouds)
def test_nondominated_by_the_definition(points: list[tuple[int, int]]) -> None:
    kept = nondominated([p[0] for p in points], [p[1] for p in points]).tolist()
    front = {points[k] for k in kept}
    for size, score in points:
        beaten = any(s <= size and v >= score and (s, v) != (size, score) for s, v in points)
        assert ((size, score) in front) != beaten
    assert len(kept) == len(front)
    assert [points[k] for k in kept] == sorted(front)


@given(clouds)
def test_hypervolume_is_the_area_of_the_union(points: list[tuple[int, int]]) -> None:
    """Cut the plane at every coordinate; a cell counts when some point covers it."""
    reference_bytes, reference_score = 30, 3
    size = [p[0] for p in points]
    score = [p[1] for p in points]
    xs = sorted({reference_bytes, *(s for s in size if s < reference_bytes)})
    ys = sorted({reference_score, *(v for v in score if v > reference_score)})
    area = sum(
        (np.log(right) - np.log(left)) * (high - low)
        for left, right in pairwise(xs)
        for low, high in pairwise(ys)
        if any(s <= left and v >= high for s, v in points)
    )
    got = hypervolume(size, score, reference_bytes=reference_bytes, reference_score=reference_score)
    assert got == pytest.approx(area)


def test_hypervolume_by_hand_in_log_bytes() -> None:
    got = hypervolume([100, 200], [0.5, 0.9], reference_bytes=400, reference_score=0.1)
    assert got == pytest.approx(np.log(2) * 0.4 + np.log(2) * 0.8)


def test_a_nan_score_never_enters() -> None:
    assert nondominated([1, 2], [np.nan, 0.5]).tolist() == [1]
