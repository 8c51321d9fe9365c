"""The short causal convolution in Triton, its window packed between tokens.

y = w_0 h_0 + … + w_{n-1} h_{n-1} + w_n x + bias, in that order; then x enters the window, which is
rounded. Windows and outputs equal the reference bit for bit.
"""

from __future__ import annotations

import triton
import triton.language as tl

from sensprobe_kernels.ops.state.gpu import load_state, scale_for, store_state
from sensprobe_kernels.quantize.gpu import STOCHASTIC, clamp, kept, noise, silu


@triton.jit
def _column(x, i, N: tl.constexpr):
    """Column i of a tile, (R, 1)."""
    return tl.sum(tl.where(tl.arange(0, N)[None, :] == i, x, 0.0), 1)[:, None]


@triton.jit
def convolve(
    x, weight, bias, y, codes, scale, zero, known, known_zero, slots, times, key0, key1, length,
    rows, each, x_pitch, dynamic, stride,
    n: tl.constexpr, N: tl.constexpr, R: tl.constexpr, BIASED: tl.constexpr, ACTIVE: tl.constexpr,
    c: tl.constexpr, r: tl.constexpr,
):  # fmt: skip
    """x, y (batch, length, rows), weight (rows, n + 1), bias (rows,); windows as states in
    `selective_scan.gpu.scan`, of codes in rows of whole bytes or ragged. ACTIVE: silu(y)."""
    block, b = tl.program_id(0), tl.program_id(1)
    slot = tl.load(slots + b)
    row, col = block * R + tl.arange(0, R)[:, None], tl.arange(0, N)[None, :]
    inside = row < rows
    there = inside & (col < n)
    codes, scale, zero = codes + slot * each, scale + slot * dynamic, zero + slot * dynamic
    h, e, s, z = load_state(
        codes, scale, zero, codes, known, known_zero, block, row, n, n, stride, inside, N, c, r
    )
    time = tl.load(times + slot)
    for t in range(length):
        token = b * length + t
        u = tl.load(x + token * x_pitch + row, mask=inside, other=0.0)
        total = tl.full((R, 1), -0.0, tl.float32)
        v = tl.zeros((R, N), tl.float32)
        for i in tl.static_range(n):
            past = _column(h, i, N)
            total = total + tl.load(weight + row * (n + 1) + i, mask=inside, other=0.0) * past
            v = tl.where(col == i, u if i == n - 1 else _column(h, i + 1, N), v)
        total = total + tl.load(weight + row * (n + 1) + n, mask=inside, other=0.0) * u
        if BIASED:
            total = total + tl.load(bias + row, mask=inside, other=0.0)
        if ACTIVE:
            total = silu(total)
        tl.store(y + token * x_pitch + row, total, mask=inside)
        if r.clipped:
            v = clamp(v, -r.clip, r.clip)
        s, z = scale_for(v, there, s, z, r)
        bits = 0.0
        if r.rounding == STOCHASTIC:
            bits = noise(col, row, slot, time + t, key0, key1)
        h = kept(v, s, z, bits, r)
    store_state(codes, scale, zero, codes, h, e, s, z, block, row, n, n, inside, N, c, r)
