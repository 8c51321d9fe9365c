"""Launches of Triton kernels, made of the operations of a program.

Operations that follow each other share a launch where a kernel does both: a product and its bias, a
norm with the sum before it and the rounding after it, a convolution and its SiLU, a recurrence with
its skip and its gate.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch
import triton
from torch import Tensor

from sensprobe_kernels.launch import Launch, LoweringError
from sensprobe_kernels.ops.decode import gpu as small
from sensprobe_kernels.ops.elementwise import gpu as elementwise
from sensprobe_kernels.ops.linear import gpu as linear
from sensprobe_kernels.ops.linear.launches import check, codes_of, group_of, product, whole_product
from sensprobe_kernels.packing.tensor import POLAR
from sensprobe_kernels.program import ir
from sensprobe_kernels.program.gpu import state_launches
from sensprobe_kernels.program.gpu.device import Buffers
from sensprobe_kernels.program.gpu.state_launches import rounds_of
from sensprobe_kernels.program.ir import NONE, NOWHERE, Operation, Register
from sensprobe_kernels.program.program import Program
from sensprobe_kernels.quantize.gpu import EXACTLY, Rounds
from sensprobe_kernels.quantize.spec import GROUP

BLOCK = 1024  # numbers of a row, or of a small tensor, to a program
SCRATCH = 1 << 20  # numbers of small tensors decoded at a time
WIDEST = 1 << 15  # columns of a row that is rounded as one


@dataclass
class _Segment:
    """Small tensors that are decoded together, before the launch at `position`."""

    position: int
    rows: list[list[int]] = field(default_factory=list)
    places: dict[int, int] = field(default_factory=dict)
    used: int = 0


class _Function(NamedTuple):
    """A function of one register or two, in the form of the kernel `rows`."""

    a: Register
    y: Register
    columns: int
    b: Register = NOWHERE
    small: int = NONE
    span: int = 1
    bounds: tuple[float, float] = (0.0, 0.0)


@dataclass
class Lowering:
    """One walk through a program, which collects `launches`."""

    program: Program
    buffers: Buffers
    launches: list[Launch] = field(default_factory=list)
    segments: list[_Segment] = field(default_factory=list)
    scratch: Tensor = field(default_factory=lambda: torch.zeros(0))

    def __post_init__(self) -> None:
        self._polar = any(t.kind >= POLAR for t in self.program.tensors)
        # Numbers that a program decodes: those in float64 take more registers.
        self._block = BLOCK // 4 if self._polar else BLOCK

    def run(self) -> list[Launch]:
        """Launches of one step. Raises LoweringError."""
        large = set(self.buffers.weights)
        counts = [t.rows * t.columns for i, t in enumerate(self.program.tensors) if i not in large]
        room = min(max([SCRATCH, *(3 * c for c in counts)]), sum(counts) + 4 * len(counts))
        self.scratch = torch.zeros(max(room, 16), device=self.buffers.work.device)
        ops, at = self.program.ops, 0
        while at < len(ops):
            at += self._lower(ops[at], ops[at + 1 : at + 4])
        for segment in reversed(self.segments):
            self.launches.insert(segment.position, self._decoding(segment))
        m = self.buffers
        ticks = Launch(elementwise.tick, (len(m.order),), (m.order, m.times, m.length), {}, 1)
        return [*self.launches, ticks]

    def _lower(self, o: Operation, after: list[Operation]) -> int:
        """Launch an operation and those that share its launch; returns how many these are."""
        match o:
            case ir.Linear():
                return self._linear(o, after)
            case ir.LinearCodes():
                return self._linear_codes(o, after)
            case ir.Convolve():
                return self._convolve(o, after)
            case ir.Channels() | ir.Heads() | ir.Chunks():
                return self._recurrence(o, after)
            case ir.Diagonal():
                return self._diagonal(o, after)
            case ir.Modes():
                tensors = self.small(o.A, NONE, NONE, NONE)
                launch = state_launches.diagonal(self.program, self.buffers, o, tensors, None)
                self.launches.append(launch)
                return 1
            case ir.Add() if (norm := _norm_of(o, after)) is not None:
                return 1 + self._norm(norm, after[1:], o.b)
            case ir.Rms() | ir.LayerNorm() | ir.Affine() | ir.Centre() | ir.Factor():
                return self._norm(o, after, None)
            case ir.Round():
                return self._round(o)
            case ir.Embed():
                return self._embed(o)
            case ir.Mean():
                return self._mean(o)
        return self._elementwise(o)

    # -- tensors ----------------------------------------------------------------------------------

    def register(self, register: Register) -> Tensor:
        """The numbers of a register; some numbers for one that is absent."""
        return self.buffers.work[max(register.at, 0) :]

    def small(self, *tensors: int) -> list[Tensor]:
        """Tensors decoded to scratch; `buffers.nothing` for an absent one."""
        sizes = {t: self._room(t) for t in tensors if t >= 0}
        if not sizes:
            return [self.buffers.nothing for _ in tensors]
        if not self.segments or not self._fits(sizes):
            self.segments.append(_Segment(len(self.launches)))
        segment = self.segments[-1]
        for t, size in sizes.items():
            if t not in segment.places:
                segment.places[t] = segment.used
                segment.used += size
                self._decode(segment, t)
        return [
            self.buffers.nothing if t < 0 else self.scratch[segment.places[t] :] for t in tensors
        ]

    def _room(self, t: int) -> int:
        tensor = self.program.tensors[t]
        return -(-tensor.rows * tensor.columns // 4) * 4

    def _fits(self, sizes: dict[int, int]) -> bool:
        segment = self.segments[-1]
        new = sum(size for t, size in sizes.items() if t not in segment.places)
        return segment.used + new <= self.scratch.numel()

    def _decode(self, segment: _Segment, t: int) -> None:
        tensor, to = self.buffers.packed[t], segment.places[t]
        count = tensor.rows * tensor.columns
        for first in range(0, count, self._block):
            left = min(self._block, count - first)
            segment.rows.append([to + first, first, left, *tensor])

    def _decoding(self, segment: _Segment) -> Launch:
        table = torch.tensor(segment.rows, dtype=torch.int64, device=self.scratch.device)
        constants = {"FIELDS": table.shape[1], "BLOCK": self._block, "POLAR": int(self._polar)}
        given = (self.buffers.bytes, table, self.scratch)
        return Launch(small.decode, (len(table),), given, constants)

    def _add(
        self, kernel: Any, grid: tuple[int, ...], given: Any, *, warps: int = 4, **constants: Any
    ) -> None:
        self.launches.append(Launch(kernel, grid, tuple(given), constants, warps))

    # -- operations -------------------------------------------------------------------------------

    def _linear(self, o: ir.Linear, after: list[Operation]) -> int:
        bias, used = self._bias(after, o.to)
        x, y = self.register(o.x), self.register(o.to)
        tensor, weight = self.program.tensors[o.tensor], self.buffers.weights[o.tensor]
        pitches = [o.x.pitch, o.to.pitch]
        self.launches.append(product(x, tensor, weight, bias, y, self.program.batch, pitches))
        return used

    def _linear_codes(self, o: ir.LinearCodes, after: list[Operation]) -> int:
        bias, used = self._bias(after, o.to)
        codes, scales, run = o.x
        x, x_scale, y = self.buffers.codes[codes.at :], self.register(scales), self.register(o.to)
        tensor, weight = self.program.tensors[o.tensor], self.buffers.weights[o.tensor]
        pitches = [codes.pitch, run, scales.pitch, o.to.pitch]
        launch = whole_product(x, x_scale, tensor, weight, bias, y, self.program.batch, pitches)
        self.launches.append(launch)
        return used

    def _bias(self, after: list[Operation], to: Register) -> tuple[Tensor | None, int]:
        """The bias that follows a product and shares its launch; how many operations are done."""
        if after and isinstance(after[0], ir.Bias) and after[0].to.at == to.at:
            return self.small(after[0].tensor)[0], 2
        return None, 1

    def _round(self, o: ir.Round) -> int:
        m, columns, base = self.buffers, o.x.size, o.base
        (codes, scales, _), readers = o.kept, o.readers
        r, run, stride, known = self._rounding(o.store, columns)
        turns, log = o.power > 0, max(o.power, 1).bit_length() - 1
        if turns:
            P, B = o.power, triton.next_power_of_2(base)
            M = triton.next_power_of_2(columns // (base * o.power)) * B
            if run and base > 1:
                raise LoweringError("dynamic scales of groups of columns that Paley's matrix mixes")
        else:
            P, B, M = triton.next_power_of_2(columns), 1, 1
        matrices = (m.consts[o.signs :], m.consts[max(o.signs_back, 0) :])
        given = (
            self.register(o.x), self.register(o.to), *matrices, m.codes[max(codes.at, 0) :],
            self.register(scales), *known, columns, o.x.pitch, o.to.pitch, codes.pitch,
            scales.pitch, stride,
        )  # fmt: skip
        self._add(
            elementwise.rounds, (self.program.batch,), given, warps=_warps(M * P), base=base, B=B,
            P=P, LOG=log if turns else 0, M=M, run=run, BACK=int(o.signs_back >= 0),
            CODED=int(codes.at >= 0), NANS=readers & ir.SCANNED,
            PLAIN=int(readers & (ir.SCANNED | ir.PLAIN) != ir.SCANNED), r=r,
        )  # fmt: skip
        return 1

    def _rounding(self, store: int, columns: int) -> tuple[Rounds, int, int, Any]:
        """How rows are rounded, how many columns share a dynamic scale and how many a static one
        (0: all), and the static scales."""
        s = self.program.stores[store]
        if columns > WIDEST:
            raise LoweringError(f"rounding rows of {columns} numbers: at most {WIDEST}")
        run = s.group if s.span == GROUP and s.group < columns else 0
        if run & (run - 1) or (run and columns % run):
            raise LoweringError(
                f"dynamic scales of {run} columns: a power of two that divides a row"
            )
        return rounds_of(self.program, s), run, s.stride, self.buffers.statics[store]

    def _norm(
        self,
        o: ir.Rms | ir.LayerNorm | ir.Affine | ir.Centre | ir.Factor,
        after: list[Operation],
        added: Register | None,
    ) -> int:
        groups = o.groups if isinstance(o, ir.Rms) else 1
        weight_of = NONE if isinstance(o, ir.Centre) else o.weight
        bias_of = o.bias if isinstance(o, ir.LayerNorm | ir.Affine) else NONE
        eps = 0.0 if isinstance(o, ir.Affine | ir.Centre) else self.program.consts[o.eps]
        r, run, stride, used = EXACTLY, 0, 0, 1
        known = (self.buffers.nothing, self.buffers.nothing)
        rounds = after[0] if after and groups == 1 else None
        if isinstance(rounds, ir.Round) and _in_place(rounds, o.to):
            (r, run, stride, known), used = self._rounding(rounds.store, o.to.size), 2
        weight, bias = self.small(weight_of, bias_of)
        x, columns = self.register(o.x), o.x.size // groups
        given = (
            x, x if added is None else self.register(added), weight, bias, self.register(o.to),
            *known, columns, o.x.pitch, o.to.pitch, stride, eps,
        )  # fmt: skip
        self._add(
            elementwise.norm, (self.program.batch, groups), given,
            W=triton.next_power_of_2(columns), warps=_warps(columns), run=run,
            ADDS=int(added is not None), LAYER=int(isinstance(o, ir.LayerNorm)),
            WEIGHTED=int(weight_of >= 0), AFFINE=int(isinstance(o, ir.Affine)),
            CENTRE=int(isinstance(o, ir.Centre)), FACTOR=int(isinstance(o, ir.Factor)), r=r,
        )  # fmt: skip
        return used

    def _convolve(self, o: ir.Convolve, after: list[Operation]) -> int:
        weight, bias = self.small(o.weight, o.bias)
        active = bool(after) and after[0] == ir.Silu(o.to, o.to) and isinstance(after[0], ir.Silu)
        launch = state_launches.convolution(self.program, self.buffers, o, weight, bias, active)
        self.launches.append(launch)
        return 1 + active

    def _recurrence(self, o: ir.Channels | ir.Heads | ir.Chunks, after: list[Operation]) -> int:
        skip, gate = _followers(after, o.x, o.to)
        A, D = self.small(NONE if isinstance(o, ir.Heads) else o.A, skip.D if skip else NONE)
        if isinstance(o, ir.Chunks):
            launch = state_launches.chunks(self.program, self.buffers, o, A, D, skip, gate)
        else:
            launch = state_launches.recurrence(self.program, self.buffers, o, A, D, skip, gate)
        self.launches.append(launch)
        return 1 + (skip is not None) + (gate is not None)

    def _diagonal(self, o: ir.Diagonal, after: list[Operation]) -> int:
        skip, _ = _followers(after, o.x, o.to)
        tensors = self.small(o.A, o.B, o.C, skip.D if skip else NONE)
        launch = state_launches.diagonal(self.program, self.buffers, o, tensors, skip)
        self.launches.append(launch)
        return 1 + (skip is not None)

    def _embed(self, o: ir.Embed) -> int:
        m = self.buffers
        t, w = self.program.tensors[o.tensor], m.weights[o.tensor]
        check(t)
        given = (
            m.tokens, w.codes, w.scale, w.zero, self.register(o.to), t.columns,
            t.columns * t.bits // 8, o.to.pitch, t.stride,
        )  # fmt: skip
        K = min(BLOCK, triton.next_power_of_2(max(t.columns, 8)))
        grid = (triton.cdiv(t.columns, K), self.program.batch)
        self._add(linear.embed, grid, given, K=K, G=group_of(t), c=codes_of(t))
        return 1

    def _mean(self, o: ir.Mean) -> int:
        m, columns = self.buffers, o.x.size
        x, y = self.register(o.x), self.register(o.to)
        given = (x, m.sums, y, m.order, m.times, m.length, columns, o.x.pitch)
        grid = (triton.cdiv(columns, BLOCK), len(m.order))
        self._add(elementwise.mean, grid, given, BLOCK=BLOCK)
        return 1

    def _elementwise(self, o: Operation) -> int:
        """Launch a function of a register or two, an input or a copy."""
        f, m = self._function(o), self.buffers
        factors = m.consts[o.columns :] if isinstance(o, ir.Pick) else self.small(f.small)[0]
        grid = (triton.cdiv(f.columns, BLOCK), self.program.batch)
        a = m.inputs if isinstance(o, ir.Input) else self.register(f.a)
        pitches, (low, high) = (f.a.pitch, f.b.pitch, f.y.pitch), f.bounds
        given = (a, self.register(f.b), factors, self.register(f.y), f.columns, *pitches, f.span,
                 low, high)  # fmt: skip
        code = ir.COPY if isinstance(o, ir.Input) else ir.CODES[type(o)]
        self._add(elementwise.rows, grid, given, CODE=code, BLOCK=BLOCK)
        return 1

    def _function(self, o: Operation) -> _Function:
        consts, tensors = self.program.consts, self.program.tensors
        match o:
            case ir.Input(y):
                return _Function(Register(NONE, y.size, y.size), y, y.size)
            case ir.Copy(x, y) | ir.Pick(x, y):
                return _Function(x, y, y.size)
            case ir.Bias(tensor, y):
                return _Function(y, y, y.size, small=tensor)
            case ir.Softplus(x, y, low, high):
                return _Function(x, y, y.pitch, bounds=(consts[low], consts[high]))
            case ir.Silu(x, y) | ir.Gelu(x, y) | ir.GeluTanh(x, y) | ir.Qgelu(x, y):
                return _Function(x, y, y.pitch)
            case ir.Relu(x, y) | ir.Qgelu4(x, y):
                return _Function(x, y, y.pitch)
            case ir.Gate(a, b, y) | ir.Add(a, b, y) | ir.Multiply(a, b, y):
                return _Function(a, y, y.pitch, b)
            case ir.Skip(a, b, y, D, span, entries):
                return _Function(a, y, span * entries, b, D, span)
            case ir.Decay(x, A, y):
                return _Function(x, y, tensors[A].rows * tensors[A].columns, small=A)
            case ir.HalfGlu(x, y) | ir.HardGlu(x, y):
                return _Function(x, y, y.size, x.part(y.size, y.size))
        raise LoweringError(f"operation {type(o).__name__}")


def _norm_of(added: ir.Add, after: list[Operation]) -> ir.Rms | ir.LayerNorm | None:
    """The norm of whole rows that follows a sum which stays where its first term lay."""
    norm = after[0] if after else None
    if not isinstance(norm, ir.Rms | ir.LayerNorm) or not norm.x.at == added.to.at == added.a.at:
        return None
    return norm if isinstance(norm, ir.LayerNorm) or norm.groups == 1 else None


def _in_place(o: ir.Round, register: Register) -> bool:
    """Whether a register is rounded in place, without a transform, and its codes are not kept."""
    return o.x == o.to == register and o.power == 0 and o.kept.codes.at < 0


def _followers(
    after: list[Operation], x: Register, y: Register
) -> tuple[ir.Skip | None, ir.Gate | None]:
    """The skip and the gate that follow a recurrence from x to y, on its registers."""
    skip = after[0] if after else None
    if not isinstance(skip, ir.Skip) or (skip.y.at, skip.x.at, skip.to.at) != (y.at, x.at, y.at):
        return None, None
    gate = after[1] if len(after) > 1 else None
    gated = isinstance(gate, ir.Gate) and gate.y.at == gate.to.at == y.at
    return skip, gate if isinstance(gate, ir.Gate) and gated else None


def _warps(columns: int) -> int:
    """Warps of a launch that has a row a program: sixteen numbers a thread."""
    return min(16, max(4, triton.next_power_of_2(columns) // 512))
