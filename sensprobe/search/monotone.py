"""Noisy sensitivities made monotone: within a family, more bits never lose more.

A sensitivity is an average over samples, so two neighbours can come out in the wrong order, and a
solver would pay bytes for noise. The weighted least-squares fit that is non-increasing in bits
(pool adjacent violators, weights 1/stderr²) removes that. It works within an option's `family`
only: bits order int4…int8 of one granularity, not int8 per tensor against int6 per head, where
the order can truly be the other way.

The floor is 0: no storage makes a model better on purpose, and a KL divergence cannot be negative.
Clipping the fit is the exact fit under both constraints. What noise hides below the floor ties at
0 there, and ties go to fewer bytes; real evaluations decide later.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from sensprobe.search.problem import OVERFLOW_NATS, Array, Decision, Option, Problem


def non_increasing(values: Array, weights: Array) -> Array:
    """The non-increasing sequence with least weighted squared distance to `values` (PAV)."""
    blocks: list[tuple[float, float, int]] = []  # mean, weight, length
    for value, weight in zip(values.tolist(), weights.tolist(), strict=True):
        blocks.append((value, weight, 1))
        while len(blocks) > 1 and blocks[-2][0] < blocks[-1][0]:
            (left, left_weight, m), (right, right_weight, n) = blocks[-2:]
            both = left_weight + right_weight
            mean = (left * left_weight + right * right_weight) / both
            blocks[-2:] = [(mean, both, m + n)]
    return np.repeat([block[0] for block in blocks], [block[2] for block in blocks])


def monotone(problem: Problem) -> Problem:
    """The problem with its losses fitted, family by family; pairs and bytes stay as they are."""
    return replace(problem, decisions=tuple(_fit(decision) for decision in problem.decisions))


def _fit(decision: Decision) -> Decision:
    fitted = list(decision.options)
    for family in {option.family for option in decision.options}:
        members = [k for k, option in enumerate(decision.options) if option.family == family]
        # of equal bits the worse comes first: equal bits claim no order
        members.sort(key=lambda k: (decision.options[k].bits, -decision.options[k].loss))
        options = [decision.options[k] for k in members]
        losses = np.array([min(option.loss, OVERFLOW_NATS) for option in options])
        for k, loss in zip(members, non_increasing(losses, _weights(options)), strict=True):
            fitted[k] = replace(decision.options[k], loss=max(float(loss), 0.0))
    return replace(decision, options=tuple(fitted))


def _weights(options: list[Option]) -> Array:
    """1/stderr², with a floor that keeps an exact value (stderr 0) heavy yet finite."""
    errors = np.array([option.stderr for option in options])
    known = errors[(errors > 0) & np.isfinite(errors)]
    floor = float(known.min()) * 1e-3 if len(known) else 1.0
    errors = np.where(np.isfinite(errors), errors, known.max() if len(known) else 1.0)
    return np.asarray(1.0 / np.maximum(errors, floor) ** 2)
