"""Products with packed weights in Triton, and their rows looked up.

    gemv        a few vectors, weights decoded in registers, float32 sums
    gemm        many vectors, on bfloat16 tensor cores
    gemm_int8   many vectors of int8 codes, on int8 tensor cores, whole sums

Sums are in any order.
"""

from __future__ import annotations

import triton
import triton.language as tl

from sensprobe_kernels.packing.gpu import HALF, OFFSET, load_codes, load_numbers, numbers
from sensprobe_kernels.quantize.gpu import load_scale


@triton.constexpr_function
def _span(N: int, G: int, bits: int) -> int:
    """Columns that share a scale and that a thread reads at once, sixteen bytes of them."""
    return min(G, N, 128 // bits if bits in (2, 4, 8) else 32) if G else N


@triton.jit
def load_weights(
    codes, scale, zero, rows, first, width, pitch, stride, inside, N: tl.constexpr,
    G: tl.constexpr, c: tl.constexpr,
):  # fmt: skip
    """Packed weights, scaled: rows (R, 1) and N columns from `first` on of a tensor of `width`.

    `stride` scales from one row to the next, one for every G columns, 0 where a row has one; G and
    N divide one another.
    """
    if c.kind >= HALF:
        return load_numbers(codes, rows, first, width, pitch, 1.0, 0.0, inside, N, c)
    R: tl.constexpr = rows.shape[0]
    span: tl.constexpr = _span(N, G, c.bits)
    column = first + tl.arange(0, N // span)[None, :] * span
    place = rows * stride + (column // G if G else column * 0)
    there = inside & (column < width)
    s, z = load_scale(scale + place, there, c.scales), 0.0
    if c.kind == OFFSET:
        z = tl.load(zero + place, mask=there, other=0).to(tl.float32)[:, :, None]
    found = load_codes(codes, rows, first, pitch, inside, N, c)
    found = numbers(tl.reshape(found, (R, N // span, span)), z, c) * s[:, :, None]
    return tl.reshape(found, (R, N))


@triton.jit
def gemv(
    x, codes, scale, zero, bias, y, rows, width, pitch, x_pitch, y_pitch, stride,
    R: tl.constexpr, K: tl.constexpr, G: tl.constexpr, BIASED: tl.constexpr, c: tl.constexpr,
):  # fmt: skip
    """y = W x + bias, a vector in each row of the grid's second axis; float32 sums."""
    r = tl.program_id(0) * R + tl.arange(0, R)
    batch = tl.program_id(1)
    there = r[:, None] < rows
    total = tl.zeros((R, K), tl.float32)
    for first in range(0, width, K):
        k = first + tl.arange(0, K)
        v = tl.load(x + batch * x_pitch + k, mask=k < width, other=0.0)
        w = load_weights(
            codes, scale, zero, r[:, None], first, width, pitch, stride, there, K, G, c
        )
        total += w * v[None, :]
    out = tl.sum(total, 1)
    if BIASED:
        out += tl.load(bias + r, mask=r < rows, other=0.0)
    tl.store(y + batch * y_pitch + r, out, mask=r < rows)


@triton.jit
def gemm(
    x, codes, scale, zero, bias, y, batch, rows, width, pitch, x_pitch, y_pitch, stride,
    M: tl.constexpr, R: tl.constexpr, K: tl.constexpr, G: tl.constexpr, BIASED: tl.constexpr,
    T: tl.constexpr, c: tl.constexpr,
):  # fmt: skip
    """y = W x + bias for many vectors, on tensor cores.

    Codes of up to eight bits are bfloat16 numbers; x is the sum of two, which leaves out 2^-18 of
    it; products of bfloat16 numbers are exact in float32, in which they are added. K divides G, or
    a row has one scale (G 0). T is the type the products are made in: bfloat16, or float32 where
    Triton's interpreter runs, which knows no products of bfloat16.
    """
    r = tl.program_id(0) * R + tl.arange(0, R)
    m = tl.program_id(1) * M + tl.arange(0, M)
    total = tl.zeros((M, R), tl.float32)
    there = r[:, None] < rows
    for first in range(0, width, K):
        k = first + tl.arange(0, K)
        inside = (m[:, None] < batch) & (k[None, :] < width)
        v = tl.load(x + m[:, None] * x_pitch + k[None, :], mask=inside, other=0.0)
        if c.kind >= HALF:
            w = load_numbers(codes, r[:, None], first, width, pitch, 1.0, 0.0, there, K, c)
            total += tl.dot(v, tl.trans(w), input_precision="ieee")
        else:
            place = r * stride + (first // G if G else 0)
            z = 0.0
            if c.kind == OFFSET:
                z = tl.load(zero + place, mask=r < rows, other=0).to(tl.float32)[:, None]
            w = numbers(load_codes(codes, r[:, None], first, pitch, there, K, c), z, c)
            w = tl.trans(tl.where(k[None, :] < width, w, 0.0).to(tl.bfloat16)).to(T)
            high = v.to(tl.bfloat16)
            low = (v - high.to(tl.float32)).to(tl.bfloat16)
            part = tl.dot(low.to(T), w, tl.dot(high.to(T), w))
            total += part * load_scale(scale + place, r < rows, c.scales)[None, :]
    if BIASED:
        total += tl.load(bias + r, mask=r < rows, other=0.0)[None, :]
    out = y + m[:, None] * y_pitch + r[None, :]
    tl.store(out, total, mask=(m[:, None] < batch) & (r[None, :] < rows))


@triton.jit
def gemm_int8(
    x, x_scale, codes, scale, zero, bias, y, batch, rows, width, pitch, x_pitch, scale_pitch,
    y_pitch, few, group, run, stride,
    M: tl.constexpr, R: tl.constexpr, K: tl.constexpr, BIASED: tl.constexpr, c: tl.constexpr,
):  # fmt: skip
    """y = W x of whole numbers on int8 tensor cores, as `sensprobe.ops.linear.linear_codes` has it,
    to the bit: x of codes (batch, width), a scale for every `run` columns, W a scale for every
    `group` of them; sums over `few`, the fewer of the two, are exact, and float32 adds their scaled
    values from the first upward. Zero points come in by the sum of x: (q - z) x = q x - z x.
    """
    r = tl.program_id(0) * R + tl.arange(0, R)
    m = tl.program_id(1) * M + tl.arange(0, M)
    total = tl.zeros((M, R), tl.float32)
    there = r[:, None] < rows
    half: tl.constexpr = 1 << (c.bits - 1)
    for start in range(0, width, few):
        end = tl.minimum(start + few, width)
        part, seen = tl.zeros((M, R), tl.int32), tl.zeros((M,), tl.int32)
        for first in range(start, end, K):
            k = first + tl.arange(0, K)
            inside = (m[:, None] < batch) & (k[None, :] < end)
            v = tl.load(x + m[:, None] * x_pitch + k[None, :], mask=inside, other=0)
            w = load_codes(codes, r[:, None], first, pitch, there, K, c)
            if c.kind == OFFSET:
                # codes of 8 bits less 128 fit int8; the zero point gives it back
                shifted = w - half
                seen += tl.sum(v.to(tl.int32), 1)
            else:
                shifted = (w ^ half) - half
            part = tl.dot(v, tl.trans(shifted.to(tl.int8)), part)
        place = r * stride + start // group
        if c.kind == OFFSET:
            z = tl.load(zero + place, mask=r < rows, other=0).to(tl.int32) - half
            part = part - seen[:, None] * z[None, :]
        s = load_scale(scale + place, r < rows, c.scales)
        own = tl.load(x_scale + m * scale_pitch + start // run, mask=m < batch, other=0.0)
        total += part.to(tl.float32) * s[None, :] * own[:, None]
    if BIASED:
        total += tl.load(bias + r, mask=r < rows, other=0.0)[None, :]
    out = y + m[:, None] * y_pitch + r[None, :]
    tl.store(out, total, mask=(m[:, None] < batch) & (r[None, :] < rows))


@triton.jit
def embed(
    tokens, codes, scale, zero, y, width, pitch, y_pitch, stride,
    K: tl.constexpr, G: tl.constexpr, c: tl.constexpr,
):  # fmt: skip
    """y[b] = row tokens[b] of a packed tensor."""
    b, first = tl.program_id(1), tl.program_id(0) * K
    row = tl.load(tokens + b) + tl.zeros((1, 1), tl.int64)
    w = load_weights(codes, scale, zero, row, first, width, pitch, stride, row >= 0, K, G, c)
    k = first + tl.arange(0, K)[None, :]
    tl.store(y + b * y_pitch + k, w, mask=k < width)
