"""Filling a program and running it on the CPU."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from threading import Thread
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from sensprobe_kernels.packing.tensor import FIELDS, Packed
from sensprobe_kernels.program import tables as op
from sensprobe_kernels.program.products import Call, Machine
from sensprobe_kernels.program.recurrence import Scratch
from sensprobe_kernels.program.sharing import GATE, LIMIT, OVER
from sensprobe_kernels.program.steps import build
from sensprobe_kernels.program.tables import (
    STATE_FIELDS,
    STORED_FIELDS,
    WIDTH,
    State,
    Stored,
)
from sensprobe_kernels.simd.pairs import PAIRS
from sensprobe_kernels.simd.vector import LANES
from sensprobe_kernels.threads import scratch

LEAST_BYTES = 1 << 25
"""Codes in large products for each thread that pays for being started in every step."""
PIECE_BYTES = 1 << 16
"""Codes in a piece of a product."""
Bytes = NDArray[np.uint8]
Floats = NDArray[np.float32]
Places = NDArray[np.int64]
UNTIMED: Places = np.zeros(0, np.int64)
"""In place of a clock that is told."""


class Register(NamedTuple):
    """A float32 array (batch, pitch) of work memory from number `at` on, `size` columns of use."""

    at: int
    pitch: int
    size: int

    def part(self, first: int, size: int) -> Register:
        """Some of its columns, in place."""
        return Register(self.at + first, self.pitch, size)


def padded(size: int) -> int:
    """The next multiple of sixteen."""
    return -(-size // LANES) * LANES


@dataclass
class Program:
    """Operations for steps of `batch` sequences, and the tables they read.

    data: packed weights and static scales; everything else is filled by `add` and the methods that
    give numbers of table rows.
    """

    data: Bytes
    batch: int
    ops: list[list[int]] = field(default_factory=list)
    tensors: list[Packed] = field(default_factory=list)
    stores: list[Stored] = field(default_factory=list)
    states: list[State] = field(default_factory=list)
    consts: list[float] = field(default_factory=list)
    places: list[int] = field(default_factory=list)
    work_size: int = 0
    codes_size: int = 0
    complex: bool = False  # a state is: its scales may be as many as its numbers
    largest: int = LANES  # numbers of a tensor that is decoded whole
    longest: int = LANES  # numbers of a row
    work: Floats = field(default_factory=lambda: np.zeros(0, np.float32))  # all registers
    _codes: NDArray[np.int16] = field(default_factory=lambda: np.zeros(0, np.int16))
    _machine: Machine | None = None
    _scratch: Scratch | None = None
    _helpers: int = 0  # threads beside the caller's that pay

    def register(self, size: int) -> Register:
        made = Register(self.work_size, padded(size), size)
        self.work_size += self.batch * made.pitch
        return made

    def codes(self, size: int) -> Register:
        """One of whole numbers, in the block of codes."""
        made = Register(self.codes_size, -(-size // PAIRS) * PAIRS, size)
        self.codes_size += self.batch * made.pitch
        return made

    def tensor(self, tensor: Packed) -> int:
        self.tensors.append(tensor)
        return len(self.tensors) - 1

    def store(self, stored: Stored) -> int:
        self.stores.append(stored)
        return len(self.stores) - 1

    def state(self, state: State) -> int:
        self.states.append(state)
        return len(self.states) - 1

    def constants(self, *values: float) -> int:
        """The place of the first of them."""
        self.consts += values
        return len(self.consts) - len(values)

    def table(self, places: list[int]) -> int:
        self.places += places
        return len(self.places) - len(places)

    def add(self, code: int, *numbers: int) -> None:
        """Append an operation: its code and the numbers `tables` lists."""
        self.ops.append([code, *numbers, *[0] * (WIDTH - 1 - len(numbers))])

    def turns(self, size: int) -> None:
        """Make room for transforms of rows of so many numbers."""
        self.longest = max(self.longest, size)

    def decodes(self, count: int) -> None:
        """Make room for a tensor of so many numbers that an operation decodes whole."""
        self.largest = max(self.largest, count)

    def finish(self) -> None:
        """Make the arrays a step reads; nothing may be added after."""
        pieces, ends = self._pieces()
        self._machine = Machine(
            np.array(self.ops, np.int64).reshape(-1, WIDTH),
            np.array(self.tensors, np.int64).reshape(-1, FIELDS),
            np.array(self.stores, np.int64).reshape(-1, STORED_FIELDS),
            np.array(self.states, np.int64).reshape(-1, STATE_FIELDS),
            np.array([*self.consts, *[0.0] * 8], np.float32),
            np.array([*self.places, 0], np.int64),
            np.array(pieces, np.int64).reshape(-1, 3),
            np.array(ends, np.int64),
            self.data,
        )
        states = [(s.rows, s.n) for s in self.states] or [(LANES, 1)]
        numbers = max(rows * n for rows, n in states)
        scales = [s.rows * max(1, s.n // s.run if s.run else 1) for s in self.states]
        rows = max([LANES, *scales, numbers if self.complex else 0])
        longest = max([self.longest, *(t.columns for t in self.tensors)])
        flat = max(LANES * max(n for _, n in states), longest)
        self._scratch = Scratch(
            state=scratch(numbers),
            rest=scratch(numbers),
            decays=scratch(numbers),
            flat=scratch(padded(flat) + 2 * LANES),
            scales=scratch(rows),
            zeros=scratch(rows),
            known=scratch(5 * rows),
            tensor=scratch(padded(self.largest) + 2 * LANES),
            wide=np.zeros(longest),
        )
        self.work = scratch(self.work_size + LANES)
        self._codes = scratch(self.codes_size // 2 + LANES).view(np.int16)

    def _pieces(self) -> tuple[list[tuple[int, int, int]], list[int]]:
        """Pieces of products that are worth sharing, and their number up to each operation."""
        pieces: list[tuple[int, int, int]] = []
        ends, sizes = [], {}
        for i, row in enumerate(self.ops):
            if row[0] in (op.LINEAR, op.LINEAR_CODES):
                t = self.tensors[row[1]]
                sizes[i] = t.rows * t.columns * t.bits // 8
        large = {i: size for i, size in sizes.items() if size >= 2 * PIECE_BYTES}
        self._helpers = sum(large.values()) // LEAST_BYTES
        for i, row in enumerate(self.ops):
            if i in large:
                rows = self.tensors[row[1]].rows
                few = max(4, rows * PIECE_BYTES // large[i] // 4 * 4)
                pieces += [(i, k, min(k + few, rows)) for k in range(0, rows, few)]
            ends.append(len(pieces))
        return pieces, ends

    def only(self, *codes: int) -> Program:
        """A finished program of nothing but its operations of some kinds, on the same registers."""
        kept = replace(self, ops=[row for row in self.ops if row[0] in codes])
        kept.finish()
        return kept

    def run(
        self,
        memory: Bytes,
        inputs: Floats,
        tokens: NDArray[np.int64],
        sums: Floats,
        steps: Places,
        slots: Places,
        threads: int = 1,
        clock: Places = UNTIMED,
    ) -> None:
        """One step of the sequences in some slots, at most `batch` of them and each once: changes
        `memory` (slots, bytes), `sums` (slots · columns) and the registers.

        inputs (sequences · d_input) or tokens (sequences,); steps taken before, one a slot.
        Large products are shared among threads, where there is enough of them; results do not
        depend on it. clock (operations + 1,) is told when the step began and when each operation
        was over, in nanoseconds.
        """
        assert self._machine is not None
        assert self._scratch is not None
        assert slots.size <= self.batch
        call = Call(
            memory.reshape(-1), memory.shape[1], self.work, self._codes, inputs, tokens, sums,
            slots.size, slots, steps, UNTIMED, clock,
        )  # fmt: skip
        helpers = min(threads - 1, self._helpers)
        if helpers > 0:
            self._run_shared(call._replace(gate=np.zeros(GATE, np.int64)), self._scratch, helpers)
        else:
            build()(self._machine, call, self._scratch, 0)

    def _run_shared(self, call: Call, own: Scratch, count: int) -> None:
        """With helpers that live as long as the step: nothing is left that a fork would break."""
        run, helpers = build(), []
        for _ in range(count):
            other = own._replace(flat=np.zeros_like(own.flat))
            helpers.append(Thread(target=run, args=(self._machine, call, other, 1)))
        try:
            for helper in helpers:
                helper.start()
            run(self._machine, call, own, 0)
        finally:
            call.gate[LIMIT] = OVER
            for helper in helpers:
                if helper.ident is not None:
                    helper.join()

    def read(self, register: Register) -> Floats:
        """A copy of a register: (batch, size)."""
        rows = self.work[register.at : register.at + self.batch * register.pitch]
        return rows.reshape(self.batch, register.pitch)[:, : register.size].copy()
