"""Mamba-2's recurrence in Triton where its state is stored every K steps: matrix products.

A state lies packed at chunk ends, every K tokens, and is in full between them. It is read once,
stays in registers for as many chunks as there are, is rounded at the end of each, and is packed
where it came from. Inside a chunk tokens go by blocks of L: with u = dt x, h the state before a
block and S(j, i) the sum of dt A over the tokens after j up to i,

    y_i = sum over j <= i of exp(S(j, i)) (C_i · B_j) u_j  +  exp(S(-1, i)) C_i · h
    h'  = exp(S(-1, last)) h  +  sum over j of exp(S(j, last)) u_j B_j

and the last token of a chunk reads the state as stored (`sensprobe.ops.head_chunks`). Products are
float32 ones of tensor cores, three of TF32 each: a number is split into the nearest of eleven bits
and the rest, of which eleven bits are read, and what that leaves out of a product is within 2^-21
of it. Each S is a sum of its own, of numbers of one sign, so exponents are off by no more than as
many roundings, however far a block decays. Sums are in any order; the exponential, and all that
rounds the state at a chunk's end, are those of `quantize.gpu`, the reference's to the bit.

What is not finite reaches earlier tokens of its block, as in any product of matrices.
"""

from __future__ import annotations

import triton
import triton.language as tl

from sensprobe_kernels.ops.selective_scan.gpu import finished
from sensprobe_kernels.ops.state.gpu import (
    before_rounding,
    load_residual,
    load_state,
    scale_for,
    store_state,
)
from sensprobe_kernels.quantize.gpu import STOCHASTIC, exponential, kept, noise, residual_of

_THREE = tl.constexpr("tf32x3")


@triton.jit
def product(a, b):
    """a b, float32."""
    return tl.dot(a, b, input_precision=_THREE)


@triton.jit
def decays(a, L: tl.constexpr):
    """Decays of a block from its dt A: exp(S(j, i)) at (i, j), 0 where j > i; exp(S(-1, i)) (L,);
    exp(S(j, last)) (L,); exp(S(-1, last))."""
    i, j = tl.arange(0, L)[:, None], tl.arange(0, L)[None, :]
    later = tl.where(i > j, a[:, None], 0.0)
    within = tl.where(i >= j, exponential(tl.cumsum(later, 0)), 0.0)
    before = exponential(tl.cumsum(a, 0))
    after = exponential(tl.sum(later, 0))
    return within, before, after, exponential(tl.sum(a, 0))


