"""Operations on registers: one row a sequence, sixteen numbers at a time."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from sensprobe_kernels.jit import inline, noinline
from sensprobe_kernels.ops.rotate.rows import Rotation, rotate_in_float64
from sensprobe_kernels.ops.rounded.rows import Rows, run_range
from sensprobe_kernels.ops.selective_scan.exponential import exponential
from sensprobe_kernels.packing.rows import decode_row
from sensprobe_kernels.packing.tensor import Packed
from sensprobe_kernels.program.cpu.functions import gelu, gelu_tanh, sigmoid, silu, softplus
from sensprobe_kernels.program.cpu.scales import known_each, known_one
from sensprobe_kernels.program.cpu.tables import flags_in
from sensprobe_kernels.program.ir import Stored
from sensprobe_kernels.quantize.lanes import Scale, clamp, kept
from sensprobe_kernels.quantize.scales import dynamic_scale
from sensprobe_kernels.quantize.spec import GROUP, PEAK, STATIC_EACH, Flags
from sensprobe_kernels.simd.octets import lane, rounded_off
from sensprobe_kernels.simd.pairs import put_shorts
from sensprobe_kernels.simd.vector import (
    LANES,
    choose,
    every,
    is_nan,
    less,
    load,
    load_first,
    negative,
    rint,
    spread,
    store,
    store_first,
    summed,
)

_ZERO, _ONE = np.float32(0.0), np.float32(1.0)


@noinline
def silus(work: Any, source: int, to: int, size: int) -> None:
    for i in range(0, size, LANES):
        store(work, to + i, silu(load(work, source + i)))


@noinline
def gelus(work: Any, source: int, to: int, size: int) -> None:
    for i in range(0, size, LANES):
        store(work, to + i, gelu(load(work, source + i)))


@noinline
def gelu_tanhs(work: Any, source: int, to: int, size: int) -> None:
    for i in range(0, size, LANES):
        store(work, to + i, gelu_tanh(load(work, source + i)))


@inline
def qgelu4s(work: Any, source: int, to: int, size: int) -> None:
    """y clamp(y + 2, 0, 4) / 4."""
    four = every(np.float32(4))
    for i in range(0, size, LANES):
        y = load(work, source + i)
        store(work, to + i, y * clamp(y + every(np.float32(2)), every(_ZERO), four) / four)


@inline
def qgelus(work: Any, source: int, to: int, size: int) -> None:
    """y clamp(y + 2, 0, 1)."""
    for i in range(0, size, LANES):
        y = load(work, source + i)
        store(work, to + i, y * clamp(y + every(np.float32(2)), every(_ZERO), every(_ONE)))


@inline
def relus(work: Any, source: int, to: int, size: int) -> None:
    for i in range(0, size, LANES):
        y = load(work, source + i)
        store(work, to + i, choose(less(y, every(_ZERO)), every(_ZERO), y))


@noinline
def softpluses(work: Any, source: int, to: int, size: int, low: float, high: float) -> None:
    for i in range(0, size, LANES):
        store(work, to + i, clamp(softplus(load(work, source + i)), every(low), every(high)))


@noinline
def gates(work: Any, y: int, z: int, to: int, size: int) -> None:
    for i in range(0, size, LANES):
        store(work, to + i, load(work, y + i) * silu(load(work, z + i)))


@inline
def sums(work: Any, a: int, b: int, to: int, size: int) -> None:
    for i in range(0, size, LANES):
        store(work, to + i, load(work, a + i) + load(work, b + i))


@noinline
def glus(work: Any, a: int, b: int, to: int, size: int) -> None:
    """a sigmoid(b); b may start anywhere."""
    for i in range(0, size - LANES + 1, LANES):
        store(work, to + i, load(work, a + i) * sigmoid(load(work, b + i)))
    left = size % LANES
    if left:
        i, none = size - left, every(_ZERO)
        x = load_first(work, a + i, left, none) * sigmoid(load_first(work, b + i, left, none))
        store_first(work, to + i, left, x)


@noinline
def hard_glus(work: Any, a: int, b: int, to: int, size: int) -> None:
    """a clamp(b + 3, 0, 6) / 6; b may start anywhere."""
    none, three, six = every(_ZERO), every(np.float32(3)), every(np.float32(6))
    for i in range(0, size, LANES):
        left = min(LANES, size - i)
        inside = clamp(load_first(work, b + i, left, none) + three, none, six)
        store_first(work, to + i, left, load_first(work, a + i, left, none) * (inside / six))


@noinline
def decays(work: Any, dt: int, A: Any, to: int, size: int) -> None:
    for i in range(0, size, LANES):
        store(work, to + i, exponential(load(work, dt + i) * load(A, i)))


@noinline
def skips(work: Any, y: int, x: int, to: int, D: Any, count: int, span: int) -> None:
    """y + D x, a number of D for every `span` columns."""
    if span == 1:
        for i in range(0, count, LANES):
            store(work, to + i, load(work, y + i) + load(D, i) * load(work, x + i))
        return
    for k in range(count):
        d = every(D[k])
        for i in range(k * span, (k + 1) * span - LANES + 1, LANES):
            store(work, to + i, load(work, y + i) + d * load(work, x + i))
        left = span % LANES
        if left:
            i, none = (k + 1) * span - left, every(_ZERO)
            v = load_first(work, y + i, left, none) + d * load_first(work, x + i, left, none)
            store_first(work, to + i, left, v)


@inline
def total(work: Any, at: int, size: int) -> Any:
    """The sum over sixteen lanes, each from the first column upward, then by halves."""
    y = every(_ZERO)
    for i in range(0, size - LANES + 1, LANES):
        y = y + load(work, at + i)
    left = size % LANES
    if left:
        y = y + load_first(work, at + size - left, left, every(_ZERO))
    return summed(y)


@inline
def _squares(work: Any, at: int, size: int, less: float) -> Any:
    y, m = every(_ZERO), every(less)
    for i in range(0, size - LANES + 1, LANES):
        d = load(work, at + i) - m
        y = y + d * d
    left = size % LANES
    if left:
        d = load_first(work, at + size - left, left, m) - m
        y = y + d * d
    return summed(y)


@noinline
def rms(work: Any, source: int, to: int, size: int, groups: int, eps: float) -> None:
    """x / √(mean x² + eps) in each of `groups` runs of columns."""
    run = size // groups
    for g in range(groups):
        at = source + g * run
        mean = _squares(work, at, run, _ZERO) / np.float32(run)
        r = every(_ONE / np.sqrt(mean + eps))
        for i in range(0, run - LANES + 1, LANES):
            store(work, to + g * run + i, load(work, at + i) * r)
        left = run % LANES
        if left:
            i = run - left
            x = load_first(work, at + i, left, every(_ZERO)) * r
            store_first(work, to + g * run + i, left, x)


@noinline
def layer_norm(
    work: Any, source: int, to: int, size: int, eps: float, weight: Any, bias: Any
) -> None:
    """(x - mean) / √(variance + eps) · weight + bias."""
    mean = total(work, source, size) / np.float32(size)
    variance = _squares(work, source, size, mean) / np.float32(size)
    r, m = every(_ONE / np.sqrt(variance + eps)), every(mean)
    for i in range(0, size, LANES):
        x = (load(work, source + i) - m) * r
        store(work, to + i, x * load(weight, i) + load(bias, i))


@inline
def centre(work: Any, source: int, to: int, size: int) -> None:
    """x - mean."""
    m = every(total(work, source, size) / np.float32(size))
    for i in range(0, size, LANES):
        store(work, to + i, load(work, source + i) - m)


@inline
def factor(work: Any, source: int, to: int, size: int, eps: float, weight: Any) -> None:
    """weight / √(mean x² + eps)."""
    square = _squares(work, source, size, _ZERO) / np.float32(size)
    r = every(_ONE / np.sqrt(square + eps))
    for i in range(0, size, LANES):
        store(work, to + i, r * load(weight, i))


@inline
def multiply(work: Any, a: int, b: int, to: int, size: int) -> None:
    for i in range(0, size, LANES):
        store(work, to + i, load(work, a + i) * load(work, b + i))


@inline
def affine(work: Any, source: int, to: int, size: int, weight: Any, bias: Any) -> None:
    """x · weight + bias."""
    for i in range(0, size, LANES):
        store(work, to + i, load(work, source + i) * load(weight, i) + load(bias, i))


@inline
def products(work: Any, at: int, factors: Any, size: int) -> None:
    for i in range(0, size, LANES):
        store(work, at + i, load(work, at + i) * load(factors, i))


@inline
def add_bias(work: Any, at: int, terms: Any, size: int) -> None:
    for i in range(0, size - LANES + 1, LANES):
        store(work, at + i, load(work, at + i) + load(terms, i))
    left = size % LANES
    if left:
        i, none = size - left, every(_ZERO)
        x = load_first(work, at + i, left, none) + load_first(terms, i, left, none)
        store_first(work, at + i, left, x)


@inline
def plain_row(data: Any, consts: Any, t: Packed, row: int, out: Any, to: int, wide: Any) -> None:
    """Decode a row to float32, rotated back if it is stored rotated; `wide`: float64 scratch."""
    decode_row(data, t, row, out, to)
    if t.power:
        rotate_in_float64(Rotation(t.base, t.power, t.signs), consts, out, to, t.columns, wide)


@noinline
def whole_tensor(data: Any, consts: Any, t: Packed, out: Any, wide: Any) -> None:
    """Decode a tensor, one row after the other."""
    for r in range(t.rows):
        plain_row(data, consts, t, r, out, r * t.columns, wide)


class RowCodes(NamedTuple):
    """Where codes of a rounded row and their scales go: an int16 array, the place of the row in it,
    -1 where no codes are asked for, and that of its scales among the registers."""

    array: Any
    at: int
    scales: int


@noinline
def rounds(
    data: Any, work: Any, at: int, columns: int, s: Stored, consts: Any, lanes: Any, codes: RowCodes
) -> None:
    """Round a run of columns of one register row in place; `lanes` is scratch for 32 numbers."""
    flags, end = flags_in(s), at + columns
    numbers = consts[s.numbers : s.numbers + 8]
    if flags.span == GROUP:
        rows = Rows(columns, s.group, s.scales, work, work, consts, numbers)
        for first in range(at, end, s.group):
            last = min(first + s.group, end)
            scale = dynamic_scale(run_range(rows, first, last, flags), numbers, s.scales, flags)
            _round(work, first, last, scale, numbers, flags)
            if codes.at >= 0:
                _encode(work, first, last, scale, numbers, codes, first - at)
                work[codes.scales + (first - at) // s.group] = lane(scale.scale, 0)
    elif flags.span == STATIC_EACH:
        for i in range(at, end, LANES):
            last = min(i + LANES, end)
            scale = known_each(data, s, i - at, last - i, numbers, flags, lanes)
            _round(work, i, last, scale, numbers, flags)
    else:
        scale = known_one(data, s, 0, numbers, flags)
        _round(work, at, end, scale, numbers, flags)
        if codes.at >= 0:
            _encode(work, at, end, scale, numbers, codes, 0)
            work[codes.scales] = lane(scale.scale, 0)


@inline
def _encode(
    work: Any, first: int, last: int, scale: Scale, numbers: Any, codes: RowCodes, to: int
) -> None:
    """Write the codes of rounded numbers, which are multiples of the scale to float32's precision.
    NaN, which has no code, becomes 0, and so do places up to the next multiple of sixteen."""
    none, high = every(_ZERO), spread(numbers, PEAK)
    for i in range(first, last, LANES):
        q = rint(load_first(work, i, min(LANES, last - i), none) / scale.scale)
        q = choose(is_nan(q), none, clamp(q, negative(high), high))
        put_shorts(codes.array, codes.at + to + i - first, rounded_off(q))


@inline
def _round(work: Any, first: int, last: int, scale: Scale, numbers: Any, flags: Flags) -> None:
    """Round numbers that share a scale, each once: rounding a number twice may move it again."""
    none = every(_ZERO)
    for i in range(first, last - LANES + 1, LANES):
        store(work, i, kept(load(work, i), scale, none, numbers, flags))
    left = (last - first) % LANES
    if left:
        x = kept(load_first(work, last - left, left, none), scale, none, numbers, flags)
        store_first(work, last - left, left, x)
