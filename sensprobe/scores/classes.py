"""Metrics of classes: how well each is found, and scores in which every class counts alike.

Balanced accuracy is the mean of the classes' recalls, macro F1 that of their F1. Neither is a mean
over samples, so each is given as values of samples whose mean it is, and whose spread about it is
what each sample contributes (its influence): means, errors, groups and pairs of such values are
those of the metric. Values belong to the samples they were computed over, and to no part of them.

Only classes that occur among the labels count. Of balanced accuracy the error is that of means
within classes, Σ_c s_c²/n_c / K². A class of one sample says nothing of its own spread: that sample
is set against the mean of all classes instead. Of F1 the error is the delta method's.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from math import isfinite, sqrt
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sensprobe.scores.score import mean

Array = NDArray[np.float64]
Values = Callable[[NDArray[Any], NDArray[Any]], Array]
"""(labels (n,), predicted (n,), -1: none) -> values (n,)."""


def balanced_accuracy(labels: NDArray[Any], predicted: NDArray[Any]) -> Array:
    """Values whose mean is the mean recall of the classes among the labels."""
    hit = (labels == predicted).astype(np.float64)
    n = len(labels)
    classes, of, counts = np.unique(labels, return_inverse=True, return_counts=True)
    recall = np.bincount(of, weights=hit) / counts
    score = float(recall.mean())
    centre = np.where(counts > 1, recall, score)
    spread = np.where(counts > 1, np.sqrt(counts / np.maximum(counts - 1, 1)), 1.0)
    away = (hit - centre[of]) * spread[of] * n / (len(classes) * counts[of])
    away *= sqrt((n - 1) / n)  # `score.mean` puts it back
    return np.asarray(score + away - away.mean())


def macro_f1(labels: NDArray[Any], predicted: NDArray[Any]) -> Array:
    """Values whose mean is the mean F1 of the classes among the labels."""
    classes = np.unique(labels)
    out = np.zeros(len(labels))
    for one in classes:
        out += f1_of(one, labels, predicted)
    return out / len(classes)


def f1_of(one: int, labels: NDArray[Any], predicted: NDArray[Any]) -> Array:
    """Values whose mean is the F1 of one class, 2 · hits / (samples of it + predictions of it).

    With a, q and p the shares of hits, labels and predictions it is 2a / (p + q), and a sample
    moves it by (2 [hit] - F1 ([predicted] + [labelled])) / (p + q).
    """
    is_one, said = labels == one, predicted == one
    met = is_one.astype(np.float64) + said
    both = (is_one & said).astype(np.float64)
    below = met.mean()
    score = 2 * both.mean() / below
    return np.asarray(score + (2 * both - score * met) / below)


POOLED: dict[str, Values] = {"balanced_accuracy": balanced_accuracy, "f1": macro_f1}
"""Headline arrays that are computed over all samples at once."""


def per_class(
    labels: NDArray[Any],
    correct: NDArray[Any],
    predicted: NDArray[Any] | None,
    groups: NDArray[Any] | None,
) -> Iterator[dict[str, Any]]:
    """A row a class among the labels: samples, recall and, where predictions are known, how often
    it was predicted, precision (None where never) and F1.

    Each is a value with its error, which is None where one sample (or group) tells none.
    """
    for one in np.unique(labels).tolist():
        mine = labels == one
        row: dict[str, Any] = {"class": one, "n": int(mine.sum())}
        row["recall"] = _score(correct[mine], _part(groups, mine))
        if predicted is not None:
            said = predicted == one
            row["predicted"] = int(said.sum())
            row["precision"] = _score(mine[said], _part(groups, said)) if said.any() else None
            row["f1"] = _score(f1_of(one, labels, predicted), groups)
        yield row


def _part(groups: NDArray[Any] | None, where: NDArray[Any]) -> NDArray[Any] | None:
    return None if groups is None else groups[where]


def _score(values: NDArray[Any], groups: NDArray[Any] | None) -> dict[str, float | None]:
    found = mean(values, groups)
    return {"value": found.value, "stderr": found.stderr if isfinite(found.stderr) else None}
