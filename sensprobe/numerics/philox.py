"""Philox 4x32-10 as tensor arithmetic: random bits that depend only on where they are used.

Salmon et al. 2011, "Parallel random numbers: as easy as 1, 2, 3". A counter (which value, which
step, which sequence) and a key (seed, site) give the bits, so stochastic rounding is the same in
any batch, in any order, in the reference and in every kernel.
"""

from __future__ import annotations

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


def philox(counter: tuple[Tensor, Tensor, Tensor, Tensor], key: tuple[int, int]) -> list[Tensor]:
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


def noise_like(x: Tensor, key: tuple[int, int], first: int = 0, step: int = 0) -> Tensor:
    """Uniform noise for every element of x, by position; `first` shifts the leading index.

    x has at most four axes. The leading one counts samples for activations, so that a sample's
    noise is the same in any batch. `step` shifts the second of three or more, which counts time.
    """
    if x.ndim > 4:
        raise ValueError(f"positions have at most four axes, not {x.ndim}")
    indices = []
    for axis in range(4):
        place = axis - (4 - x.ndim)
        if place < 0:
            indices.append(torch.zeros((), dtype=torch.int64))
            continue
        shift = first if place == 0 else step if place == 1 and x.ndim > 2 else 0
        index = torch.arange(x.shape[place]) + shift
        indices.append(index.view([-1 if a == place else 1 for a in range(x.ndim)]))
    word = philox((indices[3], indices[2], indices[1], indices[0]), key)[0]
    return unit(word).expand(x.shape).to(x.device)
