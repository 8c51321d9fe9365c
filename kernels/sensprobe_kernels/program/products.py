"""Linear maps of a step, alone or with helpers, and what a step is given."""

from __future__ import annotations

from typing import Any, NamedTuple

from sensprobe_kernels.packed.integers import Coded, multiply_codes
from sensprobe_kernels.packed.rows import multiply
from sensprobe_kernels.packed.tensor import packed_of
from sensprobe_kernels.program import tables as op
from sensprobe_kernels.program.recurrence import Scratch
from sensprobe_kernels.program.sharing import finished, idle, opened, taken, waited
from sensprobe_kernels.stored.flags import apart, inline


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
    """What one step works on: packed states (slots · state_bytes), register memory and that of
    codes, inputs (batch, d_input) or tokens (batch,), float32 sums over all steps of what is pooled
    (slots, columns), the slot of each sequence of the batch, and the steps that every slot has
    taken. What is rounded at random draws by slot and step. `gate` is where threads meet, of no
    size where there is one."""

    memory: Any
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


@apart
def _product(machine: Machine, call: Call, i: int, first: int, last: int, row: Any) -> None:
    """Some rows of the product that is operation i; `row` is scratch."""
    o, data, work, batch = machine.ops[i], machine.data, call.work, call.batch
    t = packed_of(machine.tensors, o[1])
    if o[0] == op.LINEAR:
        multiply(data, t, first, last, work, o[2], o[3], batch, work, o[4], o[5], row)
    else:
        x = Coded(call.codes, o[2], o[3], o[4], work, o[5], o[6])
        multiply_codes(data, t, first, last, x, batch, work, o[7], o[8])


@inline
def _piece(machine: Machine, call: Call, number: int, scratch: Scratch) -> None:
    i = machine.pieces[number, 0]
    first, last = machine.pieces[number, 1], machine.pieces[number, 2]
    _product(machine, call, i, first, last, scratch.flat)
    finished(call.gate)


@inline
def linear(machine: Machine, call: Call, i: int, scratch: Scratch) -> None:
    """The product that is operation i, its pieces shared where there are helpers."""
    end = machine.ends[i]
    if not call.gate.size or end == (machine.ends[i - 1] if i else 0):
        rows = machine.tensors[machine.ops[i, 1], 3]
        _product(machine, call, i, 0, rows, scratch.flat)
        return
    opened(call.gate, end)
    number = taken(call.gate)
    while number >= 0:
        _piece(machine, call, number, scratch)
        number = taken(call.gate)
    waited(call.gate, end)


@inline
def help_out(machine: Machine, call: Call, scratch: Scratch) -> None:
    """Take pieces until all is over."""
    number = taken(call.gate)
    while number != -2:
        if number >= 0:
            _piece(machine, call, number, scratch)
        else:
            idle()
        number = taken(call.gate)
