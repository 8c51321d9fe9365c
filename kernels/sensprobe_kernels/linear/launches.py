"""Which kernel multiplies by a packed tensor, and in which tiles."""

from __future__ import annotations

import triton
import triton.language as tl
from torch import Tensor
from triton import knobs

from sensprobe_kernels.launch import Argument, Launch, LoweringError
from sensprobe_kernels.linear import gpu as linear
from sensprobe_kernels.packed.gpu import Codes
from sensprobe_kernels.packed.tensor import HALF, SIGNED, Packed
from sensprobe_kernels.program.device import Row, Weight

PROGRAMS = 128  # of a product, at least, where it has so many rows
FEW = 4  # vectors that a product takes one at a time


def product(
    x: Tensor, t: Packed, w: Weight, bias: Tensor | None, y: Tensor, batch: int, pitches: Row
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
    x: Tensor, x_scale: Tensor, t: Packed, w: Weight, bias: Tensor | None, y: Tensor, y_pitch: int
) -> Launch:
    """The same of int8 codes (batch, columns) and their scale, one or one a vector, and of signed
    codes of 4 or 8 bits."""
    check(t)
    batch, group = x.shape[0], group_of(t) or t.columns
    if t.kind != SIGNED or t.bits not in (4, 8) or t.columns % 8:
        raise LoweringError(f"whole numbers of kind {t.kind} in {t.bits} bits, {t.columns} a row")
    if group < 16:
        raise LoweringError(f"scales of {group} columns for whole numbers: 16 columns or more")
    K = min(128, group if group_of(t) else 128)
    M, R = (16 if batch <= 16 else 32), 64
    given: tuple[Argument, ...] = (
        x, x_scale, w.codes, w.scale, y if bias is None else bias, y, batch, t.rows, t.columns,
        t.columns * t.bits // 8, y_pitch, group, t.stride,
    )  # fmt: skip
    constants = {
        "M": M, "R": R, "K": K, "BIASED": int(bias is not None), "LIVE": int(len(x_scale) > 1),
        "c": codes_of(t),
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
