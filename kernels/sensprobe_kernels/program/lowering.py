"""Operations of a program -> launches of Triton kernels.

Neighbours in the list go together where a kernel does both: a product and its bias, a norm with the
sum before it and the rounding after it, a convolution and its SiLU, a recurrence with its skip and
its gate.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch
import triton
from torch import Tensor

from sensprobe_kernels.launch import Launch, LoweringError
from sensprobe_kernels.ops.decode import gpu as small
from sensprobe_kernels.ops.elementwise import gpu as passing
from sensprobe_kernels.ops.linear import gpu as linear
from sensprobe_kernels.ops.linear.launches import check, codes_of, group_of, product, whole_product
from sensprobe_kernels.program import remembering
from sensprobe_kernels.program import tables as op
from sensprobe_kernels.program.cpu import Program
from sensprobe_kernels.program.device import Memory, Row
from sensprobe_kernels.program.remembering import rounds_of
from sensprobe_kernels.quantize.gpu import EXACTLY, Rounds
from sensprobe_kernels.quantize.spec import GROUP

BLOCK = 1024  # numbers of a row, or of a small tensor, to a program
SCRATCH = 1 << 20  # numbers of small tensors decoded at a time
WIDEST = 1 << 15  # columns of a row that is rounded as one


@dataclass
class _Segment:
    """Small tensors that are decoded together, before the launch at `position`."""

    position: int
    rows: list[Row] = field(default_factory=list)
    places: dict[int, int] = field(default_factory=dict)
    used: int = 0


class _Function(NamedTuple):
    """Of one register or two, as `passing.rows` takes it; -1: there is none."""

    a: int
    y: int
    columns: int
    pitches: tuple[int, int, int]  # of a, b and y
    b: int = -1
    small: int = -1
    span: int = 1
    bounds: tuple[float, float] = (0.0, 0.0)


@dataclass
class Lowering:
    """Walks through a program once; `launches` are what it has met."""

    program: Program
    memory: Memory
    launches: list[Launch] = field(default_factory=list)
    segments: list[_Segment] = field(default_factory=list)
    scratch: Tensor = field(default_factory=lambda: torch.zeros(0))

    def run(self) -> list[Launch]:
        """Launches of one step. Raises LoweringError."""
        large = set(self.memory.weights)
        counts = [t.rows * t.columns for i, t in enumerate(self.program.tensors) if i not in large]
        room = min(max([SCRATCH, *(3 * c for c in counts)]), sum(counts) + 4 * len(counts))
        self.scratch = torch.zeros(max(room, 16), device=self.memory.work.device)
        ops, at = self.program.ops, 0
        while at < len(ops):
            at += self._lower(ops, at)
        for segment in reversed(self.segments):
            self.launches.insert(segment.position, self._decoding(segment))
        m = self.memory
        ticks = Launch(passing.tick, (len(m.order),), (m.order, m.times, m.length), {}, 1)
        return [*self.launches, ticks]

    def _lower(self, ops: list[Row], at: int) -> int:
        """Launch what the operation at `at` asks, and those after it that go with it; how many."""
        row, after = ops[at], ops[at + 1 : at + 4]
        kind = row[0]
        if kind == op.LINEAR:
            return self._linear(row, after)
        if kind == op.LINEAR_CODES:
            return self._linear_codes(row, after)
        if kind == op.CONVOLVE:
            return self._convolve(row, after)
        if kind in (op.CHANNELS, op.HEADS):
            return self._recurrence(row, after)
        if kind == op.CHUNKS:
            return self._chunks(row, after)
        if kind == op.ADD and _is_norm_of(after, row):
            return 1 + self._norm(after[0], after[1:], row[2])
        if kind in (op.RMS, op.LAYER_NORM):
            return self._norm(row, after, None)
        if kind == op.ROUND:
            return self._round(row)
        if kind == op.DIAGONAL:
            return self._diagonal(row, after)
        if kind == op.EMBED:
            return self._embed(row)
        return self._mean(row) if kind == op.MEAN else self._elementwise(row)

    # -- tensors ----------------------------------------------------------------------------------

    def register(self, at: int) -> Tensor:
        return self.memory.work[at:]

    def small(self, *tensors: int) -> list[Tensor]:
        """Tensors decoded to scratch; what is not there (-1) is nothing."""
        sizes = {t: self._room(t) for t in tensors if t >= 0}
        if not sizes:
            return [self.memory.nothing for _ in tensors]
        if not self.segments or not self._fits(sizes):
            self.segments.append(_Segment(len(self.launches)))
        segment = self.segments[-1]
        for t, size in sizes.items():
            if t not in segment.places:
                segment.places[t] = segment.used
                segment.used += size
                self._decode(segment, t)
        return [
            self.memory.nothing if t < 0 else self.scratch[segment.places[t] :] for t in tensors
        ]

    def _room(self, t: int) -> int:
        tensor = self.program.tensors[t]
        return -(-tensor.rows * tensor.columns // 4) * 4

    def _fits(self, sizes: dict[int, int]) -> bool:
        segment = self.segments[-1]
        new = sum(size for t, size in sizes.items() if t not in segment.places)
        return segment.used + new <= self.scratch.numel()

    def _decode(self, segment: _Segment, t: int) -> None:
        tensor, to = self.memory.packed[t], segment.places[t]
        count = tensor.rows * tensor.columns
        for first in range(0, count, BLOCK):
            left = min(BLOCK, count - first)
            segment.rows.append([to + first, first, left, *tensor])

    def _decoding(self, segment: _Segment) -> Launch:
        table = torch.tensor(segment.rows, dtype=torch.int64, device=self.scratch.device)
        constants = {"FIELDS": table.shape[1], "BLOCK": BLOCK}
        given = (self.memory.bytes, table, self.scratch)
        return Launch(small.decode, (len(table),), given, constants)

    def _add(
        self, kernel: Any, grid: tuple[int, ...], given: Any, *, warps: int = 4, **constants: Any
    ) -> None:
        self.launches.append(Launch(kernel, grid, tuple(given), constants, warps))

    # -- operations -------------------------------------------------------------------------------

    def _linear(self, row: Row, after: list[Row]) -> int:
        _, t, source, x_pitch, to, y_pitch, *_ = row
        bias, used = self._bias(after, to)
        x, y = self.register(source), self.register(to)
        tensor, weight = self.program.tensors[t], self.memory.weights[t]
        pitches = [x_pitch, y_pitch]
        self.launches.append(product(x, tensor, weight, bias, y, self.program.batch, pitches))
        return used

    def _bias(self, after: list[Row], to: int) -> tuple[Tensor | None, int]:
        """The bias that the product into register `to` takes in; operations that are done."""
        if after and after[0][0] == op.BIAS and after[0][2] == to:
            return self.small(after[0][1])[0], 2
        return None, 1

    def _round(self, row: Row) -> int:
        _, source, pitch, columns, store, to, y_pitch, base, power, signs, back, *kept = row
        coded, coded_pitch, scales, scales_pitch, readers, *_ = kept
        m = self.memory
        r, run, stride, known = self._rounding(store, columns)
        turns, log = power > 0, max(power, 1).bit_length() - 1
        if turns:
            P, B = power, triton.next_power_of_2(base)
            M = triton.next_power_of_2(columns // (base * power)) * B
            if run and base > 1:
                raise LoweringError("live scales of groups of columns that Paley's matrix mixes")
        else:
            P, B, M = triton.next_power_of_2(columns), 1, 1
        matrices = (m.consts[signs:], m.consts[max(back, 0) :])
        given = (
            self.register(source), self.register(to), *matrices, m.codes[max(coded, 0) :],
            self.register(scales), *known, columns, pitch, y_pitch, coded_pitch, scales_pitch,
            stride,
        )  # fmt: skip
        self._add(
            passing.rounds, (self.program.batch,), given, warps=_warps(M * P), base=base, B=B, P=P,
            LOG=log if turns else 0, M=M, run=run, BACK=int(back >= 0), CODED=int(coded >= 0),
            NANS=readers & op.SCANNED, PLAIN=int(readers & (op.SCANNED | op.PLAIN) != op.SCANNED),
            r=r,
        )  # fmt: skip
        return 1

    def _linear_codes(self, row: Row, after: list[Row]) -> int:
        _, t, codes, pitch, run, scales, scales_pitch, to, y_pitch, *_ = row
        bias, used = self._bias(after, to)
        x, x_scale, y = self.memory.codes[codes:], self.register(scales), self.register(to)
        tensor, weight = self.program.tensors[t], self.memory.weights[t]
        pitches = [pitch, run, scales_pitch, y_pitch]
        launch = whole_product(x, x_scale, tensor, weight, bias, y, self.program.batch, pitches)
        self.launches.append(launch)
        return used

    def _rounding(self, store: int, columns: int) -> tuple[Rounds, int, int, Any]:
        """Of a row that is rounded: how, columns that share a live scale (0: all), columns that
        share a static one (0: all), and the static scales."""
        s = self.program.stores[store]
        if columns > WIDEST:
            raise LoweringError(f"rounding rows of {columns} numbers: at most {WIDEST}")
        run = s.group if s.span == GROUP and s.group < columns else 0
        if run & (run - 1) or (run and columns % run):
            raise LoweringError(f"live scales of {run} columns: a power of two that divides a row")
        return rounds_of(self.program, s), run, s.stride, self.memory.statics[store]

    def _norm(self, row: Row, after: list[Row], added: int | None) -> int:
        kind, source, to, pitch, size, *rest = row
        groups, eps, tensors = (
            (rest[0], rest[1], (rest[2], -1))
            if kind == op.RMS
            else (1, rest[0], (rest[1], rest[2]))
        )
        r, run, stride, used = EXACTLY, 0, 0, 1
        known = (self.memory.nothing, self.memory.nothing)
        if after and groups == 1 and _is_plain_rounding(after[0], to, pitch, size):
            (r, run, stride, known), used = self._rounding(after[0][4], size), 2
        weight, bias = self.small(*tensors)
        x, columns = self.register(source), size // groups
        given = (
            x, x if added is None else self.register(added), weight, bias, self.register(to),
            *known, columns, pitch, pitch, stride, self.program.consts[eps],
        )  # fmt: skip
        self._add(
            passing.norm, (self.program.batch, groups), given, W=triton.next_power_of_2(columns),
            warps=_warps(columns),
            run=run, ADDS=int(added is not None), LAYER=int(kind == op.LAYER_NORM),
            WEIGHTED=int(tensors[0] >= 0), r=r,
        )  # fmt: skip
        return used

    def _convolve(self, row: Row, after: list[Row]) -> int:
        weight, bias = self.small(row[1], row[2])
        active = bool(after) and after[0][:4] == [op.SILU, row[4], row[4], row[5]]
        launch = remembering.convolution(self.program, self.memory, row, weight, bias, active)
        self.launches.append(launch)
        return 1 + active

    def _recurrence(self, row: Row, after: list[Row]) -> int:
        heads = row[0] == op.HEADS
        skip, gate = remembering.followers(after, row[1], row[8 if heads else 6])
        A, D = self.small(-1 if heads else row[3], skip[5] if skip else -1)
        given = (self.program, self.memory, row, None if heads else A, D, skip, gate)
        self.launches.append(remembering.recurrence(*given))
        return 1 + (skip is not None) + (gate is not None)

    def _chunks(self, row: Row, after: list[Row]) -> int:
        skip, gate = remembering.followers(after, row[1], row[8])
        A, D = self.small(row[5], skip[5] if skip else -1)
        self.launches.append(remembering.chunks(self.program, self.memory, row, A, D, skip, gate))
        return 1 + (skip is not None) + (gate is not None)

    def _diagonal(self, row: Row, after: list[Row]) -> int:
        skip, _ = remembering.followers(after, row[1], row[2])
        tensors = self.small(*row[4:7], skip[5] if skip else -1)
        self.launches.append(remembering.diagonal(self.program, self.memory, row, tensors, skip))
        return 1 + (skip is not None)

    def _embed(self, row: Row) -> int:
        m = self.memory
        t, w = self.program.tensors[row[1]], m.weights[row[1]]
        check(t)
        given = (
            m.tokens, w.codes, w.scale, w.zero, self.register(row[2]), t.columns,
            t.columns * t.bits // 8, row[3], t.stride,
        )  # fmt: skip
        K = min(BLOCK, triton.next_power_of_2(max(t.columns, 8)))
        grid = (triton.cdiv(t.columns, K), self.program.batch)
        self._add(linear.embed, grid, given, K=K, G=group_of(t), c=codes_of(t))
        return 1

    def _mean(self, row: Row) -> int:
        m, (_, source, to, pitch, columns, *_) = self.memory, row
        x, y = self.register(source), self.register(to)
        given = (x, m.sums, y, m.order, m.times, m.length, columns, pitch)
        grid = (triton.cdiv(columns, BLOCK), len(m.order))
        self._add(passing.mean, grid, given, BLOCK=BLOCK)
        return 1

    def _elementwise(self, row: Row) -> int:
        """One function of a register or two, an input or a copy."""
        f, m = self._function(row), self.memory
        (factors,) = self.small(f.small)
        grid = (triton.cdiv(f.columns, BLOCK), self.program.batch)
        a = m.inputs if row[0] == op.INPUT else self.register(f.a)
        b, y, (low, high) = self.register(max(f.b, 0)), self.register(f.y), f.bounds
        given = (a, b, factors, y, f.columns, *f.pitches, f.span, low, high)
        code = op.COPY if row[0] == op.INPUT else row[0]
        self._add(passing.rows, grid, given, CODE=code, BLOCK=BLOCK)
        return 1

    def _function(self, row: Row) -> _Function:
        consts, tensors = self.program.consts, self.program.tensors
        match row:
            case op.INPUT, to, pitch, columns, *_:
                return _Function(-1, to, columns, (columns, 0, pitch))
            case op.COPY, x, x_pitch, y, y_pitch, columns, *_:
                return _Function(x, y, columns, (x_pitch, 0, y_pitch))
            case op.BIAS, tensor, x, pitch, columns, *_:
                return _Function(x, x, columns, (pitch, 0, pitch), small=tensor)
            case op.SOFTPLUS, x, y, columns, low, high, *_:
                bounds = consts[low], consts[high]
                return _Function(x, y, columns, (columns, 0, columns), bounds=bounds)
            case ((op.SILU | op.GELU | op.RAMP | op.RELU), x, y, columns, *_):
                return _Function(x, y, columns, (columns, 0, columns))
            case ((op.GATE | op.ADD), a, b, y, columns, *_):
                return _Function(a, y, columns, (columns, columns, columns), b)
            case op.SKIP, a, b, y, pitch, tensor, span, heads, b_pitch, *_:
                return _Function(a, y, span * heads, (pitch, b_pitch, pitch), b, tensor, span)
            case op.DECAY, x, x_pitch, tensor, y, y_pitch, *_:
                columns = tensors[tensor].rows * tensors[tensor].columns
                return _Function(x, y, columns, (x_pitch, 0, y_pitch), small=tensor)
            case op.HALF_GLU, x, pitch, y, y_pitch, columns, *_:
                return _Function(x, y, columns, (pitch, pitch, y_pitch), x + columns)
        raise LoweringError(f"operation {row[0]}")


def _is_norm_of(after: list[Row], row: Row) -> bool:
    """Whether a norm of whole rows follows a sum that stays where its first term lay."""
    if not after or after[0][0] not in (op.RMS, op.LAYER_NORM):
        return False
    whole = after[0][0] == op.LAYER_NORM or after[0][5] == 1
    return whole and after[0][1] == row[3] == row[1]


def _is_plain_rounding(row: Row, at: int, pitch: int, size: int) -> bool:
    """Whether a register is rounded in place, without a transform, and its codes are not kept."""
    in_place = row[:4] == [op.ROUND, at, pitch, size] and row[5] == at
    return in_place and row[8] == 0 and row[11] < 0


def _warps(columns: int) -> int:
    """For a row: sixteen numbers a thread."""
    return min(16, max(4, triton.next_power_of_2(columns) // 512))
