"""Launches of operations that keep a state: the short convolution and the recurrences."""

from __future__ import annotations

from typing import NamedTuple

import triton
from torch import Tensor

from sensprobe_kernels.launch import Argument, Launch, LoweringError
from sensprobe_kernels.ops.causal_conv import gpu as causal_conv
from sensprobe_kernels.ops.diagonal_scan import gpu as diagonal_scan
from sensprobe_kernels.ops.head_chunks import gpu as head_chunks
from sensprobe_kernels.ops.selective_scan import gpu as selective_scan
from sensprobe_kernels.ops.selective_scan.gpu import Runs
from sensprobe_kernels.packing.gpu import Codes
from sensprobe_kernels.packing.tensor import HALF
from sensprobe_kernels.program import ir
from sensprobe_kernels.program.gpu.device import Buffers, Held
from sensprobe_kernels.program.ir import Register, Stored
from sensprobe_kernels.program.program import Program
from sensprobe_kernels.quantize import gpu, spec
from sensprobe_kernels.quantize.gpu import EXACTLY, Rounds
from sensprobe_kernels.quantize.rounding import STOCHASTIC

TILE, LARGEST_TILE = 1 << 12, 1 << 16  # states to a program; as many where they share a scale
CONVOLVED = 256  # rows of a convolution to a program
BLOCK, SLICE = 16, 16  # tokens, and columns of a state, to a product: the least there are
LONGEST_CHUNK = 1 << 10  # steps
# States to a program of chunks; where they share a scale, at the price of registers that run out.
CHUNK_TILE, LARGEST_CHUNK_TILE = 1 << 13, 1 << 14


def rounds_of(program: Program, s: Stored) -> Rounds:
    constants = spec.Constants(*program.consts[s.numbers : s.numbers + len(spec.Constants._fields)])
    return gpu.rounds_of(spec.Flags(*s[: len(spec.Flags._fields)]), s.scales, constants)


def state_codes(h: Held, n: int) -> Codes:
    """How a state codes its numbers, in rows of n."""
    s = h.state
    whole = s.bits == 8 or s.kind >= HALF or n % 8 == 0
    return Codes(s.bits, s.kind, s.shift, s.factor, h.stored.scales, 0 if whole else n)


def _row_size(c: Codes, n: int) -> int:
    """The pitch of rows of n numbers, in the unit that kernels expect: codes, or bytes."""
    return n if c.ragged or c.kind >= HALF else n * c.bits // 8


def keys(s: Stored) -> list[int]:
    """The key of a store's random numbers as signed integers of 32 bits."""
    return [(key + (1 << 31)) % (1 << 32) - (1 << 31) for key in (s.key0, s.key1)]


def _dynamic_scales(h: Held) -> int:
    """How many dynamic scales a sequence's state has."""
    return h.slots.scale.shape[1] if h.stored.span in (spec.GROUP, spec.TENSOR) else 0


def _rows_of(h: Held, usual: int) -> int:
    """Rows of a state that a program takes: all that share a dynamic scale, or rows of a head."""
    s = h.state
    if h.stored.span != spec.TENSOR:
        return min(usual, s.channels & -s.channels) if s.heads > 1 else usual
    rows = min(s.unit * 16, s.rows)
    R = triton.next_power_of_2(rows)
    if rows not in (R, s.rows):
        raise LoweringError(f"one dynamic scale for {rows} rows of a state: a power of two, or all")
    if R * triton.next_power_of_2(s.n) > LARGEST_TILE:
        raise LoweringError(f"one dynamic scale for {rows * s.n} states: at most {LARGEST_TILE}")
    return R


