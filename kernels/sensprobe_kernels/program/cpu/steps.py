"""The compiled step: goes through the operations of a program, for every sequence."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np

from sensprobe_kernels.jit import compiled, inline
from sensprobe_kernels.ops.rotate.rows import Rotation, rotate_row
from sensprobe_kernels.ops.selective_scan.job import Given
from sensprobe_kernels.packing.tensor import packed_of
from sensprobe_kernels.program import ir
from sensprobe_kernels.program.cpu.clock import nanoseconds
from sensprobe_kernels.program.cpu.diagonal import diagonal, modes
from sensprobe_kernels.program.cpu.groups import in_groups
from sensprobe_kernels.program.cpu.products import Call, Machine, linear
from sensprobe_kernels.program.cpu.recurrence import (
    Scratch,
    advance,
    convolve,
    fill_known,
    in_lanes,
    job_of,
    load_state,
    store_state,
)
from sensprobe_kernels.program.cpu.registers import (
    RowCodes,
    add_bias,
    affine,
    centre,
    decays,
    factor,
    gates,
    gelu_tanhs,
    gelus,
    glus,
    hard_glus,
    layer_norm,
    multiply,
    plain_row,
    products,
    qgelu4s,
    qgelus,
    relus,
    rms,
    rounds,
    silus,
    skips,
    softpluses,
    sums,
    whole_tensor,
)
from sensprobe_kernels.program.cpu.sharing import OVER, open_pieces
from sensprobe_kernels.program.cpu.tables import state_of, stored_of
from sensprobe_kernels.program.ir import State, Stored, columns
from sensprobe_kernels.simd.vector import LANES

_MINUS_ZERO = np.float32(-0.0)

# In which column of a row each field of an operation lies: `row[_RMS.x.at]`.
_EMBED, _INPUT, _BIAS = columns(ir.Embed), columns(ir.Input), columns(ir.Bias)
_RMS, _LAYER_NORM, _ROUND = columns(ir.Rms), columns(ir.LayerNorm), columns(ir.Round)
_SILU, _GELU, _QGELU = columns(ir.Silu), columns(ir.Gelu), columns(ir.Qgelu)
_RELU, _SOFTPLUS, _GATE = columns(ir.Relu), columns(ir.Softplus), columns(ir.Gate)
_ADD, _SKIP, _DECAY = columns(ir.Add), columns(ir.Skip), columns(ir.Decay)
_CONVOLVE, _CHANNELS, _HEADS = columns(ir.Convolve), columns(ir.Channels), columns(ir.Heads)
_DIAGONAL, _MEAN, _QGELU4 = columns(ir.Diagonal), columns(ir.Mean), columns(ir.Qgelu4)
_HALF_GLU, _COPY, _GELU_TANH = columns(ir.HalfGlu), columns(ir.Copy), columns(ir.GeluTanh)
_MODES, _AFFINE, _HARD_GLU = columns(ir.Modes), columns(ir.Affine), columns(ir.HardGlu)
_CENTRE, _FACTOR, _MULTIPLY = columns(ir.Centre), columns(ir.Factor), columns(ir.Multiply)
_PICK = columns(ir.Pick)
_ELEMENTWISE = (
    ir.SILU, ir.GELU, ir.GELU_TANH, ir.QGELU, ir.QGELU4, ir.RELU, ir.GATE, ir.ADD, ir.SOFTPLUS,
    ir.MULTIPLY,
)  # fmt: skip


@inline
def _given(
    machine: Machine, x: Any, dt: Any, decay: Any, B: Any, C: Any, y: Any, A: Any, s: Any,
    numbers: Any, others: Any, scratch: Scratch,
) -> Given:  # fmt: skip
    tiles = s.rows // LANES
    heads = machine.places[s.table : s.table + tiles]
    rows = machine.places[s.table + tiles : s.table + 2 * tiles]
    return Given(
        x, dt, A, decay, B, C, y, scratch.state, scratch.residual, scratch.known, numbers,
        scratch.known, others, heads, rows, scratch.flat, scratch.flat,
    )  # fmt: skip


@inline
def _base(call: Call, b: int) -> int:
    """The first byte of the states of sequence b of the batch."""
    return call.slots[b] * call.state_bytes


@inline
def _at(row: Any, register: ir.Register, b: int) -> int:
    """Where sequence b's row of a register begins; `register`: the columns of its fields."""
    return row[register.at] + b * row[register.pitch]


