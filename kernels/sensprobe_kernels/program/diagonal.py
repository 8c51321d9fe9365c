"""One step of the diagonal complex recurrence, its state packed between steps.

re = (A_re h_re - A_im h_im) + B_re u        y = 2 · sum of C_re re - C_im im, from n = 0 upward
im = (A_re h_im + A_im h_re) + B_im u
"""

from __future__ import annotations

from typing import Any

import numpy as np

from sensprobe_kernels.octets import lane
from sensprobe_kernels.packed.tensor import HALF, OFFSET, SIGNED
from sensprobe_kernels.passing.rows import Rows, _seen, _write
from sensprobe_kernels.program.memory import (
    live_at,
    live_zero_at,
    named,
    put_live,
    put_number,
    raw_value,
)
from sensprobe_kernels.program.recurrence import Scratch, zero_of
from sensprobe_kernels.program.scales import known_one, scale_in, zero_in
from sensprobe_kernels.program.tables import State, Stored, flags_in
from sensprobe_kernels.stored.flags import EXACT, GROUP, apart, inline
from sensprobe_kernels.stored.scales import live_scale

_TWO = np.float32(2.0)


@inline
def _place(s: State, head: int, part: int, pair: int) -> int:
    return head * s.by_head + part * s.by_part + pair * s.by_pair


@inline
def _scales(data: Any, memory: Any, base: int, s: State, d: Stored, x: Scratch) -> None:
    """Scale and zero point of every run, as memory holds them."""
    for r in range(2 * s.heads * s.n // s.run):
        if d.span == GROUP:
            x.scales[r] = live_at(memory, base, s, d.scales, r)
            x.zeros[r] = live_zero_at(memory, base, s, d.scales, r)
        else:
            x.scales[r], x.zeros[r] = scale_in(data, d, r), zero_in(data, d, r)


@inline
def _bring(memory: Any, base: int, s: State, x: Scratch) -> None:
    """The state, each number at its place."""
    i, t = 0, named(s)
    for head in range(s.heads):
        for pair in range(s.n):
            for part in range(2):
                at = _place(s, head, part, pair)
                v = raw_value(memory, base, i, s, t)
                if s.kind < HALF:
                    v = (v - x.zeros[at // s.run]) * x.scales[at // s.run]
                x.state[at] = v
                i += 1


@inline
def _take_back(memory: Any, base: int, s: State, x: Scratch) -> None:
    i = 0
    for head in range(s.heads):
        for pair in range(s.n):
            for part in range(2):
                at = _place(s, head, part, pair)
                v = x.state[at]
                if s.kind < HALF:
                    v = v / x.scales[at // s.run]
                if s.kind == SIGNED or s.kind == OFFSET:
                    v = np.float32(np.rint(v)) + x.zeros[at // s.run]
                put_number(memory, base, i, v, s)
                i += 1


@inline
def _advance(s: State, u: Any, x: Scratch) -> None:
    """A h + B u in place; A and B lie one after the other in the scratch for tensors."""
    A, B = x.tensor, x.tensor[2 * s.heads * s.n :]
    for head in range(s.heads):
        drive = u[head]
        for pair in range(s.n):
            i = 2 * (head * s.n + pair)
            at_re, at_im = _place(s, head, 0, pair), _place(s, head, 1, pair)
            re, im = x.state[at_re], x.state[at_im]
            x.state[at_re] = (A[i] * re - A[i + 1] * im) + B[i] * drive
            x.state[at_im] = (A[i] * im + A[i + 1] * re) + B[i + 1] * drive


@inline
def _round(data: Any, s: State, d: Stored, consts: Any, x: Scratch) -> None:
    """Every run by its scale, live ones read first."""
    flags = flags_in(d)
    if flags.span == EXACT:
        return
    numbers = consts[d.numbers : d.numbers + 8]
    rows = Rows(s.run, s.run, d.scales, x.state, x.state, consts, numbers)
    for r in range(2 * s.heads * s.n // s.run):
        first = r * s.run
        end = first + s.run
        if flags.span == GROUP:
            scale = live_scale(_seen(rows, first, end, flags), numbers, d.scales, flags)
        else:
            scale = known_one(data, d, r, numbers, flags)
        _write(rows, first, first, end, scale, flags)
        x.scales[r] = lane(scale.scale, 0)
        x.zeros[r] = lane(zero_of(scale, flags), 0) if flags.asym else np.float32(0)


@inline
def _outputs(s: State, y: Any, x: Scratch) -> None:
    C = x.tensor[4 * s.heads * s.n :]
    for head in range(s.heads):
        i = 2 * head * s.n
        re, im = x.state[_place(s, head, 0, 0)], x.state[_place(s, head, 1, 0)]
        total = C[i] * re - C[i + 1] * im
        for pair in range(1, s.n):
            i += 2
            re, im = x.state[_place(s, head, 0, pair)], x.state[_place(s, head, 1, pair)]
            total = total + (C[i] * re - C[i + 1] * im)
        y[head] = _TWO * total


@apart
def diagonal(
    data: Any, memory: Any, base: int, s: State, d: Stored, u: Any, y: Any, consts: Any, x: Scratch
) -> None:
    """One step of one sequence: u, y a number a head; A, B and C are decoded in x.tensor."""
    _scales(data, memory, base, s, d, x)
    _bring(memory, base, s, x)
    _advance(s, u, x)
    _round(data, s, d, consts, x)
    _outputs(s, y, x)
    if d.span == GROUP:
        for r in range(2 * s.heads * s.n // s.run):
            put_live(memory, base, s, d.scales, r, x.scales[r], x.zeros[r])
    _take_back(memory, base, s, x)
