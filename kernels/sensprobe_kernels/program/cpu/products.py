"""Linear maps of a step, by one thread or several, and the arrays that a step is given."""

from __future__ import annotations

from typing import Any, NamedTuple

from sensprobe_kernels.jit import inline
from sensprobe_kernels.packing.integers import Coded, multiply_codes
from sensprobe_kernels.packing.rows import multiply
from sensprobe_kernels.packing.tensor import packed_of
from sensprobe_kernels.program import ir
from sensprobe_kernels.program.cpu.recurrence import Scratch
from sensprobe_kernels.program.cpu.sharing import (
    NONE,
    finish_piece,
    open_pieces,
    pause,
    take_piece,
    wait_for,
)
from sensprobe_kernels.program.ir import columns

_LINEAR, _LINEAR_CODES = columns(ir.Linear), columns(ir.LinearCodes)
_CODES = _LINEAR_CODES.x
assert _LINEAR.tensor == _LINEAR_CODES.tensor, "the tensor is looked up before the kind is known"


class Machine(NamedTuple):
    """Arrays of one program. data: packed weights and static scales, uint8. The tables are int64,
    `consts` float32, `places` int64: heads of tiles and their rows of B and C. `pieces` are
    operation, first row and the one after the last of each piece of a product that is shared;
    `ends` counts them up to and with each operation."""

    ops: Any
    tensors: Any
    stores: Any
    states: Any
    consts: Any
    places: Any
    pieces: Any
    ends: Any
    data: Any


class Call(NamedTuple):
    """The arrays that one step reads and writes: packed states (slots · state_bytes), registers and
    those of codes, inputs (batch, d_input) or tokens (batch,), float32 sums over all steps of
    pooled values (slots, columns), the slot of each sequence of the batch, and the steps that every
    slot has taken. Stochastic rounding draws by slot and step. `gate` is where threads meet, empty
    where there is one thread. `clock`, empty where nobody asks, takes when the step began and when
    each operation was over, in nanoseconds."""

    carry: Any
    state_bytes: int
    work: Any
    codes: Any
    inputs: Any
    tokens: Any
    sums: Any
    batch: int
    slots: Any
    steps: Any
    gate: Any
    clock: Any


@inline
def linear(machine: Machine, call: Call, i: int, helper: int, scratch: Scratch) -> None:
    """Compute the product that is operation i, sharing its pieces with helpers if there are any. A
    helper takes pieces of every product until the step is over.

    One function with one call of each kernel, called in one place: every other would be compiled
    with all of it again.
    """
    start, end, number = machine.ends[i - 1] if i else 0, machine.ends[i], 0
    alone = not helper and (not call.gate.size or start == end)
    if not alone:
        if not helper:
            open_pieces(call.gate, end)
        number = take_piece(call.gate)
    while number >= 0 or (helper and number == NONE):
        if number >= 0:
            k = i if alone else machine.pieces[number, 0]
            row = machine.ops[k]
            t = packed_of(machine.tensors, row[_LINEAR.tensor])
            first, last = 0, t.rows
            if not alone:
                first, last = machine.pieces[number, 1], machine.pieces[number, 2]
            data, work, batch = machine.data, call.work, call.batch
            if row[0] == ir.LINEAR:
                x, to, x_pitch = row[_LINEAR.x.at], row[_LINEAR.to.at], row[_LINEAR.x.pitch]
                pitch = row[_LINEAR.to.pitch]
                multiply(
                    data, t, first, last, work, x, x_pitch, batch, work, to, pitch, scratch.flat
                )
            else:
                to, pitch = row[_LINEAR_CODES.to.at], row[_LINEAR_CODES.to.pitch]
                codes = Coded(
                    call.codes, row[_CODES.codes.at], row[_CODES.codes.pitch], row[_CODES.run],
                    work, row[_CODES.scales.at], row[_CODES.scales.pitch],
                )  # fmt: skip
                multiply_codes(data, t, first, last, codes, batch, work, to, pitch)
            if alone:
                return
            finish_piece(call.gate)
        else:
            pause()
        number = take_piece(call.gate)
    if not helper:
        wait_for(call.gate, end)
