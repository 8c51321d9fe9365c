"""Launches of what remembers: the short convolution and the selective recurrences."""

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
from sensprobe_kernels.program import tables as op
from sensprobe_kernels.program.cpu import Program
from sensprobe_kernels.program.device import Held, Memory, Row
from sensprobe_kernels.program.tables import Stored
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
    """Of rows of n numbers."""
    s = h.state
    whole = s.bits == 8 or s.kind >= HALF or n % 8 == 0
    return Codes(s.bits, s.kind, s.shift, s.factor, h.stored.scales, 0 if whole else n)


def _row_size(c: Codes, n: int) -> int:
    """What a kernel takes as the pitch of rows of n numbers."""
    return n if c.ragged or c.kind >= HALF else n * c.bits // 8


def keys(s: Stored) -> list[int]:
    """A key of random bits as signed numbers of 32 bits."""
    return [(key + (1 << 31)) % (1 << 32) - (1 << 31) for key in (s.key0, s.key1)]


def _live(h: Held) -> int:
    """Live scales of one sequence."""
    return h.slots.scale.shape[1] if h.stored.span in (spec.GROUP, spec.TENSOR) else 0


def _rows_of(h: Held, usual: int) -> int:
    """Rows of a state to a program: all that share a live scale, else of one head."""
    s = h.state
    if h.stored.span != spec.TENSOR:
        return min(usual, s.channels & -s.channels) if s.heads > 1 else usual
    rows = min(s.unit * 16, s.rows)
    R = triton.next_power_of_2(rows)
    if rows not in (R, s.rows):
        raise LoweringError(f"one live scale for {rows} rows of a state: a power of two, or all")
    if R * triton.next_power_of_2(s.n) > LARGEST_TILE:
        raise LoweringError(f"one live scale for {rows * s.n} states: at most {LARGEST_TILE}")
    return R