@inline
def _decode(machine: Machine, i: int, out: Any, scratch: Scratch) -> None:
    """Decode the whole of tensor i."""
    t = packed_of(machine.tensors, i)
    whole_tensor(machine.data, machine.consts, t, out, scratch.wide)


@inline
def _convolve(machine: Machine, call: Call, row: Any, scratch: Scratch) -> None:
    s = state_of(machine.states, row[_CONVOLVE.state])
    d, work = stored_of(machine.stores, s.store), call.work
    numbers = machine.consts[d.numbers : d.numbers + 8]
    filters, weight = scratch.tensor, packed_of(machine.tensors, row[_CONVOLVE.weight])
    in_lanes(machine.data, machine.consts, weight, scratch, filters)
    bias = filters[s.rows * (s.n + 1) :]
    if row[_CONVOLVE.bias] >= 0:
        _decode(machine, row[_CONVOLVE.bias], bias, scratch)
    else:
        bias[: s.rows] = _MINUS_ZERO
    for b in range(call.batch):
        base = _base(call, b)
        load_state(machine.data, call.carry, base, s, d, numbers, scratch)
        x, y = work[_at(row, _CONVOLVE.x, b) :], work[_at(row, _CONVOLVE.to, b) :]
        given = _given(machine, x, x, x, x, x, y, x, s, numbers, numbers, scratch)
        job = job_of(s, d, d, call.slots[b], call.steps[call.slots[b]])
        convolve(machine.data, s, d, job, given, filters, bias, numbers, scratch)
        store_state(call.carry, base, s, d, scratch)


@inline
def _advance(
    machine: Machine, call: Call, b: int, given: Given, head: bool, s: State, d: Stored, p: Stored,
    numbers: Any, scratch: Scratch,
) -> None:  # fmt: skip
    """One step of a selective recurrence of sequence b of the batch: reads and writes the carry.
    `head`: a decay is one a head, and given; p: the store of the decays."""
    data, base, slot = machine.data, _base(call, b), call.slots[b]
    job = job_of(s, d, p, slot, call.steps[slot])
    if s.run:
        in_groups(data, call.carry, base, job, given, head, s, d, p, numbers, scratch)
        return
    load_state(data, call.carry, base, s, d, numbers, scratch)
    advance(data, job, given, head, s, d, p, numbers, scratch)
    store_state(call.carry, base, s, d, scratch)


