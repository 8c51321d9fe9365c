"""Hadamard transforms of rows, operation for operation as `numerics.transforms` defines them.

Sixteen numbers at a time: vectors may reach beyond a block, but what lies there mixes with nothing
inside, since runs of a power of two do not cross.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from math import sqrt
from typing import Any, NamedTuple

import numpy as np

from sensprobe_kernels.jit import compiled, inline, noinline
from sensprobe_kernels.simd.vector import (
    LANES,
    butterfly1,
    butterfly2,
    butterfly4,
    butterfly8,
    every,
    load,
    spread,
    store,
    store_first,
)


class Rotation(NamedTuple):
    """A transform of blocks of base · power numbers; `signs` is where the base's matrix (base,
    base), as it is applied, starts among the float32 constants."""

    base: int
    power: int
    signs: int


@inline
def _butterflies(line: Any, count: int, power: int) -> None:
    """Sylvester's matrix, on each run of `power` numbers."""
    for i in range(0, count, LANES):
        v = load(line, i)
        if power > 1:
            v = butterfly1(v)
        if power > 2:
            v = butterfly2(v)
        if power > 4:
            v = butterfly4(v)
        if power > 8:
            v = butterfly8(v)
        store(line, i, v)
    half = LANES
    while half < power:
        for start in range(0, count, 2 * half):
            for i in range(start, start + half, LANES):
                a, b = load(line, i), load(line, i + half)
                store(line, i, a + b)
                store(line, i + half, a - b)
        half *= 2


@inline
def _mixed(line: Any, rotation: Rotation, signs: Any, out: Any, to: int, factor: float) -> None:
    """Paley's matrix, its columns in order, and the factor."""
    base, power = rotation.base, rotation.power
    for m in range(base):
        row = rotation.signs + m * base
        for k in range(0, power, LANES):
            y = spread(signs, row) * load(line, k)
            for j in range(1, base):
                y = y + spread(signs, row + j) * load(line, j * power + k)
            store_first(out, to + m * power + k, min(LANES, power - k), y * every(factor))


@noinline
def rotate_row(
    rotation: Rotation, signs: Any, x: Any, at: int, out: Any, to: int, size: int, line: Any
) -> None:
    """Every block of `size` numbers from x[at] to out[to], which may be the same; `line` is scratch
    for a block and a vector more."""
    count = rotation.base * rotation.power
    factor = np.float32(1.0 / sqrt(count))
    for block in range(0, size, count):
        for i in range(count):
            line[i] = x[at + block + i]
        _butterflies(line, count, rotation.power)
        if rotation.base > 1:
            _mixed(line, rotation, signs, out, to + block, factor)
            continue
        for i in range(0, count, LANES):
            left = min(LANES, count - i)
            store_first(out, to + block + i, left, load(line, i) * every(factor))


@noinline
def rotate_in_float64(
    rotation: Rotation, signs: Any, x: Any, at: int, size: int, line: Any
) -> None:
    """Transform `size` numbers in place, computing in float64 as weights are decoded; `line` is
    float64 scratch for one block."""
    count, power = rotation.base * rotation.power, rotation.power
    factor = 1.0 / sqrt(count)
    for first in range(at, at + size, count):
        for i in range(count):
            line[i] = x[first + i]
        half = 1
        while half < power:
            for start in range(0, count, 2 * half):
                for i in range(start, start + half):
                    a, b = line[i], line[i + half]
                    line[i], line[i + half] = a + b, a - b
            half *= 2
        for i in range(count):
            y = line[i]
            if rotation.base > 1:
                row, k = rotation.signs + i // power * rotation.base, i % power
                y = signs[row] * line[k]
                for j in range(1, rotation.base):
                    y += signs[row + j] * line[j * power + k]
            x[first + i] = np.float32(y * factor)


@cache
def build() -> Callable[..., None]:
    """The compiled transform of rows of one block each: takes a Rotation, signs, numbers, where to
    put them, scratch, the first row and the one after the last."""

    def rotate_rows(
        rotation: Rotation, signs: Any, x: Any, out: Any, line: Any, start: int, stop: int
    ) -> None:
        count = rotation.base * rotation.power
        at = start * count
        rotate_row(rotation, signs, x, at, out, at, (stop - start) * count, line)

    return compiled(rotate_rows)
