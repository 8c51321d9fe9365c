"""Running a program on the CPU."""

from __future__ import annotations

from collections.abc import Sequence
from threading import Thread

import numpy as np
from numpy.typing import NDArray

from sensprobe_kernels.packing.tensor import FIELDS
from sensprobe_kernels.program import ir
from sensprobe_kernels.program.cpu.products import Call, Machine
from sensprobe_kernels.program.cpu.recurrence import Scratch
from sensprobe_kernels.program.cpu.sharing import GATE, LIMIT, OVER
from sensprobe_kernels.program.cpu.steps import build
from sensprobe_kernels.program.ir import Operation, Register, State
from sensprobe_kernels.program.program import Program
from sensprobe_kernels.simd.vector import LANES
from sensprobe_kernels.threads import scratch

LEAST_BYTES = 1 << 25
"""Bytes of codes in large products for each thread that pays for being started in every step."""
PIECE_BYTES = 1 << 16
"""Bytes of codes in a piece of a product."""
Bytes = NDArray[np.uint8]
Floats = NDArray[np.float32]
Longs = NDArray[np.int64]
UNTIMED: Longs = np.zeros(0, np.int64)
"""The clock of a step that is not timed."""


class CpuProgram:
    """A program with the arrays that its compiled step reads and writes. `work` are the registers,
    `codes` those of integer codes."""

    def __init__(self, program: Program):
        self.program, self.batch = program, program.batch
        pieces, ends = self.pieces()
        states, places = _tabled(program.states)
        self._machine = Machine(
            _table([ir.encode(operation) for operation in program.ops], ir.WIDTH),
            _table(program.tensors, FIELDS),
            _table(program.stores, len(ir.Stored._fields)),
            _table(states, len(State._fields)),
            np.array([*program.consts, *[0.0] * 8], np.float32),
            np.array([*places, 0], np.int64),
            _table(pieces, 3),
            np.array(ends, np.int64),
            program.data,
        )
        self._scratch = _scratch(program)
        self.work: Floats = scratch(program.work_size + LANES)
        self.codes: NDArray[np.int16] = scratch(program.codes_size // 2 + LANES).view(np.int16)

    def pieces(self) -> tuple[list[tuple[int, int, int]], list[int]]:
        """(operation, first row, the one after the last) of each piece of the products that are
        worth sharing among threads, and how many pieces there are up to and with each operation."""
        pieces: list[tuple[int, int, int]] = []
        ends, sizes, rows = [], {}, {}
        for i, o in enumerate(self.program.ops):
            if isinstance(o, ir.Linear | ir.LinearCodes):
                t = self.program.tensors[o.tensor]
                sizes[i], rows[i] = t.rows * t.columns * t.bits // 8, t.rows
        large = {i: size for i, size in sizes.items() if size >= 2 * PIECE_BYTES}
        self._helpers = sum(large.values()) // LEAST_BYTES  # threads beside the caller's that pay
        for i in range(len(self.program.ops)):
            if i in large:
                few = max(4, rows[i] * PIECE_BYTES // large[i] // 4 * 4)
                pieces += [(i, k, min(k + few, rows[i])) for k in range(0, rows[i], few)]
            ends.append(len(pieces))
        return pieces, ends

    def run(
        self,
        carry: Bytes,
        inputs: Floats,
        tokens: Longs,
        sums: Floats,
        steps: Longs,
        slots: Longs,
        threads: int = 1,
        clock: Longs = UNTIMED,
    ) -> None:
        """One step of the sequences in some slots, at most `batch` of them and each once: changes
        `carry` (slots, bytes), `sums` (slots · columns) and the registers.

        inputs (sequences · d_input) or tokens (sequences,); steps taken before, one a slot.
        `clock` (operations + 1) takes the nanoseconds at which the step began and each operation
        was over, unless it is UNTIMED.
        """
        assert slots.size <= self.batch
        call = Call(
            carry.reshape(-1), carry.shape[1], self.work, self.codes, inputs, tokens, sums,
            slots.size, slots, steps, UNTIMED, clock,
        )  # fmt: skip
        helpers = min(threads - 1, self._helpers)
        if helpers > 0:
            self._run_shared(call._replace(gate=np.zeros(GATE, np.int64)), helpers)
        else:
            build()(self._machine, call, self._scratch, 0)

    def _run_shared(self, call: Call, count: int) -> None:
        """Run a step with helper threads that end with it: a process may fork between steps."""
        run, helpers = build(), []
        for _ in range(count):
            other = self._scratch._replace(flat=np.zeros_like(self._scratch.flat))
            helpers.append(Thread(target=run, args=(self._machine, call, other, 1)))
        try:
            for helper in helpers:
                helper.start()
            run(self._machine, call, self._scratch, 0)
        finally:
            call.gate[LIMIT] = OVER
            for helper in helpers:
                if helper.ident is not None:
                    helper.join()

    def read(self, register: Register) -> Floats:
        """A copy of a register: (batch, size)."""
        rows = self.work[register.at : register.at + self.batch * register.pitch]
        return rows.reshape(self.batch, register.pitch)[:, : register.size].copy()


def _table(rows: Sequence[Sequence[int]], width: int) -> Longs:
    return np.array(rows, np.int64).reshape(-1, width)


def _tabled(states: list[State]) -> tuple[list[State], list[int]]:
    """States with `table` set, and the numbers it refers to: the head of each tile of a state, then
    the row of B and C of each tile."""
    found: list[State] = []
    places: list[int] = []
    for s in states:
        tiles = s.rows // LANES
        found.append(s._replace(table=len(places)))
        places += [k * s.heads // tiles for k in range(tiles)]
        places += [k * s.groups // tiles for k in range(tiles)]
    return found, places


def _scratch(program: Program) -> Scratch:
    """Room for the largest state and the largest tensors that an operation decodes whole."""
    states = program.states
    numbers = max([LANES, *(s.rows * s.n for s in states)])
    scales = [s.rows * max(1, s.n // s.run if s.run else 1) for s in states]
    if any(isinstance(o, ir.Diagonal | ir.Modes) for o in program.ops):
        scales.append(numbers)  # of complex states, which may have a scale a number
    rows = max([LANES, *scales])
    turned = (o.x.size for o in program.ops if isinstance(o, ir.Round))
    longest = max([LANES, *turned, *(t.columns for t in program.tensors)])
    flat = max(LANES * max([1, *(s.n for s in states)]), longest)
    tensors = max([LANES, *(_decoded(program, o) for o in program.ops)])
    return Scratch(
        state=scratch(numbers),
        residual=scratch(numbers),
        decays=scratch(numbers),
        flat=scratch(_whole_lines(flat) + 2 * LANES),
        scales=scratch(rows),
        zeros=scratch(rows),
        known=scratch(5 * rows),
        tensor=scratch(_whole_lines(tensors) + 2 * LANES),
        wide=np.zeros(longest),
    )


def _whole_lines(size: int) -> int:
    return -(-size // LANES) * LANES


def _decoded(program: Program, o: Operation) -> int:
    """How many numbers an operation decodes before it begins."""

    def size(tensor: int) -> int:
        t = program.tensors[tensor]
        return t.rows * t.columns

    match o:
        case ir.LayerNorm(x=x) | ir.Affine(x=x):
            return 2 * x.pitch
        case ir.Convolve(weight=weight, x=x):
            return size(weight) + x.pitch
        case ir.Diagonal(A=A):
            return 3 * size(A)
        case ir.Modes(A=A):
            return size(A)
        case ir.Factor(weight=tensor):
            return size(tensor)
        case ir.Rms(weight=tensor) if tensor >= 0:
            return size(tensor)
        case (
            ir.Channels(A=tensor) | ir.Decay(A=tensor) | ir.Skip(D=tensor) | ir.Bias(tensor=tensor)
        ):
            return size(tensor)
    return 0
