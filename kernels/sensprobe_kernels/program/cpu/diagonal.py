"""One step of the diagonal complex recurrences, their state packed between steps.

re = (A_re h_re - A_im h_im) + B_re u        y = 2 · sum of C_re re - C_im im, from n = 0 upward
im = (A_re h_im + A_im h_re) + B_im u

That is S4D's; S5's has a number of its own for B_re u and for B_im u, and y is the state.

The state lies in scratch as in the carry: real and imaginary numbers in turn, head after head.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from sensprobe_kernels.jit import inline, noinline
from sensprobe_kernels.packing.tensor import BFLOAT, HALF, by_turns
from sensprobe_kernels.program.cpu.recurrence import Scratch, zero_of
from sensprobe_kernels.program.cpu.scales import scale_in, scale_with, zero_in
from sensprobe_kernels.program.cpu.states import (
    dynamic_scale_at,
    dynamic_zero_at,
    fields_of,
    put_dynamic,
    put_number,
    put_numbers,
    ratios,
    raw_value,
    raw_values,
)
from sensprobe_kernels.program.cpu.tables import flags_in
from sensprobe_kernels.program.ir import State, Stored
from sensprobe_kernels.quantize.lanes import Scale, clamp, kept, noise_pair, residual_of
from sensprobe_kernels.quantize.rounding import STOCHASTIC
from sensprobe_kernels.quantize.scales import unseen, widen
from sensprobe_kernels.quantize.spec import CLIP, EXACT, GROUP, Flags
from sensprobe_kernels.quantize.turns import scale_of
from sensprobe_kernels.simd.octets import lane
from sensprobe_kernels.simd.vector import (
    LANES,
    Floats,
    every,
    every_int,
    load,
    load_first,
    negative,
    places,
    store,
    store_first,
)

_ZERO, _HALF, _TWO = np.float32(0.0), np.float32(0.5), np.float32(2.0)


@inline
def _pair(values: Any, r: int, s: State) -> Floats:
    """The values (scales or zero points) of run r; real and imaginary ones in turn where each part
    has its own."""
    i = r * s.parts
    return by_turns(values[i], values[i + s.parts - 1])


@inline
def _scales(data: Any, carry: Any, base: int, s: State, d: Stored, x: Scratch) -> None:
    """Read the scale and the zero point of every run."""
    for r in range(2 * s.heads * s.n // s.run * s.parts):
        if d.span == GROUP:
            x.scales[r] = dynamic_scale_at(carry, base, s, d.scales, r)
            x.zeros[r] = dynamic_zero_at(carry, base, s, d.scales, r)
        else:
            x.scales[r], x.zeros[r] = scale_in(data, d, r), zero_in(data, d, r)


@inline
def _load_numbers(carry: Any, base: int, s: State, out: Any) -> None:
    """Read all numbers of a state, before scale and zero point."""
    count, t = 2 * s.heads * s.n, fields_of(s)
    for i in range(0, count - LANES + 1, LANES):
        store(out, i, raw_values(carry, base, i, s))
    for i in range(count - count % LANES, count):
        out[i] = raw_value(carry, base, i, s, t)


@inline
def _store_numbers(carry: Any, base: int, s: State, out: Any) -> None:
    """The inverse of `_load_numbers`."""
    count = 2 * s.heads * s.n
    for i in range(0, count - LANES + 1, LANES):
        put_numbers(carry, base, i, load(out, i), s)
    for i in range(count - count % LANES, count):
        put_number(carry, base, i, out[i], s)


@inline
def _residual_of(s: State) -> State:
    """The residual as a state without scales, of as many numbers."""
    return State(
        s.store, s.residual_at, 16, BFLOAT, 0, 0, s.rows, s.n, 1, s.heads, 1, 1, -1, -1, -1, s.run,
        s.parts, 0,
    )  # fmt: skip


@noinline
def _load_residual(carry: Any, base: int, s: State, x: Scratch) -> None:
    """Read the residual of error feedback."""
    _load_numbers(carry, base, _residual_of(s), x.residual)


@noinline
def _store_residual(carry: Any, base: int, s: State, x: Scratch) -> None:
    """The inverse of `_load_residual`."""
    _store_numbers(carry, base, _residual_of(s), x.residual)


@inline
def _load_state(carry: Any, base: int, s: State, d: Stored, x: Scratch) -> None:
    """Read the state and its residual into scratch."""
    count = 2 * s.heads * s.n
    _load_numbers(carry, base, s, x.state)
    if d.feedback:
        _load_residual(carry, base, s, x)
    if s.kind >= HALF:
        return
    for r in range(count // s.run):
        scale, zero = _pair(x.scales, r, s), _pair(x.zeros, r, s)
        for i in range(r * s.run, (r + 1) * s.run, LANES):
            left = min(LANES, (r + 1) * s.run - i)
            v = (load_first(x.state, i, left, zero) - zero) * scale
            store_first(x.state, i, left, v)


@inline
def _store_state(carry: Any, base: int, s: State, d: Stored, x: Scratch) -> None:
    """The inverse of `_load_state`."""
    count = 2 * s.heads * s.n
    if s.kind < HALF:
        for r in range(count // s.run):
            scale, zero = _pair(x.scales, r, s), _pair(x.zeros, r, s)
            for i in range(r * s.run, (r + 1) * s.run, LANES):
                left = min(LANES, (r + 1) * s.run - i)
                v = load_first(x.state, i, left, zero)
                store_first(x.state, i, left, ratios(v, scale, zero, s))
    _store_numbers(carry, base, s, x.state)
    if d.feedback:
        _store_residual(carry, base, s, x)
    if d.span == GROUP:
        for r in range(count // s.run * s.parts):
            put_dynamic(carry, base, s, d.scales, r, x.scales[r], x.zeros[r])


@inline
def _advance(s: State, u: Any, x: Scratch) -> None:
    """A h + B u in place; A and B lie one after the other in the scratch for tensors."""
    A, B = x.tensor, x.tensor[2 * s.heads * s.n :]
    for head in range(s.heads):
        drive = u[head]
        for i in range(2 * head * s.n, 2 * (head + 1) * s.n, 2):
            re, im = x.state[i], x.state[i + 1]
            x.state[i] = (A[i] * re - A[i + 1] * im) + B[i] * drive
            x.state[i + 1] = (A[i] * im + A[i + 1] * re) + B[i + 1] * drive


@inline
def _advance_driven(s: State, v: Any, x: Scratch) -> None:
    """A h + v in place; A lies in the scratch for tensors."""
    A = x.tensor
    for i in range(0, 2 * s.heads * s.n, 2):
        re, im = x.state[i], x.state[i + 1]
        x.state[i] = (A[i] * re - A[i + 1] * im) + v[i]
        x.state[i + 1] = (A[i] * im + A[i + 1] * re) + v[i + 1]


# -- rounding -------------------------------------------------------------------------------------


@noinline
def _prepare(s: State, flags: Flags, numbers: Any, x: Scratch) -> None:
    """Add residuals and clamp, before numbers are rounded."""
    count, high = 2 * s.heads * s.n, every(numbers[CLIP])
    for i in range(0, count, LANES):
        left = min(LANES, count - i)
        v = load_first(x.state, i, left, every(_ZERO))
        if flags.feedback:
            v = v + load_first(x.residual, i, left, every(_ZERO))
        if flags.clip:
            v = clamp(v, negative(high), high)
        store_first(x.state, i, left, v)


@noinline
def _draw(s: State, d: Stored, slot: int, step: int, x: Scratch) -> None:
    """Draw a random number for every place, into the room that other recurrences use for decays."""
    sequence, time = every_int(slot), every_int(step)
    for head in range(s.heads):
        row = every_int(head)
        for n in range(0, s.n, LANES):
            re, im = noise_pair(every_int(n) + places(), row, sequence, time, d.key0, d.key1)
            store(x.flat, 0, re)
            store(x.flat, LANES, im)
            first = 2 * (head * s.n + n)
            for k in range(min(LANES, s.n - n)):
                x.decays[first + 2 * k] = x.flat[k]
                x.decays[first + 2 * k + 1] = x.flat[LANES + k]


@inline
def _dynamic_scale(s: State, d: Stored, r: int, numbers: Any, flags: Flags, x: Scratch) -> Scale:
    """The dynamic scale of run r, which is kept in scratch too."""
    first, seen = r * s.run, unseen(flags)
    again = by_turns(x.state[first], x.state[first + 1])
    for i in range(first, first + s.run, LANES):
        left = min(LANES, first + s.run - i)
        seen = widen(seen, load_first(x.state, i, left, again), flags)
    scale = scale_of(seen, s.parts, numbers, d.scales, flags)
    zero = zero_of(scale, flags)
    for part in range(s.parts):
        x.scales[r * s.parts + part] = lane(scale.scale, part)
        x.zeros[r * s.parts + part] = lane(zero, part) if flags.asym else _ZERO
    return scale


@inline
def _round(s: State, d: Stored, slot: int, step: int, consts: Any, x: Scratch) -> None:
    """Round every run by its scale, dynamic scales computed first."""
    flags, nothing = flags_in(d), every(_ZERO)
    if flags.span == EXACT:
        return
    numbers = consts[d.numbers : d.numbers + 8]
    if flags.feedback or flags.clip:
        _prepare(s, flags, numbers, x)
    if flags.rounding == STOCHASTIC:
        _draw(s, d, slot, step, x)
    for r in range(2 * s.heads * s.n // s.run):
        if flags.span == GROUP:
            scale = _dynamic_scale(s, d, r, numbers, flags, x)
        else:
            scale = scale_with(_pair(x.scales, r, s), _pair(x.zeros, r, s), numbers, flags)
        for i in range(r * s.run, (r + 1) * s.run, LANES):
            left = min(LANES, (r + 1) * s.run - i)
            v, noise = load_first(x.state, i, left, nothing), nothing
            if flags.rounding == STOCHASTIC:
                noise = load_first(x.decays, i, left, nothing)
            back = kept(v, scale, noise, numbers, flags)
            store_first(x.state, i, left, back)
            if flags.feedback:
                store_first(x.residual, i, left, residual_of(v, back, scale, flags))


@inline
def _outputs(s: State, y: Any, x: Scratch) -> None:
    C = x.tensor[4 * s.heads * s.n :]
    for head in range(s.heads):
        i = 2 * head * s.n
        total = C[i] * x.state[i] - C[i + 1] * x.state[i + 1]
        for k in range(i + 2, i + 2 * s.n, 2):
            total = total + (C[k] * x.state[k] - C[k + 1] * x.state[k + 1])
        y[head] = _TWO * total


@noinline
def diagonal(
    data: Any, carry: Any, base: int, s: State, d: Stored, slot: int, step: int, u: Any, y: Any,
    consts: Any, x: Scratch,
) -> None:  # fmt: skip
    """One step of one sequence: u and y have a number a head; x.tensor holds A, B and C decoded."""
    _scales(data, carry, base, s, d, x)
    _load_state(carry, base, s, d, x)
    _advance(s, u, x)
    _round(s, d, slot, step, consts, x)
    _outputs(s, y, x)
    _store_state(carry, base, s, d, x)


@noinline
def modes(
    data: Any, carry: Any, base: int, s: State, d: Stored, slot: int, step: int, v: Any, to: Any,
    consts: Any, x: Scratch,
) -> None:  # fmt: skip
    """One step of one sequence: v and what is written have the state's numbers; x.tensor holds A
    decoded."""
    _scales(data, carry, base, s, d, x)
    _load_state(carry, base, s, d, x)
    _advance_driven(s, v, x)
    _round(s, d, slot, step, consts, x)
    for i in range(2 * s.heads * s.n):
        to[i] = x.state[i]
    _store_state(carry, base, s, d, x)
