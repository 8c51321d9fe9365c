"""Elementwise operations, norms and rounding of activations in Triton: rows of registers.

    rows    elementwise functions, by the code of the operation (`program.ir`)
    norm    RMS or layer norm, what is added before and rounded after with it
    rounds  a Hadamard transform, rounding, and the inverse transform; int8 codes are kept

Rows are (batch, columns) of float32, rows `pitch` apart. What is rounded equals the reference bit
for bit, given the same numbers; means are sums in any order.
"""

from __future__ import annotations

import triton
import triton.language as tl

from sensprobe_kernels.ops.rotate.gpu import rotated
from sensprobe_kernels.ops.state.gpu import load_known
from sensprobe_kernels.program import ir
from sensprobe_kernels.quantize.gpu import (
    EXACT,
    GROUP,
    NAN_CODE,
    clamp,
    code_of,
    dynamic_scale,
    exponential,
    kept,
    sigmoid,
    silu,
    softplus,
)

BIAS, SILU, SOFTPLUS = tl.constexpr(ir.BIAS), tl.constexpr(ir.SILU), tl.constexpr(ir.SOFTPLUS)
GATE, ADD, SKIP, DECAY = (tl.constexpr(v) for v in (ir.GATE, ir.ADD, ir.SKIP, ir.DECAY))
GELU, HALF_GLU, QGELU = tl.constexpr(ir.GELU), tl.constexpr(ir.HALF_GLU), tl.constexpr(ir.QGELU)
COPY, RELU, HARD_GLU = (tl.constexpr(v) for v in (ir.COPY, ir.RELU, ir.HARD_GLU))
GELU_TANH, QGELU4, PICK = (tl.constexpr(v) for v in (ir.GELU_TANH, ir.QGELU4, ir.PICK))
MULTIPLY = tl.constexpr(ir.MULTIPLY)


@triton.jit
def erf(x):
    """An odd polynomial over an even one on [-4, 4], the one Eigen uses; within 5e-7."""
    x = clamp(x, -4.0, 4.0)
    q = x * x
    p = q * -2.72614225801306e-10 + 2.77068142495902e-08
    p = p * q + -2.10102402082508e-06
    p = p * q + -5.69250639462346e-05
    p = p * q + -7.34990630326855e-04
    p = p * q + -2.95459980854025e-03
    p = p * q + -1.60960333262415e-02
    d = q * -1.45660718464996e-05 + -2.13374055278905e-04
    d = d * q + -1.68282697438203e-03
    d = d * q + -7.37332916720468e-03
    d = d * q + -1.42647390514189e-02
    return tl.div_rn(x * p, d)


@triton.jit
def rows(
    a, b, small, y, columns, a_pitch, b_pitch, y_pitch, span, low, high,
    CODE: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """y = f(a, b): `small` is a tensor of one number for every `span` columns."""
    i, batch = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK), tl.program_id(1)
    inside = i < columns
    if CODE == PICK:
        column = tl.load(small + i, mask=inside, other=-1.0).to(tl.int32)
        x = tl.load(a + batch * a_pitch + column, mask=column >= 0, other=0.0)
    else:
        x = tl.load(a + batch * a_pitch + i, mask=inside, other=0.0)
    if CODE == SILU:
        x = silu(x)
    elif CODE == GELU:
        x = x * 0.5 * (1.0 + erf(x * 0.7071067811865476))
    elif CODE == GELU_TANH:
        v = clamp(x, -16.0, 16.0)  # beyond them the sigmoid is 0 or 1, and the cube may overflow
        x = x * sigmoid(1.5957691216057308 * v * (1.0 + 0.044715 * v * v))
    elif CODE == QGELU:
        x = x * clamp(x + 2.0, 0.0, 1.0)
    elif CODE == QGELU4:
        x = x * clamp(x + 2.0, 0.0, 4.0) * 0.25
    elif CODE == RELU:
        x = tl.where(x < 0.0, 0.0, x)
    elif CODE == SOFTPLUS:
        x = clamp(softplus(x), low, high)
    elif CODE == BIAS:
        x = x + tl.load(small + i, mask=inside, other=0.0)
    elif CODE == DECAY:
        x = exponential(x * tl.load(small + i, mask=inside, other=0.0))
    elif CODE != COPY and CODE != PICK:
        other = tl.load(b + batch * b_pitch + i, mask=inside, other=0.0)
        if CODE == GATE:
            x = x * silu(other)
        elif CODE == ADD:
            x = x + other
        elif CODE == MULTIPLY:
            x = x * other
        elif CODE == HALF_GLU:
            x = x * sigmoid(other)
        elif CODE == HARD_GLU:
            x = x * tl.div_rn(clamp(other + 3.0, 0.0, 6.0), 6.0)
        else:
            tl.static_assert(CODE == SKIP)
            x = x + tl.load(small + i // span, mask=inside, other=0.0) * other
    tl.store(y + batch * y_pitch + i, x, mask=inside)


@triton.jit
def mean(x, sums, y, slots, times, length, columns, pitch, BLOCK: tl.constexpr):
    """The mean over all steps so far: sums (slots, columns) take x (batch, length, columns) in."""
    i, batch = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK), tl.program_id(1)
    inside = i < columns
    slot = tl.load(slots + batch)
    total, time = tl.load(sums + slot * columns + i, mask=inside, other=0.0), tl.load(times + slot)
    for t in range(length):
        at = (batch * length + t) * pitch + i
        total = total + tl.load(x + at, mask=inside, other=0.0)
        tl.store(y + at, tl.div_rn(total, (time + t + 1).to(tl.float32)), mask=inside)
    tl.store(sums + slot * columns + i, total, mask=inside)


