"""Measured sensitivity: one target in one scheme at a time, on real data, paired with the baseline.

Both runs see the same samples, so what is reported is the mean of per-sample differences and its
standard error: much smaller than that of either score. Cross-entropy and KL are kept beside the
task's metric, because they add up over targets to first order and accuracy does not.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from sensprobe.plans.scheme import Scheme
from sensprobe.scores.score import Score, paired
from sensprobe.sensitivity.targets import Target

Arrays = Mapping[str, np.ndarray]
Measure = Callable[[Sequence[tuple[dict[str, Scheme], str]]], Iterable[Arrays]]
"""Resolved plans, each with a label -> per-sample arrays of the whole split, in their order."""

DIVERGENCES = ("kl", "distance")
"""Arrays that are differences from the baseline already."""


@dataclass(frozen=True, slots=True)
class Sensitivity:
    """What one target costs in one scheme. `scores`: array name -> paired difference."""

    target: Target
    scheme: Scheme
    applied: Mapping[str, Scheme]
    scores: Mapping[str, Score]


def pairs_of(
    targets: Sequence[Target], schemes: Sequence[Scheme]
) -> Iterator[tuple[Target, Scheme, dict[str, Scheme]]]:
    """Every (target, scheme) that makes sense and changes something, fitted; no duplicate fits."""
    for target in targets:
        known: list[dict[str, Scheme]] = []
        for scheme in schemes:
            fitted = target.fitted(scheme)
            if fitted is None or fitted in known or all(s.exact for s in fitted.values()):
                continue
            known.append(fitted)
            yield target, scheme, fitted


def measured(
    targets: Sequence[Target],
    schemes: Sequence[Scheme],
    measure: Measure,
    groups: np.ndarray | None = None,
    *,
    robust: bool = False,
) -> Iterator[Sensitivity]:
    """Sensitivities as they are measured, target by target; `robust` as in `score.paired`."""
    pairs = list(pairs_of(targets, schemes))
    asked = [(fitted, f"{target.name}={scheme}") for target, scheme, fitted in pairs]
    found = iter(measure([({}, "baseline"), *asked]))
    baseline = next(found)
    for (target, scheme, fitted), arrays in zip(pairs, found, strict=True):
        yield Sensitivity(
            target, scheme, fitted, differences(arrays, baseline, groups, robust=robust)
        )


def differences(
    arrays: Arrays, baseline: Arrays, groups: np.ndarray | None, *, robust: bool = False
) -> dict[str, Score]:
    """Paired difference of every array both have; divergences as they are, less nothing."""
    return {
        name: paired(values, baseline[name], groups, robust=robust)
        if name not in DIVERGENCES
        else paired(values, np.zeros(len(values)), groups, robust=robust)
        for name, values in arrays.items()
        if name in DIVERGENCES or name in baseline
    }
