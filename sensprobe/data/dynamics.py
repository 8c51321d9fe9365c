"""Chaotic systems, solved here: predict, at every step, the value some steps ahead.

    mackey-glass[,length=1000][,ahead=15]     dx/dt = 0.2 x(t-17) / (1 + x(t-17)^10) - 0.1 x
    lorenz[,length=1000][,ahead=25]           dx/dt = 10 (y - x), dy/dt = x (28 - z) - y,
                                              dz/dt = x y - 8/3 z; of which x is read and predicted

Mackey and Glass (1977, Science 197) with the delay of Voelker, Kajić and Eliasmith (2019, NeurIPS),
and Lorenz (1963, Journal of the Atmospheric Sciences 20). Both are solved by the classical
Runge-Kutta method of order 4 in float64: in steps of 0.1 with a value a unit of time, and in steps
of 0.01 with a value every 0.02. Delayed values between two steps are those of the cubic through the
values and slopes at both.

Every sequence starts on its own, from uniform random numbers: Mackey-Glass from a constant past in
[0.5, 1.5), Lorenz from x and y in [-10, 10) and z in [15, 35). 1,000 values are discarded. Then
come `length` inputs, and targets are the values `ahead` steps later, all less the mean of the train
split's values and over their standard deviation. So the root of a sequence's mean squared error is
the normalised one (NRMSE): 1 is what predicting the mean scores, 0 a perfect prediction. All steps
count, the first ones too.

Sequences are confirmation (128), search (128), calibration (64) and train (512), in the order in
which they are drawn: bits are those of numpy's Philox, whose raw stream is the same everywhere and
for good, with the seed 0 as its key. The solvers add, multiply and divide, and sums are rounded
once, so that values are the same on every machine.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, partial
from math import fsum, sqrt

import numpy as np

from sensprobe.data.dataset import Dataset, LazySplit, Split, Splits, build_split
from sensprobe.data.options import read_options
from sensprobe.errors import UsageError

SIZES = {"confirmation": 128, "search": 128, "calibration": 64, "train": 512}
SEED, LENGTH, DISCARDED = 0, 1000, 1000
DELAY, DELAY_STEPS = 17, 10
"""Of Mackey-Glass: the delay, and the steps of its solver in a unit of time."""
LORENZ_STEP, LORENZ_STEPS = 0.01, 2
"""The solver's step, and the steps from one value to the next."""


@dataclass(frozen=True, slots=True)
class System:
    """A system: how many numbers it starts from, and the values (n, count) after them; and how
    many steps ahead it is predicted."""

    starts: int
    solve: Callable[[np.ndarray, int], np.ndarray]
    ahead: int


def mackey_glass(start: np.ndarray, count: int, steps: int = DELAY_STEPS) -> np.ndarray:
    """x (n, count) at the times 1, 2, … from constant pasts; start (n, 1) in [0, 1), `steps` of
    the solver a unit of time."""
    delay, h = DELAY * steps, 1 / steps
    x = np.empty((delay + count * steps + 1, len(start)))
    slope = np.zeros_like(x)
    x[: delay + 1] = 0.5 + start[:, 0]
    for k in range(delay, len(x) - 1):
        before, after = x[k - delay], x[k - delay + 1]
        between = before  # in the constant past
        if k >= 2 * delay:
            bend = slope[k - delay] - slope[k - delay + 1]
            between = (before + after) / 2 + h / 8 * bend
        k1 = _mackey_glass_slope(x[k], before)
        k2 = _mackey_glass_slope(x[k] + h / 2 * k1, between)
        k3 = _mackey_glass_slope(x[k] + h / 2 * k2, between)
        k4 = _mackey_glass_slope(x[k] + h * k3, after)
        slope[k] = k1
        x[k + 1] = x[k] + h / 6 * (k1 + 2 * k2 + 2 * k3 + k4)
    return x[delay + steps :: steps].T


def _mackey_glass_slope(x: np.ndarray, delayed: np.ndarray) -> np.ndarray:
    square = delayed * delayed
    fourth = square * square
    return 0.2 * delayed / (1 + fourth * fourth * square) - 0.1 * x


def lorenz(start: np.ndarray, count: int, h: float = LORENZ_STEP) -> np.ndarray:
    """x (n, count), one value every 0.02; start (n, 3) in [0, 1), `h` the solver's step."""
    state = (start * 20 + np.array([-10, -10, 15])).T  # (3, n)
    found = np.empty((count, len(start)))
    for k in range(count):
        for _ in range(round(LORENZ_STEP * LORENZ_STEPS / h)):
            k1 = _lorenz_slope(state)
            k2 = _lorenz_slope(state + h / 2 * k1)
            k3 = _lorenz_slope(state + h / 2 * k2)
            k4 = _lorenz_slope(state + h * k3)
            state = state + h / 6 * (k1 + 2 * k2 + 2 * k3 + k4)
        found[k] = state[0]
    return found.T


def _lorenz_slope(state: np.ndarray) -> np.ndarray:
    x, y, z = state
    return np.stack([10 * (y - x), x * (28 - z) - y, x * y - 8 / 3 * z])


SYSTEMS = {"mackey-glass": System(1, mackey_glass, 15), "lorenz": System(3, lorenz, 25)}


def load(spec: str) -> Dataset:
    """Data of one of `SYSTEMS` under the options of `spec`."""
    name, comma, options = spec.partition(",")
    given = read_options(comma + options, spec, numbers=("length", "ahead")).numbers
    length, ahead = given.get("length", LENGTH), given.get("ahead", SYSTEMS[name].ahead)
    if min(length, ahead) < 1:
        raise UsageError(f"{spec}: length and ahead must be at least 1.")
    sources, start = {}, 0
    for split, count in SIZES.items():
        sources[split] = _lazy(name, split, slice(start, start + count), length, ahead)
        start += count
    return Dataset(spec, "regression", Splits(sources), None, 1, length, 1, per_step=True)


def _lazy(name: str, split: str, rows: slice, length: int, ahead: int) -> LazySplit:
    build = cache(partial(_split, name, split, rows, length, ahead))
    return LazySplit(rows.stop - rows.start, build, lambda: build().fingerprint)


def _split(name: str, split: str, rows: slice, length: int, ahead: int) -> Split:
    values = _values(name, length + ahead)[rows].astype(np.float32)[:, :, None]  # (n, l, 1)
    index = np.arange(rows.start, rows.stop)
    return build_split(split, values[:, :length], values[:, ahead:], index, name)


@cache
def _values(name: str, count: int) -> np.ndarray:
    """All sequences (n, count) float64, normalised by those of train."""
    system, n = SYSTEMS[name], sum(SIZES.values())
    bits = np.random.Philox(key=np.array([SEED, 0], dtype=np.uint64))
    start = (bits.random_raw(n * system.starts) >> 11) * 2.0**-53
    values = system.solve(start.reshape(n, system.starts), DISCARDED + count)[:, DISCARDED:]
    train = values[-SIZES["train"] :].ravel()
    mean = fsum(train) / train.size
    deviation = sqrt(fsum((train - mean) * (train - mean)) / train.size)
    return (values - mean) / deviation
