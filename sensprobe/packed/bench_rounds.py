"""Several things timed in turns, round after round, so that what slows the machine slows them all.

In a round each runs a few times, and the mean of the middle half of them counts; over the rounds,
the median and its standard error. What is compared is divided round by round.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from math import pi, sqrt
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import ArrayLike

ROUNDS, FEWEST = 21, 5
LEAST_SECONDS = 0.02
"""How long one thing is timed in a round, where that is at least one run of it."""
LONGEST_SECONDS = 6.0
"""How long one thing is timed in all, where `FEWEST` rounds take no longer."""
NORMAL_QUARTILES = 1.349
"""Standard deviations between the quartiles of a normal distribution."""

Subject = Callable[[int], Mapping[str, float]]
"""Runs so many times, and returns seconds of one run by name."""


class Told(NamedTuple):
    """A median over rounds, its standard error, the quartiles, and how many rounds there were."""

    value: float
    stderr: float
    quartiles: tuple[float, float]
    rounds: int


def told(values: ArrayLike) -> Told:
    """Summarise at least two values. The standard error is that of the median of a normal
    distribution whose quartiles are those of the values: one stray value does not move it."""
    low, middle, high = np.percentile(np.asarray(values, np.float64), (25, 50, 75))
    count = int(np.size(values))
    spread = (high - low) / NORMAL_QUARTILES
    return Told(
        float(middle), float(sqrt(pi / 2) * spread / sqrt(count)), (float(low), float(high)), count
    )


def middle(seconds: ArrayLike) -> Any:
    """The mean of the middle half of some values, along the first axis."""
    ordered = np.sort(np.asarray(seconds, np.float64), axis=0)
    cut = len(ordered) // 4
    return ordered[cut : len(ordered) - cut].mean(axis=0)


def calls(name: str, run: Callable[[], Any], *, cuda: bool = False) -> Subject:
    """A subject that is called, one time after the other."""

    def timed(count: int) -> dict[str, float]:
        if cuda:  # calls only queue work: what is timed is all of it
            began = time.perf_counter()
            for _ in range(count):
                run()
            torch.cuda.synchronize()
            return {name: (time.perf_counter() - began) / count}
        found = []
        for _ in range(count):
            began = time.perf_counter()
            run()
            found.append(time.perf_counter() - began)
        return {name: float(middle(found))}

    return timed


class Rounds:
    """Groups of subjects, timed in turns; the subjects of a group run in the same rounds, those of
    slow groups in fewer of them."""

    def __init__(self, groups: Sequence[Sequence[Subject]]) -> None:
        self._planned = [[(run, _repeats(run)) for run in group] for group in groups]
        self._due = [_due(group) for group in self._planned]
        self.rounds: list[list[dict[str, float]]] = [[] for _ in groups]

    def run(self, advance: Callable[[], None]) -> None:
        """All rounds; `advance` is called after each."""
        for k in range(ROUNDS):
            for group, due, found in zip(self._planned, self._due, self.rounds, strict=True):
                if k not in due:
                    continue
                seconds: dict[str, float] = {}
                for run, (count, _) in group:
                    seconds |= run(count)
                found.append(seconds)
            advance()

    def values(self, name: str) -> np.ndarray:
        """What the rounds found under a name, in their order."""
        for found in self.rounds:
            if found and name in found[0]:
                return np.array([one[name] for one in found])
        raise KeyError(name)


def _repeats(run: Subject) -> tuple[int, float]:
    """Return how many runs take long enough to time, and how long they take in seconds. The first
    run compiles and fills caches."""
    run(1)
    began = time.perf_counter()
    run(1)
    one = max(time.perf_counter() - began, 1e-7)
    count = max(1, int(LEAST_SECONDS / one))
    return count, count * one


def _due(group: Sequence[tuple[Subject, tuple[int, float]]]) -> frozenset[int]:
    """The rounds in which a group runs, spread over all of them."""
    slowest = max((seconds for _, (_, seconds) in group), default=LEAST_SECONDS)
    count = min(ROUNDS, max(FEWEST, int(LONGEST_SECONDS / slowest)))
    return frozenset(np.linspace(0, ROUNDS - 1, count).round().astype(int).tolist())
