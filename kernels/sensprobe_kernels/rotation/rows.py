"""Hadamard transforms of rows, operation for operation as `sensprobe.transforms` defines them."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from sensprobe_kernels.stored.flags import inline
from sensprobe_kernels.stored.source import compiled, fingerprint

_SOURCE = fingerprint(Path(__file__).parent)


class Blocks(NamedTuple):
    """Flat float32 arrays. x and out: blocks of base · power numbers. signs: (base, base)."""

    base: int
    power: int
    factor: np.float32  # 1/√(base · power)
    signs: Any
    x: Any
    out: Any


@inline
def _butterflies(line: Any, count: int, power: int) -> None:
    """Sylvester's matrix, on each run of `power` numbers."""
    half = 1
    while half < power:
        for start in range(0, count, 2 * half):
            for i in range(start, start + half):
                a, b = line[i], line[i + half]
                line[i], line[i + half] = a + b, a - b
        half *= 2


@inline
def _mixed(line: Any, out: Any, at: int, blocks: Blocks) -> None:
    """Paley's matrix, its columns in order."""
    power = blocks.power
    for m in range(blocks.base):
        to = at + m * power
        sign = blocks.signs[m * blocks.base]
        for k in range(power):
            out[to + k] = sign * line[k]
        for j in range(1, blocks.base):
            sign = blocks.signs[m * blocks.base + j]
            for k in range(power):
                out[to + k] += sign * line[j * power + k]


@cache
def build() -> Callable[..., int]:
    """The compiled transform: takes Blocks, scratch for one block, the first block and the one
    after the last. It returns the fingerprint of its source."""
    source = _SOURCE  # in the closure, hence in the key under which Numba caches

    def turn_blocks(blocks: Blocks, line: Any, start: int, stop: int) -> int:
        count = blocks.base * blocks.power
        for block in range(start, stop):
            at = block * count
            for i in range(count):
                line[i] = blocks.x[at + i]
            _butterflies(line, count, blocks.power)
            if blocks.base > 1:
                _mixed(line, blocks.out, at, blocks)
            else:
                for i in range(count):
                    blocks.out[at + i] = line[i]
            for i in range(at, at + count):
                blocks.out[i] *= blocks.factor
        return source

    return compiled(turn_blocks)
