"""Which kernel multiplies by a packed tensor, and in which tiles."""

from __future__ import annotations

import triton
import triton.language as tl
from torch import Tensor
from triton import knobs

from sensprobe_kernels.launch import Argument, Launch, LoweringError
from sensprobe_kernels.ops.linear import gpu as linear
from sensprobe_kernels.packing.gpu import Codes
from sensprobe_kernels.packing.tensor import HALF, OFFSET, Packed
from sensprobe_kernels.program.gpu.device import Weight

PROGRAMS = 128  # of a product, at least, where it has so many rows
FEW = 4  # vectors that a product takes one at a time


def product(
    x: Tensor, t: Packed, w: Weight, bias: Tensor | None, y: Tensor, batch: int, pitches: list[int]
) -> Launch:
    """y (batch, rows) = W x + bias; `pitches` of x and y."""
    check(t)
    c, group = codes_of(t), group_of(t)
    given: tuple[Argument, ...] = (
        x, w.codes, w.scale, w.zero, y if bias is None else bias, y,
        t.rows, t.columns, t.columns * t.bits // 8, *pitches, t.stride,
    )  # fmt: skip
    constants = {"G": group, "BIASED": int(bias is not None), "c": c}
    if batch <= FEW:
        K = min(1024, triton.next_power_of_2(max(t.columns, 8)))
        each = 1 << min(32, 128 // t.bits).bit_length() - 1  # to a thread: about sixteen bytes
        most = triton.next_power_of_2(max(1, t.rows // PROGRAMS))
        R = max(min(most, 128 * each // K), 32 * each // K, 1)
        warps = min(4, max(1, R * K // (32 * each)))
        grid = (triton.cdiv(t.rows, R), batch)
        return Launch(linear.gemv, grid, given, {"R": R, "K": K, **constants}, warps)
    K = 32 if t.kind >= HALF else min(64, group or 64)
    if K < 16:
        raise LoweringError(f"scales of {group} columns for {batch} vectors: 16 columns or more")
    M, R = (16 if batch <= 16 else 32), 64
    kind = tl.float32 if knobs.runtime.interpret else tl.bfloat16
    given = (*given[:6], batch, *given[6:])
    grid = (triton.cdiv(t.rows, R), triton.cdiv(batch, M))
    return Launch(linear.gemm, grid, given, {"M": M, "R": R, "K": K, "T": kind, **constants})


def whole_product(
    x: Tensor, x_scale: Tensor, t: Packed, w: Weight, bias: Tensor | None, y: Tensor, batch: int,
    pitches: list[int],
) -> Launch:  # fmt: skip
    """y = W x + bias of int8 codes whose scales each span `run` columns. pitches: of the codes, the
    run, of the scales, and of y. Weights: signed codes of 2, 4 or 8 bits, or less a zero point."""
    check(t)
    pitch, run, scale_pitch, y_pitch = pitches
    group = min(group_of(t) or t.columns, run)
    if t.kind > OFFSET or t.bits not in (2, 4, 8) or t.columns % 8 or (group < 16 < t.columns):
        raise LoweringError(
            f"whole numbers: {t.bits} bits, {t.columns} columns, scales of {group} of them"
        )
    if max(group_of(t) or t.columns, run) % group:
        raise LoweringError(f"scales of {run} columns beside others of {group_of(t)}")
    K = min(128, triton.next_power_of_2(group)) if group >= t.columns else min(128, group)
    M, R = (16 if batch <= 16 else 32), 64
    given: tuple[Argument, ...] = (
        x, x_scale, w.codes, w.scale, w.zero, y if bias is None else bias, y, batch, t.rows,
        t.columns, t.columns * t.bits // 8, pitch, scale_pitch, y_pitch, group,
        group_of(t) or t.columns, run, t.stride,
    )  # fmt: skip
    constants = {
        "M": M, "R": R, "K": max(K, 32), "BIASED": int(bias is not None), "c": codes_of(t),
    }  # fmt: skip
    grid = (triton.cdiv(t.rows, R), triton.cdiv(batch, M))
    return Launch(linear.gemm_int8, grid, given, constants)


def codes_of(t: Packed) -> Codes:
    ragged = t.columns if t.bits < 8 and t.columns % 8 else 0
    return Codes(t.bits, t.kind, t.shift, t.factor, t.scales, ragged)


def group_of(t: Packed) -> int:
    """Columns that share a scale; 0: all of a row."""
    return 0 if t.group >= t.columns else t.group


def check(t: Packed) -> None:
    """LoweringError for a packed tensor whose rows no kernel reads."""
    group = group_of(t)
    assert t.parts == 1, "a product with a complex tensor"
    if group & (group - 1) or 0 < group < 8:
        raise LoweringError(f"scales of {group} columns: a power of two from 8 on")