@triton.jit
def slices(h, S: tl.constexpr):
    """(R, N) as (S, R, N / S)."""
    R: tl.constexpr = h.shape[0]
    return tl.permute(tl.reshape(h, (R, S, h.shape[1] // S)), (1, 0, 2))


@triton.jit
def whole(h):
    """(S, R, N / S) as (R, N): undoes `slices`."""
    R: tl.constexpr = h.shape[1]
    return tl.reshape(tl.permute(h, (1, 0, 2)), (R, h.shape[0] * h.shape[2]))


@triton.jit
def block(h, u, a, B, C, L: tl.constexpr):
    """y (L, R) of a block and the state (S, R, M) after it; u (L, R), a (L,), B and C (S, L, M). A
    token that is not there has zeros."""
    S: tl.constexpr = h.shape[0]
    R: tl.constexpr = h.shape[1]
    within, before, after, through = decays(a, L)
    pairs = tl.sum(product(C, tl.permute(B, (0, 2, 1))), 0)
    y = product(within * pairs, u)
    y += before[:, None] * tl.sum(product(C, tl.permute(h, (0, 2, 1))), 0)
    drive = tl.broadcast_to(tl.trans(after[:, None] * u)[None], (S, R, L))
    return y, through * h + product(drive, B)


@triton.jit
def chunks(
    x, dt, A, B, C, D, gate, y, codes, scale, zero, residual, known, known_zero, slots, times, key0,
    key1, length, heads, own, pitch, each, x_pitch, dt_pitch, b_pitch, gate_pitch, y_pitch, dynamic,
    stride, shared, span, every,
    n: tl.constexpr, N: tl.constexpr, R: tl.constexpr, S: tl.constexpr, L: tl.constexpr,
    SKIPS: tl.constexpr, GATED: tl.constexpr, c: tl.constexpr, r: tl.constexpr,
):  # fmt: skip
    """`length` tokens of each sequence, the first of which begins a chunk of `every`; a last chunk
    that is not filled leaves the stored state as it was. A program is R rows of a head.

    x, y (batch, length, heads · own); dt (batch, length, heads); A (heads,); B, C (batch, length,
    heads / shared, n). codes: `each` a slot, of rows of `pitch` bytes; scale, zero: `dynamic` a
    slot. slots (batch,) int64: where each state lies; times (slots,) int32: the steps it has taken.
    n: states a row, N: padded, in S slices. Pitches: from one token to the next.
    """
    part, b = tl.program_id(0), tl.program_id(1)
    slot = tl.load(slots + b)
    rows, parts = heads * own, tl.cdiv(own, R)
    head, place = part // parts, part % parts * R + tl.arange(0, R)[:, None]
    row, col, inside = head * own + place, tl.arange(0, N)[None, :], place < own
    there = inside & (col < n)
    codes, residual = codes + slot * each, residual + slot * rows * n
    scale, zero = scale + slot * dynamic, zero + slot * dynamic
    h, _, s, z = load_state(
        codes, scale, zero, residual, known, known_zero, part,
        row, n, pitch, stride, inside, N, c, r,
    )  # fmt: skip
    h = slices(h, S)
    time, rate = tl.load(times + slot), tl.load(A + head)
    wide, mine = tl.trans(row), tl.trans(inside)
    M: tl.constexpr = N // S
    state = tl.arange(0, S)[:, None, None] * M + tl.arange(0, M)[None, None, :]
    group = head // shared * n
    # What chunk ends and addresses need is computed there: kept through blocks, registers run out.
    for start in tl.range(0, length, every, disable_licm=True):
        end = tl.minimum(start + every, length)
        full = start + every <= length
        for first in tl.range(start, end, L, disable_licm=True):
            t = first + tl.arange(0, L)
            token = b * length + t
            step = tl.load(dt + token * dt_pitch + head, mask=t < end, other=0.0)
            token, now = token[:, None], (t < end)[:, None]
            u = tl.load(x + token * x_pitch + wide, mask=now & mine, other=0.0)
            at = group + token[None] * b_pitch + state
            keys = tl.load(B + at, mask=now[None] & (state < n), other=0.0)
            queries = tl.load(C + at, mask=now[None] & (state < n), other=0.0)
            out, h = block(h, step[:, None] * u, step * rate, keys, queries, L)
            reads = now & mine & ((t[:, None] < end - 1) | (not full))
            out = finished(
                out, u, D, gate + token * gate_pitch, wide, span, reads, SKIPS, GATED
            )  # fmt: skip
            tl.store(y + token * y_pitch + wide, out, mask=reads)
        if full:
            e = load_residual(residual, row, n, inside, N, r)
            v = before_rounding(whole(h), e, r)
            s, z = scale_for(v, there, s, z, r)
            bits = 0.0
            if r.rounding == STOCHASTIC:
                bits = noise(col, row, slot, time + end - 1, key0, key1)
            back = kept(v, s, z, bits, r)
            if r.feedback:
                e = residual_of(v, back, s, z, r)
            token = b * length + end - 1
            u = tl.load(x + token * x_pitch + row, mask=inside, other=0.0)
            query = tl.load(C + group + token * b_pitch + col, mask=col < n, other=0.0)
            out = tl.sum(tl.where(there, back * query, 0.0), 1)[:, None]
            out = finished(
                out, u, D, gate + token * gate_pitch, row, span, inside, SKIPS, GATED
            )  # fmt: skip
            tl.store(y + token * y_pitch + row, out, mask=inside)
            store_state(
                codes, scale, zero, residual, back, e, s, z, part, row, n, pitch, inside, N, c, r
            )
            h = slices(back, S)
