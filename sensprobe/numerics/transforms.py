"""Rotation by a normalised Hadamard matrix, which shares an outlier out over a whole axis.

    y = R x along the last axis,    R Rᵀ = 1,    every entry of R is ± 1/√n

Of n numbers of which one is large, R makes n of about equal size, so that one scale fits them all.
A scheme with `hadamard` rounds in that basis: rotate, round, rotate back.

**Folding.** Put on a projection's weight and on what the projection reads, with rounding Q,

    (Rᵀ Q(R x)) · (Rᵀ Q(R w)) = Q(R x)ᵀ R Rᵀ Q(R w) = Q(R x) · Q(R w)

for every row w of the weight: in exact arithmetic what is simulated here is the deployment of
QuaRot (arXiv 2404.00456) and Quamba (arXiv 2410.13229), which transforms the
activation once, online, and has the weight's transform folded into the codes it stores. Those are
the codes an exported file holds. Put on one of the two alone it is still a rounding in another
basis, but then the other side must be transformed at run time as well.

Orders: 2^k by Sylvester's construction, 12·2^k and 20·2^k by its product with Paley's matrices of
the primes 11 and 19. Any other size is rotated in blocks of the largest order that divides it (see
`fitting.hadamard_order`); odd sizes cannot be.

Arithmetic, fixed so that every batch, device of one kind and loader has the same bits: butterflies
of adjacent pairs, then pairs two apart and so on; Paley's rows summed from their first column
upward; a product with 1/√n at the end; all in x's own dtype.
"""

from __future__ import annotations

from functools import cache
from math import sqrt

import torch
from torch import Tensor

from sensprobe.plans.fitting import hadamard_order

PIECE = 2**17
"""Numbers turned at once: few enough to stay in the cache."""


def rotate(x: Tensor) -> Tensor:
    """R x along the last axis: x (…, n) real, n even; the dtype is x's."""
    return _apply(x, transpose=False)


def rotate_back(x: Tensor) -> Tensor:
    """Rᵀ x along the last axis: what `rotate` was given, within rounding."""
    return _apply(x, transpose=True)


def rotate_both(m: Tensor) -> Tensor:
    """R M Rᵀ of a square matrix: the second moment of x becomes that of R x."""
    return rotate(rotate(m).mT).mT


def _apply(x: Tensor, *, transpose: bool) -> Tensor:
    base, power = factors(x.shape[-1])
    blocks = x.reshape(-1, base, power)
    pieces = [_turned(b, transpose) for b in blocks.split(max(1, PIECE // (base * power)))]
    return (torch.cat(pieces) if len(pieces) > 1 else pieces[0]).reshape(x.shape)


def _turned(y: Tensor, transpose: bool) -> Tensor:
    """y (b, base, 2^k), every row of it a block."""
    base, power = y.shape[1:]
    y = _butterflies(y)
    if base > 1:
        rows = paley(base).to(y.dtype).to(y.device)
        y = _mixed(y, rows.mT if transpose else rows)
    return y * (1 / sqrt(base * power))


def factors(size: int) -> tuple[int, int]:
    """Base and 2^k of the blocks an axis is rotated in: the base is 1, 12 or 20."""
    order = hadamard_order(size)
    if order == 1:
        raise ValueError(f"an axis of {size} cannot be rotated: its size is odd")
    base = {1: 1, 3: 12, 5: 20}[order // (order & -order)]
    return base, order // base


def _butterflies(y: Tensor) -> Tensor:
    """Sylvester's matrix times y along the last axis, whose size is a power of two."""
    size, half = y.shape[-1], 1
    while half < size:
        a, b = y.unflatten(-1, (size // (2 * half), 2, half)).unbind(-2)
        y = torch.stack([a + b, a - b], dim=-2).flatten(-3)
        half *= 2
    return y


def _mixed(y: Tensor, rows: Tensor) -> Tensor:
    """rows (m, m) of ±1 times y (…, m, k) along its last but one axis, columns in order."""
    total = rows[:, :1] * y[..., :1, :]
    for j in range(1, rows.shape[0]):
        total = total + rows[:, j : j + 1] * y[..., j : j + 1, :]
    return total


@cache
@torch.inference_mode(False)  # kept for later calls, which may need gradients
def paley(order: int) -> Tensor:
    """Paley's first construction (1933): a matrix of ±1 with H Hᵀ = order · 1, in float64.

    order - 1 is a prime q that leaves 3 on division by 4. H = 1 + S with S skew-symmetric: a border
    of ones around χ(i - j), +1 where that is a square modulo q and -1 where it is not.
    """
    q = order - 1
    squares = {k * k % q for k in range(1, q)}
    chi = torch.tensor([0.0] + [1.0 if k in squares else -1.0 for k in range(1, q)])
    i = torch.arange(q)
    S = torch.zeros(order, order, dtype=torch.float64)
    S[0, 1:], S[1:, 0] = 1.0, -1.0
    S[1:, 1:] = chi[(i[:, None] - i) % q].double()
    return S + torch.eye(order, dtype=torch.float64)
