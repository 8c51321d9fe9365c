"""The arguments of the compiled functions of one call.

Channels go in tiles of sixteen, one a lane: a sequence's channels lie side by side in memory, and
nothing has to be transposed. A tile never holds channels of two heads. Where the channels of a head
do not fill their last tile, its last lanes repeat the last channel.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from sensprobe_kernels.quantize.spec import Settings


class Job(NamedTuple):
    """Sizes and integers of one call: not specialised on."""

    length: int
    tiles: int  # of a sequence
    heads: int
    unit: int  # tiles that go through a step together
    n: int
    channels: int  # of a head
    head: int  # tiles of a head
    groups: int  # rows of B and C a step
    first: int  # position of the batch's first sequence in its data set
    step: int  # steps taken before
    interval: int  # steps from one checkpoint of the state to the next; 0: there are none
    batch: int
    state: Settings
    decay: Settings


class Given(NamedTuple):
    """Flat float32 arrays, and two of integers that spare the loops a division a tile.

    x, y      (batch, length, tiles, 16)       A      (tiles, n, 16)
    dt        as x, or as decay                B, C   (batch, length, groups, n)
    decay     (batch, length, heads)
    state, residual  (batch, tiles, n, 16)
    Of scales known before, (5, tiles, n or 1, 16): see `Spec.known`.

    checkpoints, residual_checkpoints  (stretches, batch, tiles, n, 16): the state and the residual
    before every `interval` steps.

    Either A or decay is used, and dt is a channel's or a head's. head_of and row_of name each
    tile's head and row of B and C.
    """

    x: Any
    dt: Any
    A: Any
    decay: Any
    B: Any
    C: Any
    y: Any
    state: Any
    residual: Any
    state_known: Any
    state_numbers: Any
    decay_known: Any
    decay_numbers: Any
    head_of: Any
    row_of: Any
    checkpoints: Any
    residual_checkpoints: Any


class Place(NamedTuple):
    """A unit: its sequence, its first tile and the one after its last."""

    b: int
    k0: int
    k1: int
