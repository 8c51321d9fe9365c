"""The results of lm-eval as plain rows, and two models' results compared sample by sample.

lm-eval aggregates per-sample values its own way. Their differences here are, with errors from the
samples (`score.paired`):

    mean (acc, acc_norm, exact_match, …)    the mean of the differences
    perplexity                              of its logarithm: nats a sample
    word_, byte_perplexity, bits_per_byte   of its logarithm (bits_per_byte: of itself): all that is
                                            lost over all words or bytes, a ratio of sums
    a group                                 the mean of its tasks', weighted as the group's score is
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from math import isclose, log, sqrt
from typing import Any

import numpy as np

from sensprobe.scores.score import Score, mean, paired

Results = Mapping[str, Any]
"""The value of `lm_eval.simple_evaluate`, with samples."""
PER_WEIGHT = {"bits_per_byte": -1 / log(2), "word_perplexity": -1.0, "byte_perplexity": -1.0}
"""Metrics of which a sample has (log-likelihood, weight), and what makes a ratio of them a loss."""
UNITS = {
    "bits_per_byte": "bits a byte",
    "word_perplexity": "nats a word",
    "byte_perplexity": "nats a byte",
    "perplexity": "nats a sample",
}


def rows(found: Results, base: Results | None = None) -> list[dict[str, Any]]:
    """task, members (of a group), metric, filter, value, stderr (None where lm-eval gives none), n
    and higher_is_better of every score, groups first.

    With `base`, results on the same samples, also `baseline` and `difference`: value, stderr, n and
    unit; where there is no way to pair them, only the baseline.
    """
    groups = {name for name, members in found["group_subtasks"].items() if members}
    names = sorted(found["results"], key=lambda name: (name not in groups, name))
    return [
        _row(found, base, name, key)
        for name in names
        for key in found["results"][name]
        if "," in key and "_stderr," not in key
    ]


def _row(found: Results, base: Results | None, name: str, key: str) -> dict[str, Any]:
    metric, _, filter_ = key.partition(",")
    scores = found["results"][name]
    row = {
        "task": name,
        "members": list(found["group_subtasks"].get(name) or ()),
        "metric": metric,
        "filter": filter_,
        **_score(scores, metric, filter_),
        "n": _count(found, name),
        "higher_is_better": found["higher_is_better"].get(name, {}).get(metric),
    }
    if base is not None:
        row["baseline"] = _score(base["results"][name], metric, filter_)
        if (gap := _difference(found, base, name, metric, filter_)) is not None:
            unit = UNITS.get(metric, metric)
            row["difference"] = {**asdict(gap), "unit": unit}
    return row


def _score(scores: Mapping[str, Any], metric: str, filter_: str) -> dict[str, float | None]:
    error = scores.get(f"{metric}_stderr,{filter_}")
    return {
        "value": float(scores[f"{metric},{filter_}"]),
        "stderr": float(error) if isinstance(error, int | float) else None,
    }


def _leaves(found: Results, name: str) -> list[str]:
    members = found["group_subtasks"].get(name) or ()
    return [leaf for member in members for leaf in _leaves(found, member)] or [name]


def _count(found: Results, name: str) -> int:
    return sum(int(found["n-samples"][leaf]["effective"]) for leaf in _leaves(found, name))


def _difference(
    found: Results, base: Results, name: str, metric: str, filter_: str
) -> Score | None:
    leaves = _leaves(found, name)
    gaps = [_paired(found, base, leaf, metric, filter_) for leaf in leaves]
    known = [gap for gap in gaps if gap is not None]
    if not known or len(known) < len(gaps):
        return None
    if leaves == [name]:
        return known[0]
    weights = _weights((found, base), name, f"{metric},{filter_}", leaves)
    value = float(weights @ [gap.value for gap in known])
    error = sqrt(float(weights**2 @ [gap.stderr**2 for gap in known]))
    return Score(value, error, sum(g.n for g in known), sum(g.clusters for g in known))


def _weights(both: Sequence[Results], name: str, key: str, leaves: Sequence[str]) -> np.ndarray:
    """The weight of each task in its group's score: equal, or by size. The scores tell which."""

    def alike(found: Results) -> bool:
        values = [found["results"][leaf][key] for leaf in leaves]
        return isclose(found["results"][name][key], sum(values) / len(values), rel_tol=1e-9)

    same = all(alike(found) for found in both)
    weights = np.array([1 if same else _count(both[0], leaf) for leaf in leaves], float)
    return weights / weights.sum()


def _paired(found: Results, base: Results, task: str, metric: str, filter_: str) -> Score | None:
    """The difference on the same documents; None where values are of a kind unknown here."""
    new, old = (_values(results, task, metric, filter_) for results in (found, base))
    if not new or new.keys() != old.keys():
        return None
    order = sorted(new)
    try:
        a, b = (np.array([side[i] for i in order], float) for side in (new, old))
    except (TypeError, ValueError):
        return None
    if metric in PER_WEIGHT and a.ndim == 2:
        return _ratio(a, b, PER_WEIGHT[metric])
    if a.ndim != 1:
        return None
    return paired(-a, -b) if metric == "perplexity" else paired(a, b)


def _values(results: Results, task: str, metric: str, filter_: str) -> dict[int, Any]:
    """Document -> its value."""
    samples: Sequence[Mapping[str, Any]] = results["samples"].get(task, ())
    return {
        int(one["doc_id"]): one[metric]
        for one in samples
        if one.get("filter", filter_) == filter_ and metric in one
    }


def _ratio(a: np.ndarray, b: np.ndarray, factor: float) -> Score:
    """factor · Σ (l_a - l_b) / Σ w of values (n, 2) of log-likelihood and weight.

    The error is that of a ratio of sums with the weights as given: of Σ (d - ratio · w).
    """
    lost, weight = factor * (a[:, 0] - b[:, 0]), a[:, 1]
    ratio = float(lost.sum() / weight.sum())
    centred = mean((lost - ratio * weight) * len(a) / weight.sum())
    return Score(ratio, centred.stderr, centred.n, centred.clusters)
