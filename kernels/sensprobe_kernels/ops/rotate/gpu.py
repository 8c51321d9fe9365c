"""Hadamard transforms in Triton, operation for operation as `rows` has them."""

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def rotated(x, signs, base: tl.constexpr, B: tl.constexpr, P: tl.constexpr, LOG: tl.constexpr):
    """x (blocks · B, P): rows of P = 2^LOG numbers, B rows a block, of which `base` are there;
    signs: Paley's matrix, (base, base)."""
    M: tl.constexpr = x.shape[0]
    for i in tl.static_range(LOG):
        pairs = tl.permute(tl.reshape(x, (M, P >> (i + 1), 2, 1 << i)), (0, 1, 3, 2))
        a, b = tl.split(pairs)
        x = tl.reshape(tl.permute(tl.join(a + b, a - b), (0, 1, 3, 2)), (M, P))
    if base > 1:
        lines = tl.reshape(x, (M // B, B, P))
        row = tl.arange(0, B)
        total = tl.zeros((M // B, B, P), tl.float32)
        for j in tl.static_range(base):
            line = tl.sum(tl.where(row[None, :, None] == j, lines, 0.0), 1, keep_dims=True)
            sign = tl.load(signs + row * base + j, mask=row < base, other=0.0)
            total = total + sign[None, :, None] * line
        x = tl.reshape(total, (M, P))
    factor: tl.constexpr = (base * P) ** -0.5
    return x * factor