def _warps(numbers: int, r: Rounds) -> int:
    """For a tile of states: 32 to a thread, or 16 where each has a residual or a scale."""
    least = 8 if r.rounding == STOCHASTIC else 4
    return min(32, max(least, numbers // (32 * (16 if r.feedback or r.group else 32))))


def _grouped(r: Rounds, group: int) -> Rounds:
    """Of a state in whose rows `group` neighbours share a scale."""
    if r.dynamic and group & (group - 1):
        raise LoweringError(f"live scales of groups of {group} numbers of a state: a power of two")
    return r._replace(group=group)


def _registers(warps: int, tokens: int) -> int | None:
    """As many as there are, where a loop over tokens makes the assembler spare them and spill."""
    return min(255, (1 << 16) // (32 * warps)) if tokens > 1 else None


def convolution(
    program: Program, m: Memory, row: Row, weight: Tensor, bias: Tensor, active: bool
) -> Launch:
    """Of CONVOLVE, and of the SiLU that follows if `active`."""
    _, _, biased, source, to, pitch, state, *_ = row
    h = m.held[state]
    s, r = h.state, rounds_of(program, h.stored)
    if r.feedback:
        raise LoweringError("a window that keeps what rounding leaves over")
    R = _rows_of(h, CONVOLVED)
    given: tuple[Argument, ...] = (
        m.work[source:], weight, bias, m.work[to:], h.slots.codes, h.slots.scale, h.slots.zero,
        *h.known, m.order, m.times, *keys(h.stored), m.length, s.rows, h.slots.codes.shape[1],
        pitch, _live(h), h.stored.stride,
    )  # fmt: skip
    constants = {
        "n": s.n, "N": triton.next_power_of_2(s.n), "R": R, "BIASED": int(biased >= 0),
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
        raise LoweringError("decays rounded by live scales of other than a row")
    return _Decay(p, stored.stride, tuple(keys(stored)))


class _Operand(NamedTuple):
    """Numbers or codes and what lies between tokens, scales likewise, and a field of `Runs`."""

    numbers: Tensor
    pitch: int
    scale: Tensor
    scales: int
    run: int


def operands(
    program: Program, m: Memory, place: int, registers: list[tuple[int, int, int]]
) -> list[_Operand]:
    """What a recurrence reads as x, B and C, of registers, their pitch and columns: codes where the
    program keeps some."""
    found = []
    for i, (at, pitch, columns) in enumerate(registers):
        first = place + 5 * i
        if place < 0 or program.places[first] < 0:
            found.append(_Operand(m.work[at:], pitch, m.nothing, 0, -1))
            continue
        codes, codes_pitch, run, scales, scales_pitch = program.places[first : first + 5]
        run = run if run < columns else 0
        found.append(_Operand(m.codes[codes:], codes_pitch, m.work[scales:], scales_pitch, run))
    return found


def recurrence(
    program: Program, m: Memory, row: Row, A: Tensor | None, D: Tensor, skip: Row | None,
    gate: Row | None,
) -> Launch:  # fmt: skip
    """Of CHANNELS, with A, or of HEADS; and of the SKIP and the GATE that follow."""
    if A is None:
        _, x, x_pitch, dt, decay, dt_pitch, B, C, y, y_pitch, state, place, *_ = row
        A_or_decay, b_pitch = m.work[decay:], x_pitch
        p, p_known = _Decay(), (m.nothing, m.nothing)
    else:
        _, x, dt, _, B, C, y, y_pitch, b_pitch, state, store, place, *_ = row
        A_or_decay, x_pitch, dt_pitch = A, y_pitch, y_pitch
        p, p_known = _decay(program, store, m.held[state].state.n), m.statics[store]
    h = m.held[state]
    s, r = h.state, _grouped(rounds_of(program, h.stored), h.state.run)
    c = state_codes(h, s.n)
    N = max(triton.next_power_of_2(s.n), 8 if s.kind < HALF else 1)
    R, wide = _rows_of(h, max(16, TILE // N)), s.groups * s.n
    three = operands(
        program, m, place, [(x, x_pitch, s.rows), (B, b_pitch, wide), (C, b_pitch, wide)]
    )
    xs, Bs, Cs = three
    given: tuple[Argument, ...] = (
        xs.numbers, m.work[dt:], A_or_decay, Bs.numbers, Cs.numbers, D,
        m.work[gate[2] :] if gate else m.nothing, m.work[y:], *(o.scale for o in three),
        h.slots.codes, h.slots.scale, h.slots.zero, h.slots.rest, *h.known, *p_known, m.order,
        m.times, *keys(h.stored), *p.keys, m.length, s.rows, _row_size(c, s.n),
        h.slots.codes.shape[1], *(o.pitch for o in three), *(o.scales for o in three), dt_pitch,
        gate[4] if gate else 0, y_pitch, _live(h), h.stored.stride, p.stride,
        s.rows // s.heads, s.rows // s.groups, skip[6] if skip else 1,
    )  # fmt: skip
    across = s.groups > 1 and s.rows // s.groups < R
    constants = {
        "n": s.n, "N": N, "R": R, "HEADS": int(A is None), "ACROSS": int(across),
        "SKIPS": int(skip is not None), "GATED": int(gate is not None),
        "runs": Runs(*(o.run for o in three)), "c": c, "r": r, "p": p.rounds,
    }  # fmt: skip
    grid = (triton.cdiv(s.rows, R), len(m.order))
    warps = _warps(R * N, r)
    registers = _registers(warps, m.length)
    return Launch(selective_scan.scan, grid, given, constants, warps, registers=registers)


def chunks(
    program: Program, m: Memory, row: Row, A: Tensor, D: Tensor, skip: Row | None, gate: Row | None
) -> Launch:
    """Of CHUNKS, and of the SKIP and the GATE that follow."""
    _, x, x_pitch, dt, dt_pitch, _, B, C, y, y_pitch, state, every, *_ = row
    if every & (every - 1) or every > LONGEST_CHUNK:
        raise LoweringError(
            f"a state rounded every {every} steps: a power of two up to {LONGEST_CHUNK}"
        )
    h = m.held[state]
    s, r = h.state, rounds_of(program, h.stored)
    if s.run:
        raise LoweringError("scales of groups along a row of a state that is rounded in chunks")
    c, N = state_codes(h, s.n), max(SLICE, triton.next_power_of_2(s.n))
    R, S = _chunk_rows(h, N, every), N // SLICE
    given: tuple[Argument, ...] = (
        m.work[x:], m.work[dt:], A, m.work[B:], m.work[C:], D,
        m.work[gate[2] :] if gate else m.nothing, m.work[y:], h.slots.codes, h.slots.scale,
        h.slots.zero, h.slots.rest, *h.known, m.order, m.times, *keys(h.stored), m.length, s.heads,
        s.channels, _row_size(c, s.n), h.slots.codes.shape[1], x_pitch, dt_pitch, x_pitch,
        gate[4] if gate else 0, y_pitch, _live(h), h.stored.stride, s.heads // s.groups,
        skip[6] if skip else 1, every,
    )  # fmt: skip
    constants = {
        "n": s.n, "N": N, "R": R, "S": S, "L": BLOCK, "SKIPS": int(skip is not None),
        "GATED": int(gate is not None), "c": c, "r": r,
    }  # fmt: skip
    grid = (s.heads * triton.cdiv(s.channels, R), len(m.order))
    warps = min(16, max(8 if r.rounding == STOCHASTIC else 4, S))
    return Launch(head_chunks.chunks, grid, given, constants, warps, stages=1)


def _chunk_rows(h: Held, N: int, every: int) -> int:
    """Rows of a state to a program: a head's, or as many of them as fit where each has its scale
    or all have a static one."""
    s = h.state
    if h.stored.span != spec.TENSOR:
        return min(max(16, CHUNK_TILE // N), s.channels & -s.channels)
    R = triton.next_power_of_2(s.channels)
    if s.unit * 16 != s.channels:
        raise LoweringError(
            f"one live scale for all heads of a state rounded every {every} steps: one a head"
        )
    if R * N > LARGEST_CHUNK_TILE:
        raise LoweringError(
            f"one live scale for {s.channels * s.n} states, rounded every {every} steps: at most "
            f"{LARGEST_CHUNK_TILE}"
        )
    return R


def diagonal(
    program: Program, m: Memory, row: Row, tensors: list[Tensor], skip: Row | None
) -> Launch:
    """Of DIAGONAL, and of the SKIP that follows; tensors: A, B, C, D."""
    _, x, y, pitch, _, _, _, state, *_ = row
    h = m.held[state]
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
            raise LoweringError(f"one live scale for {2 * s.heads * s.n} numbers of a state")
    given: tuple[Argument, ...] = (
        m.work[x:], *tensors, m.work[y:], h.slots.codes, h.slots.scale, h.slots.zero, h.slots.rest,
        *h.known, m.order, m.times, *keys(h.stored), m.length, s.heads, _row_size(c, 2 * s.n),
        h.slots.codes.shape[1], pitch, _live(h),
    )  # fmt: skip
    constants = {
        "n": s.n, "N": N, "R": R, "G": G, "PARTS": s.parts, "WHOLE": whole,
        "SKIPS": int(skip is not None), "c": c, "r": r,
    }  # fmt: skip
    grid = (triton.cdiv(s.heads, R), len(m.order))
    return Launch(diagonal_scan.scan, grid, given, constants, _warps(4 * R * N, r))


def followers(after: list[Row], x: int, y: int) -> tuple[Row | None, Row | None]:
    """The skip and the gate that follow a recurrence from x to y, on its registers."""
    if not after or after[0][0] != op.SKIP or after[0][1:4] != [y, x, y]:
        return None, None
    gates = len(after) > 1 and after[1][0] == op.GATE and after[1][1] == after[1][3] == y
    return after[0], after[1] if gates else None
