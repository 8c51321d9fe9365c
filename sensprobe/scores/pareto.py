"""Fronts of (bytes, score): fewer bytes and a higher score are better.

NumPy alone, so that reports can use it. Bytes are compared on a logarithmic axis, where halving the
memory counts the same anywhere.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray


def nondominated(size_bytes: ArrayLike, score: ArrayLike) -> NDArray[np.intp]:
    """Indices of the points no other beats, in growing bytes (and so in growing score).

    Of equal points the first is kept. NaN scores never enter.
    """
    size, value = np.asarray(size_bytes, float), np.asarray(score, float)
    order = np.lexsort((np.arange(len(size)), -value, size))
    order = order[~np.isnan(value[order])]
    best = np.maximum.accumulate(value[order]) if len(order) else value[order]
    rises = np.ones(len(order), bool)
    rises[1:] = best[1:] > best[:-1]
    return order[rises]


def hypervolume(
    size_bytes: ArrayLike, score: ArrayLike, *, reference_bytes: float, reference_score: float
) -> float:
    """Area between the front and the reference point, score times natural log of bytes, exact.

    Points at or beyond the reference, in bytes or in score, do not count.
    """
    size, value = np.asarray(size_bytes, float), np.asarray(score, float)
    inside = (size < reference_bytes) & (value > reference_score)
    size, value = size[inside], value[inside]
    front = nondominated(size, value)
    edges = np.log(np.append(size[front], reference_bytes))
    return float(np.sum(np.diff(edges) * (value[front] - reference_score)))
