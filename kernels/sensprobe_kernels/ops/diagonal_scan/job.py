"""What one call and one thread of it work on."""

from __future__ import annotations

from typing import Any, NamedTuple


class Job(NamedTuple):
    """Sizes and integers of one call: not specialised on."""

    batch: int
    length: int
    heads: int
    n: int
    group: int  # states along n that share a live scale
    parts: int  # 1: live scales of real and imaginary parts apart
    scales: int  # how a live scale is stored
    every: int  # round every so many steps
    step: int  # steps taken before
    first: int  # position of the batch's first sequence in its data set
    key0: int
    key1: int


class Tile(NamedTuple):
    """What one thread works on: sixteen sequences from b0, heads h0 to h1."""

    job: Job
    b0: int
    h0: int
    h1: int
    coef: Any  # (heads, n, ROW): all heads
    numbers: Any  # the scheme's constants
    state: Any  # (heads of the tile, n, 2, 16)
    residual: Any  # the same, under error feedback