@triton.jit
def scales_of(v, inside, known, known_zero, column, run: tl.constexpr, stride, r: tl.constexpr):
    """Scale and zero point of each number of a tile, its rows one after another: dynamic ones of
    every `run`, 0 for all of them, or static ones of every `stride` columns."""
    M: tl.constexpr = v.shape[0]
    P: tl.constexpr = v.shape[1]
    if r.span == GROUP and run:
        parts = tl.reshape(v, (M * P // run, run))
        s, z = dynamic_scale(parts, tl.reshape(inside, (M * P // run, run)), 1, r)
        s = tl.reshape(tl.broadcast_to(s, (M * P // run, run)), (M, P))
        return s, tl.reshape(tl.broadcast_to(z, (M * P // run, run)), (M, P))
    elif r.span == GROUP:
        return dynamic_scale(v, inside, -1, r)
    else:
        return load_known(known, known_zero, column, stride, inside, r)


@triton.jit
def store_int8_codes(
    v, s, z, out, out_scale, column, inside, run: tl.constexpr, NANS: tl.constexpr,
    r: tl.constexpr,
):  # fmt: skip
    """int8 codes of rounded numbers, and the scale of every run of columns (0: of all of them); no
    code stands for NaN: 0 does, or with NANS `NAN_CODE`, which products take for what it says."""
    q = clamp(code_of(v, s, z, r), -r.peak, r.peak)
    if NANS:
        q = tl.where(v != v, NAN_CODE, q)
    tl.store(out + column, q.to(tl.int8), mask=inside)
    every: tl.constexpr = run if run else 1 << 30
    scale = s + tl.zeros(v.shape, tl.float32)
    tl.store(out_scale + column // every, scale, mask=inside & (column % every == 0))


@triton.jit
def rounds(
    x, y, signs, signs_back, out, out_scale, known, known_zero, columns, pitch, y_pitch, out_pitch,
    scale_pitch, stride,
    base: tl.constexpr, B: tl.constexpr, P: tl.constexpr, LOG: tl.constexpr, M: tl.constexpr,
    run: tl.constexpr, BACK: tl.constexpr, CODED: tl.constexpr, NANS: tl.constexpr,
    PLAIN: tl.constexpr, r: tl.constexpr,
):  # fmt: skip
    """y = x rotated, if LOG or `base` say so, and rounded, a row a program; BACK: x = y, rotated
    back. CODED: codes and scales are kept as well, and unless PLAIN, alone. A row is M lines of P
    numbers, B to a block of the transform, of which `base` are there."""
    batch = tl.program_id(0)
    m, k = tl.arange(0, M)[:, None], tl.arange(0, P)[None, :]
    column = (m // B * base + m % B) * P + k
    inside = (m % B < base) & (column < columns)
    at = x + batch * pitch + column
    v = tl.load(at, mask=inside, other=0.0)
    if LOG or base > 1:
        v = rotated(v, signs, base, B, P, LOG)
    if r.span != EXACT:
        s, z = scales_of(v, inside, known, known_zero, column, run, stride, r)
        v = kept(v, s, z, 0.0, r)
        if CODED:
            store_int8_codes(
                v, s, z, out + batch * out_pitch, out_scale + batch * scale_pitch, column, inside,
                run, NANS, r,
            )  # fmt: skip
    if PLAIN:
        tl.store(y + batch * y_pitch + column, v, mask=inside)
    if BACK:
        tl.store(at, rotated(v, signs_back, base, B, P, LOG), mask=inside)


@triton.jit
def norm(
    x, added, weight, bias, y, known, known_zero, columns, pitch, y_pitch, stride, eps,
    W: tl.constexpr, run: tl.constexpr, ADDS: tl.constexpr, LAYER: tl.constexpr,
    WEIGHTED: tl.constexpr, AFFINE: tl.constexpr, CENTRE: tl.constexpr, FACTOR: tl.constexpr,
    r: tl.constexpr,
):  # fmt: skip
    """x / √(mean x² + eps) · weight of a row, or a group of columns (the grid's second axis), a
    program, then rounded. ADDS: x takes `added` in first, and keeps the sum. LAYER: layer norm.
    AFFINE: x · weight + bias. CENTRE: x less its mean. FACTOR: weight / √(mean x² + eps)."""
    i = tl.arange(0, W)[None, :]
    inside, first = i < columns, tl.program_id(1) * columns
    at = x + tl.program_id(0) * pitch + first + i
    v = tl.load(at, mask=inside, other=0.0)
    if ADDS:
        v = v + tl.load(added + tl.program_id(0) * pitch + first + i, mask=inside, other=0.0)
        tl.store(at, v, mask=inside)
    count = columns.to(tl.float32)
    if LAYER or CENTRE:
        middle = tl.div_rn(tl.sum(v, 1, keep_dims=True), count)
        v = tl.where(inside, v - middle, 0.0)
    if not (AFFINE or CENTRE):
        square = tl.div_rn(tl.sum(v * v, 1, keep_dims=True), count)
        root = tl.div_rn(1.0, tl.sqrt_rn(square + eps))
        v = tl.where(inside, root, 0.0) if FACTOR else v * root
    if WEIGHTED:
        v = v * tl.load(weight + first + i, mask=inside, other=0.0)
    if LAYER or AFFINE:
        v = v + tl.load(bias + first + i, mask=inside, other=0.0)
    if r.span != EXACT:
        s, z = scales_of(v, inside, known, known_zero, i, run, stride, r)
        v = kept(v, s, z, 0.0, r)
    tl.store(y + tl.program_id(0) * y_pitch + first + i, v, mask=inside)


@triton.jit
def tick(slots, times, length):
    """So many more steps of each sequence."""
    at = times + tl.load(slots + tl.program_id(0))
    tl.store(at, tl.load(at) + length)
