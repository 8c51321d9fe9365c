"""Measured sensitivity: one group in one scheme at a time, on real data, paired with the baseline.

Both runs see the same samples, so what is reported is the mean of per-sample differences and its
standard error: much smaller than that of either score. Cross-entropy and KL are kept beside the
task's metric, because they add up over groups to first order and accuracy does not.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from sensprobe.plans.scheme import Scheme
from sensprobe.scores.score import Score, paired
from sensprobe.sensitivity.groups import Group

Arrays = Mapping[str, np.ndarray]
Measure = Callable[[Sequence[tuple[dict[str, Scheme], str]]], Iterable[Arrays]]
"""Resolved plans, each with a label -> per-sample arrays of the whole split, in their order."""

DIVERGENCES = ("kl", "distance")
"""Arrays that are differences from the baseline already."""


@dataclass(frozen=True, slots=True)
class Sensitivity:
    """The loss of one group in one scheme. `scores`: array name -> paired difference."""

    group: Group
    scheme: Scheme
    applied: Mapping[str, Scheme]
    scores: Mapping[str, Score]


def pairs_of(
    groups: Sequence[Group], schemes: Sequence[Scheme]
) -> Iterator[tuple[Group, Scheme, dict[str, Scheme]]]:
    """Every (group, scheme) that makes sense and changes something, fitted; no duplicate fits."""
    for group in groups:
        known: list[dict[str, Scheme]] = []
        for scheme in schemes:
            fitted = group.fitted(scheme)
            if fitted is None or fitted in known or all(s.exact for s in fitted.values()):
                continue
            known.append(fitted)
            yield group, scheme, fitted


def measured(
    groups: Sequence[Group],
    schemes: Sequence[Scheme],
    measure: Measure,
    clusters: np.ndarray | None = None,
    *,
    robust: bool = False,
) -> Iterator[Sensitivity]:
    """Sensitivities as they are measured, group by group; `robust` as in `score.paired`."""
    pairs = list(pairs_of(groups, schemes))
    asked = [(fitted, f"{group.name}={scheme}") for group, scheme, fitted in pairs]
    found = iter(measure([({}, "baseline"), *asked]))
    baseline = next(found)
    for (group, scheme, fitted), arrays in zip(pairs, found, strict=True):
        yield Sensitivity(
            group, scheme, fitted, differences(arrays, baseline, clusters, robust=robust)
        )


def differences(
    arrays: Arrays, baseline: Arrays, clusters: np.ndarray | None, *, robust: bool = False
) -> dict[str, Score]:
    """Paired difference of every array both have; divergences as they are, less nothing."""
    return {
        name: paired(values, baseline[name], clusters, robust=robust)
        if name not in DIVERGENCES
        else paired(values, np.zeros(len(values)), clusters, robust=robust)
        for name, values in arrays.items()
        if name in DIVERGENCES or name in baseline
    }
