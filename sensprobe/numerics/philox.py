"""Philox 4x32-10 as tensor arithmetic: random bits that depend only on where they are used.

Salmon et al. 2011, "Parallel random numbers: as easy as 1, 2, 3". A counter (which value, which
step, which sequence) and a key (seed, site) give the bits, so stochastic rounding is the same in
any batch, in any order, in the reference and in every kernel.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import NamedTuple
from zlib import crc32

import torch
from torch import Tensor

_MASK = 0xFFFFFFFF
_M0, _M1 = 0xD2511F53, 0xCD9E8D57
_W0, _W1 = 0x9E3779B9, 0xBB67AE85
ROUNDS = 10


def key_of(seed: int, site: str) -> tuple[int, int]:
    """The key of a site's random bits: the seed, and a checksum of the site's name."""
    return seed & _MASK, crc32(site.encode())


def philox(counter: Sequence[Tensor], key: tuple[int, int]) -> list[Tensor]:
    """Four words of 32 random bits for each counter; int64 tensors that broadcast together.

    Products wrap modulo 2^64 in int64, which leaves both 32-bit halves right.
    """
    c0, c1, c2, c3 = counter
    k0, k1 = key
    for _ in range(ROUNDS):
        p0, p1 = c0 * _M0, c2 * _M1
        c0, c1, c2, c3 = (
            ((p1 >> 32) & _MASK) ^ c1 ^ k0,
            p1 & _MASK,
            ((p0 >> 32) & _MASK) ^ c3 ^ k1,
            p0 & _MASK,
        )
        k0, k1 = (k0 + _W0) & _MASK, (k1 + _W1) & _MASK
    return [c0, c1, c2, c3]


def unit(word: Tensor) -> Tensor:
    """A word as float32 in [0, 1), by its upper 24 bits: exact."""
    return (word >> 8).to(torch.float32) * 2.0**-24


class Grid(NamedTuple):
    """Counters in four axes, from `starts` on, `sizes` of them; the last axis is the first word of
    the counter."""

    starts: tuple[int, ...]
    sizes: tuple[int, ...]

    def counters(self) -> tuple[Tensor, ...]:
        """The words of every counter, the first one first; they broadcast to `sizes`."""
        axes = enumerate(zip(self.starts, self.sizes, strict=True))
        words = [(torch.arange(n) + s).view(-1, *[1] * (3 - axis)) for axis, (s, n) in axes]
        return tuple(reversed(words))


def grid_of(shape: Sequence[int], first: int = 0, step: int = 0) -> Grid:
    """The counters of a tensor by position: `first` shifts the leading axis, which counts sequences
    of an activation, and `step` the second of three or more, which counts time."""
    if len(shape) > 4:
        raise ValueError(f"positions have at most four axes, not {len(shape)}")
    ahead = (0,) * (4 - len(shape))
    starts = (first, step if len(shape) > 2 else 0, 0, 0)[: len(shape)]
    return Grid((*ahead, *starts), (*[1] * len(ahead), *shape))


def grid_of_state(shape: Sequence[int], first: int, step: int) -> Grid:
    """The counters of a state (batch, …, n): step, sequence, row, place. Rows count all axes
    between."""
    rows = prod(shape[1:-1])
    return Grid((step, first, 0, 0), (1, shape[0], rows, shape[-1]))


def noise_like(x: Tensor, key: tuple[int, int], first: int = 0, step: int = 0) -> Tensor:
    """Uniform noise for every element of x, which has at most four axes, by position (`grid_of`):
    a sample's noise is the same in any batch."""
    word = philox(grid_of(x.shape, first, step).counters(), key)[0]
    return unit(word).view(x.shape).to(x.device)
