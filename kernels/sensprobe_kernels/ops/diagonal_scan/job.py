"""The arguments of the compiled function: of one call, and of one thread of it."""

from __future__ import annotations

from typing import Any, NamedTuple

from sensprobe_kernels.quantize.spec import Settings


class Job(NamedTuple):
    """Sizes and integers of one call: not specialised on."""

    batch: int
    length: int
    heads: int
    n: int
    step: int  # steps taken before
    first: int  # position of the batch's first sequence in its data set
    state: Settings


class Tile(NamedTuple):
    """The work of one thread: sixteen sequences from b0 on, heads h0 to h1."""

    job: Job
    b0: int
    h0: int
    h1: int
    coef: Any  # (heads, n, ROW): all heads
    numbers: Any  # the scheme's constants
    state: Any  # (heads of the tile, n, 2, 16)
    residual: Any  # the same, under error feedback
    checkpoints: Any  # (chunks, as state): the state before each chunk of steps, for the gradient
    residual_checkpoints: Any  # the same of the residual
    scales: Any  # (heads of the tile, length, saved numbers of a head, 16), see `replay`
    draws: Any  # (heads of the tile, length, words of a head, 16): what random bits decided