def _warps(numbers: int, r: Rounds) -> int:
    """Warps for a tile of states: 32 a thread, or 16 where each has a residual or a scale."""
    least = 8 if r.rounding == STOCHASTIC else 4
    return min(32, max(least, numbers // (32 * (16 if r.feedback or r.group else 32))))


def _grouped(r: Rounds, group: int) -> Rounds:
    """`r` for a state in whose rows `group` neighbours share a scale."""
    if r.dynamic and group & (group - 1):
        raise LoweringError(
            f"dynamic scales of groups of {group} numbers of a state: a power of two"
        )
    return r._replace(group=group)


def _registers(warps: int, tokens: int) -> int | None:
    """A limit of registers for a loop over tokens, where the assembler would otherwise use few and
    spill."""
    return min(255, (1 << 16) // (32 * warps)) if tokens > 1 else None


def convolution(
    program: Program, m: Buffers, o: ir.Convolve, weight: Tensor, bias: Tensor, active: bool
) -> Launch:
    """The launch of a convolution, and of the SiLU that follows if `active`."""
    h = m.held[o.state]
    s, r = h.state, rounds_of(program, h.stored)
    if r.feedback:
        raise LoweringError("error feedback of a window")
    R = _rows_of(h, CONVOLVED)
    given: tuple[Argument, ...] = (
        m.work[o.x.at :], weight, bias, m.work[o.to.at :], h.slots.codes, h.slots.scale,
        h.slots.zero, *h.known, m.order, m.times, *keys(h.stored), m.length, s.rows,
        h.slots.codes.shape[1], o.to.pitch, _dynamic_scales(h), h.stored.stride,
    )  # fmt: skip
    constants = {
        "n": s.n, "N": triton.next_power_of_2(s.n), "R": R, "BIASED": int(o.bias >= 0),
        "ACTIVE": int(active), "c": state_codes(h, s.n), "r": r,
    }  # fmt: skip
    return Launch(causal_conv.convolve, (triton.cdiv(s.rows, R), len(m.order)), given, constants)


class _Decay(NamedTuple):
    """How decays are rounded: a static scale for every `stride` rows, random bits by `keys`."""

    rounds: Rounds = EXACTLY
    stride: int = 0
    keys: tuple[int, ...] = (0, 0)


def _decay(program: Program, store: int, n: int) -> _Decay:
    stored = program.stores[store]
    p = rounds_of(program, stored)
    if p.span == spec.TENSOR or (p.span == spec.GROUP and stored.group < n):
        raise LoweringError("decays rounded by dynamic scales of other than a row")
    return _Decay(p, stored.stride, tuple(keys(stored)))


class _Operand(NamedTuple):
    """An input of a recurrence: numbers or codes and their pitch, scales and theirs, and how many
    columns share a scale (a field of `Runs`)."""

    numbers: Tensor
    pitch: int
    scale: Tensor
    scales: int
    run: int


def _operand(m: Buffers, x: Register, found: ir.Codes) -> _Operand:
    """The codes of a register where the program keeps some, else its numbers."""
    codes, scales, run = found
    if codes.at < 0:
        return _Operand(m.work[x.at :], x.pitch, m.nothing, 0, -1)
    run = run if run < x.size else 0
    return _Operand(m.codes[codes.at :], codes.pitch, m.work[scales.at :], scales.pitch, run)


def recurrence(
    program: Program, m: Buffers, o: ir.Channels | ir.Heads, A: Tensor, D: Tensor,
    skip: ir.Skip | None, gate: ir.Gate | None,
) -> Launch:  # fmt: skip
    """The launch of a recurrence, and of the skip and the gate that follow."""
    heads = isinstance(o, ir.Heads)
    if isinstance(o, ir.Heads):
        A_or_decay = m.work[o.decay.at :]
        p, p_known = _Decay(), (m.nothing, m.nothing)
    else:
        A_or_decay = A
        p, p_known = _decay(program, o.decay, m.held[o.state].state.n), m.statics[o.decay]
    h = m.held[o.state]
    s, r = h.state, _grouped(rounds_of(program, h.stored), h.state.run)
    c = state_codes(h, s.n)
    N = max(triton.next_power_of_2(s.n), 8 if s.kind < HALF else 1)
    R = _rows_of(h, max(16, TILE // N))
    three = (
        _operand(m, o.x, o.x_codes), _operand(m, o.B, o.B_codes), _operand(m, o.C, o.C_codes)
    )  # fmt: skip
    xs, Bs, Cs = three
    given: tuple[Argument, ...] = (
        xs.numbers, m.work[o.dt.at :], A_or_decay, Bs.numbers, Cs.numbers, D,
        m.work[gate.z.at :] if gate else m.nothing, m.work[o.to.at :], *(f.scale for f in three),
        h.slots.codes, h.slots.scale, h.slots.zero, h.slots.residual, *h.known, *p_known, m.order,
        m.times, *keys(h.stored), *p.keys, m.length, s.rows, _row_size(c, s.n),
        h.slots.codes.shape[1], *(f.pitch for f in three), *(f.scales for f in three), o.dt.pitch,
        gate.z.pitch if gate else 0, o.to.pitch, _dynamic_scales(h), h.stored.stride, p.stride,
        s.rows // s.heads, s.rows // s.groups, skip.span if skip else 1,
    )  # fmt: skip
    across = s.groups > 1 and s.rows // s.groups < R
    constants = {
        "n": s.n, "N": N, "R": R, "HEADS": int(heads), "ACROSS": int(across),
        "SKIPS": int(skip is not None), "GATED": int(gate is not None),
        "runs": Runs(*(f.run for f in three)), "c": c, "r": r, "p": p.rounds,
    }  # fmt: skip
    grid = (triton.cdiv(s.rows, R), len(m.order))
    warps = _warps(R * N, r)
    registers = _registers(warps, m.length)
    return Launch(selective_scan.scan, grid, given, constants, warps, registers=registers)


def chunks(
    program: Program, m: Buffers, o: ir.Chunks, A: Tensor, D: Tensor, skip: ir.Skip | None,
    gate: ir.Gate | None,
) -> Launch:  # fmt: skip
    """The launch of a recurrence in chunks, and of the skip and the gate that follow."""
    every = o.every
    if every & (every - 1) or every > LONGEST_CHUNK:
        raise LoweringError(
            f"a state rounded every {every} steps: a power of two up to {LONGEST_CHUNK}"
        )
    h = m.held[o.state]
    s, r = h.state, rounds_of(program, h.stored)
    if s.run:
        raise LoweringError("scales of groups along a row of a state that is rounded in chunks")
    c, N = state_codes(h, s.n), max(SLICE, triton.next_power_of_2(s.n))
    R, S = _chunk_rows(h, N, every), N // SLICE
    given: tuple[Argument, ...] = (
        m.work[o.x.at :], m.work[o.dt.at :], A, m.work[o.B.at :], m.work[o.C.at :], D,
        m.work[gate.z.at :] if gate else m.nothing, m.work[o.to.at :], h.slots.codes, h.slots.scale,
        h.slots.zero, h.slots.residual, *h.known, m.order, m.times, *keys(h.stored), m.length,
        s.heads, s.channels, _row_size(c, s.n), h.slots.codes.shape[1], o.x.pitch, o.dt.pitch,
        o.B.pitch, gate.z.pitch if gate else 0, o.to.pitch, _dynamic_scales(h), h.stored.stride,
        s.heads // s.groups, skip.span if skip else 1, every,
    )  # fmt: skip
    constants = {
        "n": s.n, "N": N, "R": R, "S": S, "L": BLOCK, "SKIPS": int(skip is not None),
        "GATED": int(gate is not None), "c": c, "r": r,
    }  # fmt: skip
    grid = (s.heads * triton.cdiv(s.channels, R), len(m.order))
    warps = min(16, max(8 if r.rounding == STOCHASTIC else 4, S))
    return Launch(head_chunks.chunks, grid, given, constants, warps, stages=1)


def _chunk_rows(h: Held, N: int, every: int) -> int:
    """Rows of a state that a program takes: a head's, or as many of them as fit where each has its
    own scale or all have a static one."""
    s = h.state
    if h.stored.span != spec.TENSOR:
        return min(max(16, CHUNK_TILE // N), s.channels & -s.channels)
    R = triton.next_power_of_2(s.channels)
    if s.unit * 16 != s.channels:
        raise LoweringError(
            f"one dynamic scale for all heads of a state rounded every {every} steps: one a head"
        )
    if R * N > LARGEST_CHUNK_TILE:
        raise LoweringError(
            f"one dynamic scale for {s.channels * s.n} states, rounded every {every} steps: "
            f"at most {LARGEST_CHUNK_TILE}"
        )
    return R


def diagonal(
    program: Program, m: Buffers, o: ir.Diagonal | ir.Modes, tensors: list[Tensor],
    skip: ir.Skip | None,
) -> Launch:  # fmt: skip
    """The launch of a diagonal recurrence, and of the skip that follows; tensors: A, B, C, D, of
    which S5's has only A."""
    h = m.held[o.state]
    s, r = h.state, rounds_of(program, h.stored)
    c, whole = state_codes(h, 2 * s.n), int(s.run == 2 * s.n * s.heads)
    N = max(4, triton.next_power_of_2(s.n))
    G = s.run // 2 if s.run < 2 * s.n else N
    if G & (G - 1):
        raise LoweringError(f"scales of groups of {G} pairs of a state: a power of two")
    R = max(8, TILE // (8 * N))
    if r.dynamic and whole:
        R = triton.next_power_of_2(s.heads)
        if 2 * R * N > LARGEST_TILE:
            raise LoweringError(f"one dynamic scale for {2 * s.heads * s.n} numbers of a state")
    given: tuple[Argument, ...] = (
        m.work[o.x.at :], *tensors, m.work[o.to.at :], h.slots.codes, h.slots.scale, h.slots.zero,
        h.slots.residual,
        *h.known, m.order, m.times, *keys(h.stored), m.length, s.heads, _row_size(c, 2 * s.n),
        h.slots.codes.shape[1], o.to.pitch, _dynamic_scales(h),
    )  # fmt: skip
    constants = {
        "n": s.n, "N": N, "R": R, "G": G, "PARTS": s.parts, "WHOLE": whole,
        "SKIPS": int(skip is not None), "DRIVEN": int(isinstance(o, ir.Modes)), "c": c, "r": r,
    }  # fmt: skip
    grid = (triton.cdiv(s.heads, R), len(m.order))
    return Launch(diagonal_scan.scan, grid, given, constants, _warps(4 * R * N, r))
