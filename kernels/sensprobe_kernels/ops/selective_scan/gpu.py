"""The selective recurrences of Mamba and Mamba-2 in Triton, their state packed.

A state is read once, stays in registers for as many tokens as there are, is rounded after each, and
is packed where it came from.

h = store(a h + (dt x) B), y = sum of C h, float32, as `steps` has them: what is rounded equals the
reference bit for bit, given the same state and inputs; sums over n for y are in any order. Rows of
(rows, n) numbers are channels, or heads one after the other; `own` rows are of one head, and
`shared` rows read the same B and C.

x, B and C are numbers, or the int8 codes they were rounded to, times their scales: the same
numbers, but that a zero has no sign, in a quarter of the bytes.
"""

from __future__ import annotations

from typing import NamedTuple

import triton
import triton.language as tl

from sensprobe_kernels.ops.state.gpu import (
    before_rounding,
    load_known,
    load_state,
    scale_for,
    store_state,
)
from sensprobe_kernels.quantize.gpu import (
    EXACT,
    GROUP,
    NAN_CODE,
    STOCHASTIC,
    dynamic_scale,
    exponential,
    kept,
    noise,
    residual_of,
    silu,
)


class Runs(NamedTuple):
    """Columns that share a scale in the codes of x, B and C: 0 if all of a token do, -1 if they are
    numbers."""

    x: int = -1
    B: int = -1
    C: int = -1


@triton.jit
def operand(x, scale, token, pitch, scales, column, mask, run: tl.constexpr):
    """Columns of one of x, B and C: numbers, or codes and their scales, `run` as in `Runs`; tokens
    are `pitch` columns and `scales` scales apart."""
    v = tl.load(x + token * pitch + column, mask=mask, other=0)
    if run < 0:
        return v
    q, at = v.to(tl.float32), scale + token * scales
    if run > 0:
        s = tl.load(at + column // run, mask=mask, other=0.0)
    else:
        s = tl.load(at)
    return tl.where(q == NAN_CODE, float("nan"), q * s)


@triton.jit
def decay_of(a, known, known_zero, dt, row, inside, there, stride, bits, p: tl.constexpr):
    """exp(dt A) of channels, rounded as `p` says; a static scale for every `stride` rows. bits:
    uniform in [0, 1), where it rounds at random."""
    decay = exponential(dt * a)
    if p.span == EXACT:
        return decay
    if p.span == GROUP:
        s, z = dynamic_scale(decay, there, 1, p)
    else:
        s, z = load_known(known, known_zero, row, stride, inside, p)
    return kept(decay, s, z, bits, p)


@triton.jit
def advanced(h, residual, decay, drive, B, r: tl.constexpr):
    """a h + (dt x) B, as it is about to be rounded."""
    return before_rounding(decay * h + drive * B, residual, r)


@triton.jit
def finished(total, x, D, z, row, span, inside, SKIPS: tl.constexpr, GATED: tl.constexpr):
    """y + D x, one D for `span` rows, times silu(z): fused where nothing is rounded in between."""
    if SKIPS:
        total = total + tl.load(D + row // span, mask=inside, other=0.0) * x
    if GATED:
        total = total * silu(tl.load(z + row, mask=inside, other=0.0))
    return total


@triton.jit
def scan(
    x, dt, A, B, C, D, gate, y, x_scale, B_scale, C_scale, codes, scale, zero, residual, known,
    known_zero, decay_scale, decay_zero, slots, times, key0, key1, decay_key0, decay_key1, length,
    rows, pitch, each, x_pitch, B_pitch, C_pitch, x_scales, B_scales, C_scales, dt_pitch,
    gate_pitch, y_pitch, dynamic, stride, decay_stride, own, shared, span,
    n: tl.constexpr, N: tl.constexpr, R: tl.constexpr, HEADS: tl.constexpr, ACROSS: tl.constexpr,
    SKIPS: tl.constexpr, GATED: tl.constexpr, runs: tl.constexpr, c: tl.constexpr,
    r: tl.constexpr, p: tl.constexpr,
):  # fmt: skip
    """`length` tokens of each sequence. x, y (batch, length, rows); dt the same, or of HEADS
    (batch, length, heads), whose decays `A` holds; else A (rows, n). B, C (batch, length,
    rows / shared, n). codes: `each` a slot, of rows of `pitch` bytes; scale, zero: `dynamic` a
    slot. slots (batch,) int64: where each state lies; times (slots,) int32: the steps it has taken.
    n: states a row, N: padded. ACROSS: rows of a program read several B and C. Pitches: from one
    token to the next, as `x_scales` and the like are of scales of codes.
    """
    block, b = tl.program_id(0), tl.program_id(1)
    slot = tl.load(slots + b)
    row, col = block * R + tl.arange(0, R)[:, None], tl.arange(0, N)[None, :]
    inside = row < rows
    there = inside & (col < n)
    codes, residual = codes + slot * each, residual + slot * rows * n
    scale, zero = scale + slot * dynamic, zero + slot * dynamic
    h, e, s, z = load_state(
        codes, scale, zero, residual, known, known_zero, block,
        row, n, pitch, stride, inside, N, c, r,
    )  # fmt: skip
    time = tl.load(times + slot)
    if not HEADS:
        a = tl.load(A + row * n + col, mask=there, other=0.0)
    if ACROSS:
        along, reads = row // shared * n + col, there
    else:
        along, reads = block * R // shared * n + col, col < n
    for t in range(length):
        token = b * length + t
        u = operand(x, x_scale, token, x_pitch, x_scales, row, inside, runs.x)
        if HEADS:
            step = tl.load(dt + token * dt_pitch + row // own, mask=inside, other=0.0)
            decay = tl.load(A + token * dt_pitch + row // own, mask=inside, other=0.0)
        else:
            step = tl.load(dt + token * dt_pitch + row, mask=inside, other=0.0)
            drawn = 0.0
            if p.rounding == STOCHASTIC:
                drawn = noise(col, row, slot, time + t, decay_key0, decay_key1)
            decay = decay_of(
                a, decay_scale, decay_zero, step, row, inside, there, decay_stride, drawn, p
            )
        drive = step * u
        b_t = operand(B, B_scale, token, B_pitch, B_scales, along, reads, runs.B)
        v = advanced(h, e, decay, drive, b_t, r)
        s, z = scale_for(v, there, s, z, r)
        bits = 0.0
        if r.rounding == STOCHASTIC:
            bits = noise(col, row, slot, time + t, key0, key1)
        h = kept(v, s, z, bits, r)
        if r.feedback:
            e = residual_of(v, h, s, z, r)
        c_t = operand(C, C_scale, token, C_pitch, C_scales, along, reads, runs.C)
        total = tl.where(there, h * c_t, 0.0)
        total = finished(
            tl.sum(total, 1)[:, None], u, D, gate + token * gate_pitch, row, span, inside, SKIPS,
            GATED,
        )  # fmt: skip
        tl.store(y + token * y_pitch + row, total, mask=inside)
    store_state(codes, scale, zero, residual, h, e, s, z, block, row, n, pitch, inside, N, c, r)
