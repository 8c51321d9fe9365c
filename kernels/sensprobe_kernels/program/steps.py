"""The compiled step: goes through the operations of a program, for every sequence."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np

from sensprobe_kernels.jit import compiled, inline
from sensprobe_kernels.ops.rotate.rows import Turn, turn_row
from sensprobe_kernels.ops.selective_scan.job import Given
from sensprobe_kernels.packing.tensor import packed_of
from sensprobe_kernels.program import tables as op
from sensprobe_kernels.program.clock import nanoseconds
from sensprobe_kernels.program.diagonal import diagonal
from sensprobe_kernels.program.groups import in_groups
from sensprobe_kernels.program.products import Call, Machine, linear
from sensprobe_kernels.program.recurrence import (
    Scratch,
    advance,
    bring,
    convolve,
    fill_known,
    in_lanes,
    job_of,
    take_back,
)
from sensprobe_kernels.program.rows import (
    Codes,
    decays,
    gates,
    gelus,
    glus,
    layer_norm,
    plain_row,
    products,
    raised,
    ramps,
    relus,
    rms,
    rounds,
    silus,
    skips,
    softpluses,
    sums,
    whole_tensor,
)
from sensprobe_kernels.program.sharing import OVER, opened
from sensprobe_kernels.program.tables import state_of, stored_of
from sensprobe_kernels.simd.vector import LANES

_MINUS_ZERO = np.float32(-0.0)


@inline
def _given(
    machine: Machine, x: Any, dt: Any, decay: Any, B: Any, C: Any, y: Any, A: Any, s: Any,
    numbers: Any, others: Any, scratch: Scratch,
) -> Given:  # fmt: skip
    tiles = s.rows // LANES
    heads = machine.places[s.table : s.table + tiles]
    rows = machine.places[s.table + tiles : s.table + 2 * tiles]
    return Given(
        x, dt, A, decay, B, C, y, scratch.state, scratch.rest, scratch.known, numbers,
        scratch.known, others, heads, rows, scratch.flat, scratch.flat,
    )  # fmt: skip


@inline
def _base(call: Call, b: int) -> int:
    """Where the state of sequence b of the batch begins."""
    return call.slots[b] * call.state_bytes


@inline
def _decoded(machine: Machine, i: int, out: Any, scratch: Scratch) -> None:
    """Tensor i, whole."""
    t = packed_of(machine.tensors, i)
    whole_tensor(machine.data, machine.consts, t, out, scratch.wide)


@inline
def _convolve(machine: Machine, call: Call, row: Any, scratch: Scratch) -> None:
    s = state_of(machine.states, row[6])
    d, work = stored_of(machine.stores, s.store), call.work
    numbers = machine.consts[d.numbers : d.numbers + 8]
    filters = scratch.tensor
    in_lanes(machine.data, machine.consts, packed_of(machine.tensors, row[1]), scratch, filters)
    bias = filters[s.rows * (s.n + 1) :]
    if row[2] >= 0:
        _decoded(machine, row[2], bias, scratch)
    else:
        bias[: s.rows] = _MINUS_ZERO
    for b in range(call.batch):
        base, shift = _base(call, b), b * row[5]
        bring(machine.data, call.memory, base, s, d, numbers, scratch)
        x, y = work[row[3] + shift :], work[row[4] + shift :]
        given = _given(machine, x, x, x, x, x, y, x, s, numbers, numbers, scratch)
        job = job_of(s, d, d, call.slots[b], call.steps[call.slots[b]])
        convolve(machine.data, s, d, job, given, filters, bias, numbers, scratch)
        take_back(call.memory, base, s, d, scratch)


@inline
def _channels(machine: Machine, call: Call, row: Any, scratch: Scratch) -> None:
    s, p = state_of(machine.states, row[9]), stored_of(machine.stores, row[10])
    d, work, pitch = stored_of(machine.stores, s.store), call.work, row[7]
    numbers = machine.consts[d.numbers : d.numbers + 8]
    others = machine.consts[p.numbers : p.numbers + 8]
    A = packed_of(machine.tensors, row[3])
    in_lanes(machine.data, machine.consts, A, scratch, scratch.tensor)
    fill_known(machine.data, p, s.rows // LANES, others, scratch)
    for b in range(call.batch):
        base, shift, along = _base(call, b), b * pitch, b * row[8]
        x, dt, y = work[row[1] + shift :], work[row[2] + shift :], work[row[6] + shift :]
        B, C = work[row[4] + along :], work[row[5] + along :]
        given = _given(
            machine, x, dt, scratch.flat, B, C, y, scratch.tensor, s, numbers, others, scratch
        )
        job = job_of(s, d, p, call.slots[b], call.steps[call.slots[b]])
        if s.run:
            data = machine.data
            in_groups(data, call.memory, base, job, given, False, s, d, p, numbers, scratch)
            continue
        bring(machine.data, call.memory, base, s, d, numbers, scratch)
        advance(machine.data, job, given, False, s, d, p, numbers, scratch)
        take_back(call.memory, base, s, d, scratch)


@inline
def _heads(machine: Machine, call: Call, row: Any, scratch: Scratch) -> None:
    s = state_of(machine.states, row[10])
    d, work = stored_of(machine.stores, s.store), call.work
    numbers = machine.consts[d.numbers : d.numbers + 8]
    for b in range(call.batch):
        base, wide, narrow, out = _base(call, b), b * row[2], b * row[5], b * row[9]
        x, y = work[row[1] + wide :], work[row[8] + out :]
        dt, a = work[row[3] + narrow :], work[row[4] + narrow :]
        B, C = work[row[6] + wide :], work[row[7] + wide :]
        given = _given(machine, x, dt, a, B, C, y, x, s, numbers, numbers, scratch)
        job = job_of(s, d, d, call.slots[b], call.steps[call.slots[b]])
        if s.run:
            data = machine.data
            in_groups(data, call.memory, base, job, given, True, s, d, d, numbers, scratch)
            continue
        bring(machine.data, call.memory, base, s, d, numbers, scratch)
        advance(machine.data, job, given, True, s, d, d, numbers, scratch)
        take_back(call.memory, base, s, d, scratch)


@inline
def _diagonal(machine: Machine, call: Call, row: Any, scratch: Scratch) -> None:
    s = state_of(machine.states, row[7])
    d, size = stored_of(machine.stores, s.store), 2 * s.heads * s.n
    for i in range(3):
        _decoded(machine, row[4 + i], scratch.tensor[i * size :], scratch)
    for b in range(call.batch):
        base, shift, slot = _base(call, b), b * row[3], call.slots[b]
        x, y = call.work[row[1] + shift :], call.work[row[2] + shift :]
        data, step, consts = machine.data, call.steps[slot], machine.consts
        diagonal(data, call.memory, base, s, d, slot, step, x, y, consts, scratch)


@inline
def _norm(machine: Machine, call: Call, row: Any, scratch: Scratch) -> None:
    work, pitch = call.work, row[3]
    if row[0] == op.RMS:
        if row[7] >= 0:
            _decoded(machine, row[7], scratch.tensor, scratch)
        for b in range(call.batch):
            at = row[2] + b * pitch
            rms(work, row[1] + b * pitch, at, row[4], row[5], machine.consts[row[6]])
            if row[7] >= 0:
                products(work, at, scratch.tensor, row[4])
        return
    weight, bias = scratch.tensor, scratch.tensor[pitch:]
    _decoded(machine, row[6], weight, scratch)
    _decoded(machine, row[7], bias, scratch)
    for b in range(call.batch):
        at, to = row[1] + b * pitch, row[2] + b * pitch
        layer_norm(work, at, to, row[4], machine.consts[row[5]], weight, bias)


@inline
def _rows(machine: Machine, call: Call, row: Any, scratch: Scratch) -> None:
    """What takes the registers of all sequences alike: they lie one after the other."""
    work, code, batch = call.work, row[0], call.batch
    if code == op.SILU:
        silus(work, row[1], row[2], batch * row[3])
    elif code == op.GELU:
        gelus(work, row[1], row[2], batch * row[3])
    elif code == op.RAMP:
        ramps(work, row[1], row[2], batch * row[3])
    elif code == op.RELU:
        relus(work, row[1], row[2], batch * row[3])
    elif code == op.GATE:
        gates(work, row[1], row[2], row[3], batch * row[4])
    elif code == op.ADD:
        sums(work, row[1], row[2], row[3], batch * row[4])
    elif code == op.SOFTPLUS:
        low, high = machine.consts[row[4]], machine.consts[row[5]]
        softpluses(work, row[1], row[2], batch * row[3], low, high)


@inline
def _each(machine: Machine, call: Call, row: Any, scratch: Scratch) -> None:
    """What goes from sequence to sequence."""
    work, code = call.work, row[0]
    if code == op.BIAS or code == op.SKIP or code == op.DECAY:
        t = row[5] if code == op.SKIP else row[3] if code == op.DECAY else row[1]
        _decoded(machine, t, scratch.tensor, scratch)
    for b in range(call.batch):
        if code == op.BIAS:
            raised(work, row[2] + b * row[3], scratch.tensor, row[4])
        elif code == op.ROUND:
            _round(machine, call, row, b, scratch)
        elif code == op.SKIP:
            y, x, to = row[1] + b * row[4], row[2] + b * row[8], row[3] + b * row[4]
            skips(work, y, x, to, scratch.tensor, row[7], row[6])
        elif code == op.DECAY:
            decays(work, row[1] + b * row[2], scratch.tensor, row[4] + b * row[5], row[5])
        elif code == op.HALF_GLU:
            a = row[1] + b * row[2]
            glus(work, a, a + row[5], row[3] + b * row[4], row[5])
        elif code == op.COPY:
            for i in range(row[5]):
                work[row[3] + b * row[4] + i] = work[row[1] + b * row[2] + i]
        elif code == op.INPUT:
            for i in range(row[3]):
                work[row[1] + b * row[2] + i] = call.inputs[b * row[3] + i]
        elif code == op.EMBED:
            t = packed_of(machine.tensors, row[1])
            at = row[2] + b * row[3]
            plain_row(machine.data, machine.consts, t, call.tokens[b], work, at, scratch.wide)
        elif code == op.MEAN:
            _mean(call, row, b)


@inline
def _round(machine: Machine, call: Call, row: Any, b: int, scratch: Scratch) -> None:
    """One sequence's numbers: rotated, rounded, codes kept, and taken back, each where the row says
    so."""
    work, consts, size = call.work, machine.consts, row[3]
    source, at = row[1] + b * row[2], row[5] + b * row[6]
    base, power = row[7], row[8]
    if power:
        turn_row(Turn(base, power, row[9]), consts, work, source, work, at, size, scratch.flat)
    store = stored_of(machine.stores, row[4])
    coded = row[11] >= 0 and row[15] & (op.SCANNED | op.MULTIPLIED) != op.SCANNED
    to = row[11] + b * row[12] if coded else -1
    codes = Codes(call.codes, to, row[13] + b * row[14])
    rounds(machine.data, work, at, size, store, consts, scratch.flat, codes)
    if power and row[10] >= 0:
        turn_row(Turn(base, power, row[10]), consts, work, at, work, source, size, scratch.flat)


@inline
def _mean(call: Call, row: Any, b: int) -> None:
    """The mean over all steps of a register."""
    slot, source, to = call.slots[b], row[1] + b * row[3], row[2] + b * row[3]
    at, steps = slot * row[4], np.float32(call.steps[slot] + 1)
    for i in range(row[4]):
        call.sums[at + i] += call.work[source + i]
        call.work[to + i] = call.sums[at + i] / steps


@cache
def build() -> Callable[..., None]:
    """The compiled step: takes a Machine, a Call, Scratch of the caller's own, and whether to help
    another thread that runs the same step (1) or to run it (0). It releases the interpreter's
    lock."""

    def step(machine: Machine, call: Call, scratch: Scratch, helper: int) -> None:
        timed = call.clock.size > 0 and not helper
        if timed:
            call.clock[0] = nanoseconds()
        for i in range(machine.ops.shape[0]):
            row = machine.ops[i]
            code = row[0]
            if helper or code == op.LINEAR or code == op.LINEAR_CODES:
                linear(machine, call, i, helper, scratch)
                if helper:
                    break
            elif code == op.CONVOLVE:
                _convolve(machine, call, row, scratch)
            elif code == op.CHANNELS:
                _channels(machine, call, row, scratch)
            elif code == op.HEADS:
                _heads(machine, call, row, scratch)
            elif code == op.DIAGONAL:
                _diagonal(machine, call, row, scratch)
            elif code == op.RMS or code == op.LAYER_NORM:
                _norm(machine, call, row, scratch)
            elif code in (op.SILU, op.GELU, op.RAMP, op.RELU, op.GATE, op.ADD, op.SOFTPLUS):
                _rows(machine, call, row, scratch)
            else:
                _each(machine, call, row, scratch)
            if timed:
                call.clock[i + 1] = nanoseconds()
        if call.gate.size and not helper:
            opened(call.gate, OVER)

    return compiled(step)
