"""Tiles of packed states in Triton: read with their scales and residuals, rounded, written back.

A tile is (R, N): rows of a state, its columns padded to a power of two. Dynamic scales are of a row
each, or one of all rows of a program, which is block number `block`. Scales of groups along a row,
dynamic or static, come in every place of a tile.
"""

from __future__ import annotations

import triton
import triton.language as tl

from sensprobe_kernels.packing.gpu import HALF, codes_of, load_numbers, store_codes
from sensprobe_kernels.quantize.gpu import (
    GROUP,
    TENSOR,
    clamp,
    code_of,
    dynamic_scale,
    load_scale,
    store_scale,
)


@triton.jit
def load_known(scale, zero, row, stride, inside, r: tl.constexpr):
    """Static scales and zero points of rows: one for every `stride` of them, 0 for all."""
    s, z = tl.full(row.shape, 1.0, tl.float32), tl.full(row.shape, 0.0, tl.float32)
    if r.scaled:
        place = row // tl.maximum(stride, 1) * (stride > 0)
        s = load_scale(scale + place, inside, r.scales)
        if r.asym:
            z = tl.load(zero + place, mask=inside, other=0).to(tl.float32)
    return s, z


@triton.jit
def _scale_places(block, row, n, inside, N: tl.constexpr, r: tl.constexpr):
    """Where dynamic scales lie, and a mask of those there are: of rows (R, 1), that of the block
    (1, 1), or of groups, in each of their places (R, N)."""
    if r.span == TENSOR:
        at = tl.full((1, 1), block, tl.int32)
        return at, at >= 0
    elif r.group:
        col = tl.arange(0, N)[None, :]
        return row * (n // r.group) + col // r.group, inside & (col < n)
    else:
        return row, inside


@triton.jit
def store_residual(residual, e, row, n, inside, N: tl.constexpr):
    """Write the residual of a tile as `load_residual` reads it."""
    col = tl.arange(0, N)[None, :]
    tl.store(residual + row * n + col, e.to(tl.bfloat16), mask=inside & (col < n))


@triton.jit
def load_state(
    codes, scale, zero, residual, known, known_zero, block, row, n, pitch, stride, inside,
    N: tl.constexpr, c: tl.constexpr, r: tl.constexpr,
):  # fmt: skip
    """A tile of one sequence's state, its residual, scale and zero point. Rows hold n
    numbers, in codes of `pitch` bytes; `known` are static scales of every `stride` rows."""
    if r.span == GROUP or r.span == TENSOR:
        at, there = _scale_places(block, row, n, inside, N, r)
        s, z = load_scale(scale + at, there, r.scales), tl.full(at.shape, 0.0, tl.float32)
        if r.asym:
            z = tl.load(zero + at, mask=there, other=0).to(tl.float32)
    elif r.group:
        at, there = _scale_places(block, row, n, inside, N, r)
        s, z = load_known(known, known_zero, at, 1, there, r)
    else:
        s, z = load_known(known, known_zero, row, stride, inside, r)
    h = load_numbers(codes, row, 0, n, pitch, s, z, inside, N, c)
    return h, load_residual(residual, row, n, inside, N, r), s, z


@triton.jit
def load_residual(residual, row, n, inside, N: tl.constexpr, r: tl.constexpr):
    """The residual of a tile; 0 without error feedback."""
    if r.feedback:
        col = tl.arange(0, N)[None, :]
        return tl.load(residual + row * n + col, mask=inside & (col < n), other=0.0).to(tl.float32)
    else:
        return 0.0


@triton.jit
def before_rounding(v, residual, r: tl.constexpr):
    """v with the residual added, clamped: the numbers to be rounded."""
    if r.feedback:
        v = v + residual
    if r.clipped:
        v = clamp(v, -r.clip, r.clip)
    return v


@triton.jit
def scale_for(v, there, s, z, r: tl.constexpr):
    """Scale and zero point for v: dynamic ones of rows, groups or all of it, or those given."""
    if r.span == GROUP and r.group:
        R: tl.constexpr = v.shape[0]
        K: tl.constexpr = v.shape[1] // r.group
        groups, inside = tl.reshape(v, (R * K, r.group)), tl.reshape(there, (R * K, r.group))
        s, z = dynamic_scale(groups, inside, 1, r)
        s, z = tl.broadcast_to(s, (R * K, r.group)), tl.broadcast_to(z, (R * K, r.group))
        return tl.reshape(s, v.shape), tl.reshape(z, v.shape)
    elif r.span == GROUP:
        return dynamic_scale(v, there, 1, r)
    elif r.span == TENSOR:
        return dynamic_scale(v, there, -1, r)
    else:
        return s, z


@triton.jit
def store_numbers(
    codes, h, s, z, row, n, pitch, inside, N: tl.constexpr, c: tl.constexpr, r: tl.constexpr
):
    """Pack rounded numbers."""
    if c.kind >= HALF:
        col = tl.arange(0, N)[None, :]
        there = inside & (col < n)
        tl.store(codes + row * n + col, h.to(codes.dtype.element_ty), mask=there)
    else:
        store_codes(codes, codes_of(code_of(h, s, z, r), c), row, 0, pitch, inside, N, c)


@triton.jit
def store_state(
    codes, scale, zero, residual, h, e, s, z, block, row, n, pitch, inside,
    N: tl.constexpr, c: tl.constexpr, r: tl.constexpr,
):  # fmt: skip
    """Write a tile of a state as `load_state` reads it."""
    tl.debug_barrier()  # what other threads of this program read is now written
    store_numbers(codes, h, s, z, row, n, pitch, inside, N, c, r)
    if r.feedback:
        store_residual(residual, e, row, n, inside, N)
    if r.span == GROUP or r.span == TENSOR:
        at, there = _scale_places(block, row, n, inside, N, r)
        if r.group:
            there = there & (tl.arange(0, N)[None, :] % r.group == 0)
        store_scale(scale + at, s, there, r.scales)
        if r.asym:
            tl.store(zero + at, z.to(zero.dtype.element_ty), mask=there)