@inline
def _channels(machine: Machine, call: Call, row: Any, scratch: Scratch) -> None:
    s = state_of(machine.states, row[_CHANNELS.state])
    p, d = stored_of(machine.stores, row[_CHANNELS.decay]), stored_of(machine.stores, s.store)
    work = call.work
    numbers = machine.consts[d.numbers : d.numbers + 8]
    others = machine.consts[p.numbers : p.numbers + 8]
    A = packed_of(machine.tensors, row[_CHANNELS.A])
    in_lanes(machine.data, machine.consts, A, scratch, scratch.tensor)
    fill_known(machine.data, p, s.rows // LANES, others, scratch)
    for b in range(call.batch):
        x, dt = work[_at(row, _CHANNELS.x, b) :], work[_at(row, _CHANNELS.dt, b) :]
        B, C = work[_at(row, _CHANNELS.B, b) :], work[_at(row, _CHANNELS.C, b) :]
        y = work[_at(row, _CHANNELS.to, b) :]
        given = _given(
            machine, x, dt, scratch.flat, B, C, y, scratch.tensor, s, numbers, others, scratch
        )
        _advance(machine, call, b, given, False, s, d, p, numbers, scratch)


@inline
def _heads(machine: Machine, call: Call, row: Any, scratch: Scratch) -> None:
    s = state_of(machine.states, row[_HEADS.state])
    d, work = stored_of(machine.stores, s.store), call.work
    numbers = machine.consts[d.numbers : d.numbers + 8]
    for b in range(call.batch):
        x, y = work[_at(row, _HEADS.x, b) :], work[_at(row, _HEADS.to, b) :]
        dt, a = work[_at(row, _HEADS.dt, b) :], work[_at(row, _HEADS.decay, b) :]
        B, C = work[_at(row, _HEADS.B, b) :], work[_at(row, _HEADS.C, b) :]
        given = _given(machine, x, dt, a, B, C, y, x, s, numbers, numbers, scratch)
        _advance(machine, call, b, given, True, s, d, d, numbers, scratch)


@inline
def _diagonal(machine: Machine, call: Call, row: Any, scratch: Scratch) -> None:
    s = state_of(machine.states, row[_DIAGONAL.state])
    d, size = stored_of(machine.stores, s.store), 2 * s.heads * s.n
    _decode(machine, row[_DIAGONAL.A], scratch.tensor, scratch)
    _decode(machine, row[_DIAGONAL.B], scratch.tensor[size:], scratch)
    _decode(machine, row[_DIAGONAL.C], scratch.tensor[2 * size :], scratch)
    for b in range(call.batch):
        base, slot = _base(call, b), call.slots[b]
        x, y = call.work[_at(row, _DIAGONAL.x, b) :], call.work[_at(row, _DIAGONAL.to, b) :]
        data, step, consts = machine.data, call.steps[slot], machine.consts
        diagonal(data, call.carry, base, s, d, slot, step, x, y, consts, scratch)


@inline
def _modes(machine: Machine, call: Call, row: Any, scratch: Scratch) -> None:
    s = state_of(machine.states, row[_MODES.state])
    d = stored_of(machine.stores, s.store)
    _decode(machine, row[_MODES.A], scratch.tensor, scratch)
    for b in range(call.batch):
        base, slot = _base(call, b), call.slots[b]
        x, to = call.work[_at(row, _MODES.x, b) :], call.work[_at(row, _MODES.to, b) :]
        data, step, consts = machine.data, call.steps[slot], machine.consts
        modes(data, call.carry, base, s, d, slot, step, x, to, consts, scratch)


@inline
def _affine(machine: Machine, call: Call, row: Any, scratch: Scratch) -> None:
    weight, bias = scratch.tensor, scratch.tensor[row[_AFFINE.x.pitch] :]
    _decode(machine, row[_AFFINE.weight], weight, scratch)
    _decode(machine, row[_AFFINE.bias], bias, scratch)
    for b in range(call.batch):
        x, to = _at(row, _AFFINE.x, b), _at(row, _AFFINE.to, b)
        affine(call.work, x, to, row[_AFFINE.x.size], weight, bias)


@inline
def _rms(machine: Machine, call: Call, row: Any, scratch: Scratch) -> None:
    work, weight, size = call.work, row[_RMS.weight], row[_RMS.x.size]
    if weight >= 0:
        _decode(machine, weight, scratch.tensor, scratch)
    for b in range(call.batch):
        x, to = _at(row, _RMS.x, b), _at(row, _RMS.to, b)
        rms(work, x, to, size, row[_RMS.groups], machine.consts[row[_RMS.eps]])
        if weight >= 0:
            products(work, to, scratch.tensor, size)


@inline
def _layer_norm(machine: Machine, call: Call, row: Any, scratch: Scratch) -> None:
    weight, bias = scratch.tensor, scratch.tensor[row[_LAYER_NORM.x.pitch] :]
    _decode(machine, row[_LAYER_NORM.weight], weight, scratch)
    _decode(machine, row[_LAYER_NORM.bias], bias, scratch)
    for b in range(call.batch):
        x, to = _at(row, _LAYER_NORM.x, b), _at(row, _LAYER_NORM.to, b)
        eps = machine.consts[row[_LAYER_NORM.eps]]
        layer_norm(call.work, x, to, row[_LAYER_NORM.x.size], eps, weight, bias)


@inline
def _elementwise(machine: Machine, call: Call, row: Any) -> None:
    """Operations that take the registers of all sequences, which lie one after the other, at once.

    They work on what fills up the rows as well.
    """
    work, code, batch = call.work, row[0], call.batch
    if code == ir.SILU:
        silus(work, row[_SILU.x.at], row[_SILU.to.at], batch * row[_SILU.to.pitch])
    elif code == ir.GELU:
        gelus(work, row[_GELU.x.at], row[_GELU.to.at], batch * row[_GELU.to.pitch])
    elif code == ir.GELU_TANH:
        x, to = row[_GELU_TANH.x.at], row[_GELU_TANH.to.at]
        gelu_tanhs(work, x, to, batch * row[_GELU_TANH.to.pitch])
    elif code == ir.QGELU:
        qgelus(work, row[_QGELU.x.at], row[_QGELU.to.at], batch * row[_QGELU.to.pitch])
    elif code == ir.QGELU4:
        qgelu4s(work, row[_QGELU4.x.at], row[_QGELU4.to.at], batch * row[_QGELU4.to.pitch])
    elif code == ir.RELU:
        relus(work, row[_RELU.x.at], row[_RELU.to.at], batch * row[_RELU.to.pitch])
    elif code == ir.GATE:
        y, z, to = row[_GATE.y.at], row[_GATE.z.at], row[_GATE.to.at]
        gates(work, y, z, to, batch * row[_GATE.to.pitch])
    elif code == ir.ADD:
        a, b, to = row[_ADD.a.at], row[_ADD.b.at], row[_ADD.to.at]
        sums(work, a, b, to, batch * row[_ADD.to.pitch])
    elif code == ir.MULTIPLY:
        a, b, to = row[_MULTIPLY.a.at], row[_MULTIPLY.b.at], row[_MULTIPLY.to.at]
        multiply(work, a, b, to, batch * row[_MULTIPLY.to.pitch])
    elif code == ir.SOFTPLUS:
        low, high = machine.consts[row[_SOFTPLUS.low]], machine.consts[row[_SOFTPLUS.high]]
        x, to = row[_SOFTPLUS.x.at], row[_SOFTPLUS.to.at]
        softpluses(work, x, to, batch * row[_SOFTPLUS.to.pitch], low, high)


@inline
def _each(machine: Machine, call: Call, row: Any, scratch: Scratch) -> None:
    """Operations that go from sequence to sequence."""
    work, code = call.work, row[0]
    if code == ir.BIAS:
        _decode(machine, row[_BIAS.tensor], scratch.tensor, scratch)
    elif code == ir.SKIP:
        _decode(machine, row[_SKIP.D], scratch.tensor, scratch)
    elif code == ir.DECAY:
        _decode(machine, row[_DECAY.A], scratch.tensor, scratch)
    elif code == ir.FACTOR:
        _decode(machine, row[_FACTOR.weight], scratch.tensor, scratch)
    for b in range(call.batch):
        if code == ir.BIAS:
            add_bias(work, _at(row, _BIAS.to, b), scratch.tensor, row[_BIAS.to.size])
        elif code == ir.ROUND:
            _round(machine, call, row, b, scratch)
        elif code == ir.SKIP:
            y, x, to = _at(row, _SKIP.y, b), _at(row, _SKIP.x, b), _at(row, _SKIP.to, b)
            skips(work, y, x, to, scratch.tensor, row[_SKIP.entries], row[_SKIP.span])
        elif code == ir.DECAY:
            dt, to = _at(row, _DECAY.dt, b), _at(row, _DECAY.to, b)
            decays(work, dt, scratch.tensor, to, row[_DECAY.to.pitch])
        elif code == ir.HALF_GLU:
            x, size = _at(row, _HALF_GLU.x, b), row[_HALF_GLU.to.size]
            glus(work, x, x + size, _at(row, _HALF_GLU.to, b), size)
        elif code == ir.HARD_GLU:
            x, size = _at(row, _HARD_GLU.x, b), row[_HARD_GLU.to.size]
            hard_glus(work, x, x + size, _at(row, _HARD_GLU.to, b), size)
        elif code == ir.COPY:
            x, to = _at(row, _COPY.x, b), _at(row, _COPY.to, b)
            for i in range(row[_COPY.to.size]):
                work[to + i] = work[x + i]
        elif code == ir.PICK:
            _pick(machine, call, row, b)
        elif code == ir.INPUT:
            to, size = _at(row, _INPUT.to, b), row[_INPUT.to.size]
            for i in range(size):
                work[to + i] = call.inputs[b * size + i]
        elif code == ir.EMBED:
            t, to = packed_of(machine.tensors, row[_EMBED.tensor]), _at(row, _EMBED.to, b)
            plain_row(machine.data, machine.consts, t, call.tokens[b], work, to, scratch.wide)
        elif code == ir.MEAN:
            _mean(call, row, b)
        elif code == ir.CENTRE:
            x, to = _at(row, _CENTRE.x, b), _at(row, _CENTRE.to, b)
            centre(work, x, to, row[_CENTRE.x.size])
        elif code == ir.FACTOR:
            x, to = _at(row, _FACTOR.x, b), _at(row, _FACTOR.to, b)
            eps = machine.consts[row[_FACTOR.eps]]
            factor(work, x, to, row[_FACTOR.x.size], eps, scratch.tensor)


@inline
def _round(machine: Machine, call: Call, row: Any, b: int, scratch: Scratch) -> None:
    """Round one sequence's numbers, and rotate them before, keep their codes or rotate them back
    after where the row says so."""
    work, consts, size = call.work, machine.consts, row[_ROUND.x.size]
    x, to = _at(row, _ROUND.x, b), _at(row, _ROUND.to, b)
    base, power = row[_ROUND.base], row[_ROUND.power]
    if power:
        forth = Rotation(base, power, row[_ROUND.signs])
        rotate_row(forth, consts, work, x, work, to, size, scratch.flat)
    store = stored_of(machine.stores, row[_ROUND.store])
    only_scanned = row[_ROUND.readers] & (ir.SCANNED | ir.MULTIPLIED) == ir.SCANNED
    coded = row[_ROUND.kept.codes.at] >= 0 and not only_scanned
    place = _at(row, _ROUND.kept.codes, b) if coded else -1
    codes = RowCodes(call.codes, place, _at(row, _ROUND.kept.scales, b))
    rounds(machine.data, work, to, size, store, consts, scratch.flat, codes)
    if power and row[_ROUND.signs_back] >= 0:
        back = Rotation(base, power, row[_ROUND.signs_back])
        rotate_row(back, consts, work, to, work, x, size, scratch.flat)


@inline
def _pick(machine: Machine, call: Call, row: Any, b: int) -> None:
    """Put the columns of x that the constants name where they belong."""
    x, to, first = _at(row, _PICK.x, b), _at(row, _PICK.to, b), row[_PICK.columns]
    for j in range(row[_PICK.to.size]):
        column = int(machine.consts[first + j])
        call.work[to + j] = call.work[x + column] if column >= 0 else np.float32(0.0)


@inline
def _mean(call: Call, row: Any, b: int) -> None:
    """Compute the mean over all steps of a register."""
    slot, x, to = call.slots[b], _at(row, _MEAN.x, b), _at(row, _MEAN.to, b)
    size, steps = row[_MEAN.x.size], np.float32(call.steps[slot] + 1)
    first = slot * size
    for i in range(size):
        call.sums[first + i] += call.work[x + i]
        call.work[to + i] = call.sums[first + i] / steps


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
            if helper or code == ir.LINEAR or code == ir.LINEAR_CODES:
                linear(machine, call, i, helper, scratch)
                if helper:
                    break
            elif code == ir.CONVOLVE:
                _convolve(machine, call, row, scratch)
            elif code == ir.CHANNELS:
                _channels(machine, call, row, scratch)
            elif code == ir.HEADS:
                _heads(machine, call, row, scratch)
            elif code == ir.DIAGONAL:
                _diagonal(machine, call, row, scratch)
            elif code == ir.MODES:
                _modes(machine, call, row, scratch)
            elif code == ir.AFFINE:
                _affine(machine, call, row, scratch)
            elif code == ir.RMS:
                _rms(machine, call, row, scratch)
            elif code == ir.LAYER_NORM:
                _layer_norm(machine, call, row, scratch)
            elif code in _ELEMENTWISE:
                _elementwise(machine, call, row)
            else:
                _each(machine, call, row, scratch)
            if timed:
                call.clock[i + 1] = nanoseconds()
        if call.gate.size and not helper:
            open_pieces(call.gate, OVER)

    return compiled(step)
