"""One step of the operations with a state: the short convolution and both selective recurrences.

The state of one sequence is brought to sixteen lanes, advanced by the functions that scans are made
of, and packed again.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from sensprobe_kernels.jit import inline, noinline
from sensprobe_kernels.ops.selective_scan.decays import unit_decays
from sensprobe_kernels.ops.selective_scan.job import Given, Job, Place
from sensprobe_kernels.ops.selective_scan.numbers import empty_sum, no_scale, noise
from sensprobe_kernels.ops.selective_scan.steps import index, observe, store_states
from sensprobe_kernels.packing.tensor import Packed
from sensprobe_kernels.program.cpu.registers import plain_row
from sensprobe_kernels.program.cpu.scales import known_each, known_one
from sensprobe_kernels.program.cpu.states import (
    dynamic_scale_at,
    dynamic_zero_at,
    pack_residual,
    pack_tile,
    put_dynamic,
    to_lanes,
    unpack_residual,
    unpack_tile,
)
from sensprobe_kernels.program.cpu.tables import flags_in, settings_of
from sensprobe_kernels.program.ir import State, Stored
from sensprobe_kernels.quantize.lanes import Scale, clamp, kept
from sensprobe_kernels.quantize.scales import Range, across, dynamic_scale, unseen, widen
from sensprobe_kernels.quantize.spec import (
    CLIP,
    DIVIDED,
    EXACT,
    GROUP,
    STATIC,
    STATIC_EACH,
    TENSOR,
    Flags,
)
from sensprobe_kernels.simd.vector import (
    LANES,
    Floats,
    every,
    load,
    negative,
    rint,
    spread,
    store,
)


class Scratch(NamedTuple):
    """float32 arrays that a step may overwrite: a layer's state and residual in lanes, decays, the
    rows of a tile, scales and zero points of every tile, static scales of decays, and a decoded
    tensor; `wide` is float64, for a row."""

    state: Any
    residual: Any
    decays: Any
    flat: Any
    scales: Any
    zeros: Any
    known: Any
    tensor: Any
    wide: Any


@inline
def zero_of(scale: Scale, flags: Flags) -> Floats:
    """The zero point that a Scale was made from."""
    if flags.quotient == DIVIDED:
        return negative(scale.low)
    return rint(negative(scale.low) / scale.scale)


@inline
def _keep_scale(x: Scratch, k: int, scale: Scale, flags: Flags) -> None:
    store(x.scales, k * LANES, scale.scale)
    store(x.zeros, k * LANES, zero_of(scale, flags) if flags.asym else every(np.float32(0)))


@inline
def _is_dynamic(flags: Flags) -> bool:
    return flags.span == GROUP or flags.span == TENSOR


@inline
def static_scale(data: Any, d: Stored, k: int, numbers: Any, flags: Flags, x: Scratch) -> Scale:
    """The calibrated scale of tile k: one for all rows, for `stride` rows, or a row."""
    if flags.span == EXACT:
        return no_scale()
    if d.stride % LANES == 0:
        return known_one(data, d, k * LANES // d.stride if d.stride else 0, numbers, flags)
    return known_each(data, d, k * LANES, LANES, numbers, flags, x.flat)


@inline
def _scale_of(
    seen: Range, data: Any, d: Stored, k: int, numbers: Any, flags: Flags, x: Scratch
) -> Scale:
    """The scale of tile k and those that share it; `seen`: the range of what is to be rounded."""
    if d.span == GROUP:
        return dynamic_scale(seen, numbers, d.scales, flags)
    if d.span == TENSOR:
        return dynamic_scale(across(seen), numbers, d.scales, flags)
    return static_scale(data, d, k, numbers, flags, x)


@noinline
def load_state(
    data: Any, carry: Any, base: int, s: State, d: Stored, numbers: Any, x: Scratch
) -> None:
    """Read a sequence's state from the carry into scratch."""
    flags = flags_in(d)
    for k in range(s.rows // LANES):
        if _is_dynamic(flags):
            _dynamic_scales(carry, base, s, d, k, x)
        else:
            scale = static_scale(data, d, k, numbers, flags, x)
            store(x.scales, k * LANES, scale.scale)
            store(x.zeros, k * LANES, every(np.float32(0)))
            if flags.asym:
                store(x.zeros, k * LANES, zero_of(scale, flags))
        scale, zero = load(x.scales, k * LANES), load(x.zeros, k * LANES)
        unpack_tile(carry, base, k, s, scale, zero, x.flat, x.state)
        if flags.feedback:
            unpack_residual(carry, base, k, s, x.flat, x.residual)


@inline
def _dynamic_scales(carry: Any, base: int, s: State, d: Stored, k: int, x: Scratch) -> None:
    """Read the dynamic scales of tile k, one a lane."""
    if d.span == TENSOR:
        i = k // s.unit
        store(x.scales, k * LANES, every(dynamic_scale_at(carry, base, s, d.scales, i)))
        store(x.zeros, k * LANES, every(dynamic_zero_at(carry, base, s, d.scales, i)))
        return
    for i in range(k * LANES, (k + 1) * LANES):
        x.scales[i] = dynamic_scale_at(carry, base, s, d.scales, i)
        x.zeros[i] = dynamic_zero_at(carry, base, s, d.scales, i)


@noinline
def store_state(carry: Any, base: int, s: State, d: Stored, x: Scratch) -> None:
    """Write a sequence's state from scratch to the carry."""
    flags = flags_in(d)
    for k in range(s.rows // LANES):
        if d.span == TENSOR:
            if k % s.unit == 0:
                at = k * LANES
                put_dynamic(carry, base, s, d.scales, k // s.unit, x.scales[at], x.zeros[at])
        elif d.span == GROUP:
            for i in range(k * LANES, (k + 1) * LANES):
                put_dynamic(carry, base, s, d.scales, i, x.scales[i], x.zeros[i])
        scale, zero = load(x.scales, k * LANES), load(x.zeros, k * LANES)
        pack_tile(carry, base, k, s, scale, zero, x.flat, x.state)
        if flags.feedback:
            pack_residual(carry, base, k, s, x.flat, x.residual)


# -- the recurrences ------------------------------------------------------------------------------


@noinline
def advance(
    data: Any, job: Job, given: Given, head: bool, s: State, d: Stored, p: Stored, numbers: Any,
    x: Scratch,
) -> None:  # fmt: skip
    """One step of all tiles: compute y, and the state and its scales in scratch."""
    flags, passed = flags_in(d), flags_in(p)
    tiles = s.rows // LANES
    if not head:
        unit_decays(job, given, Place(0, 0, tiles), 0, x.decays, passed)
    unit, all_of_it = s.unit if d.span == TENSOR else 1, Place(0, 0, tiles)
    for k0 in range(0, tiles, unit):
        seen = unseen(flags)
        for k in range(k0, k0 + unit):
            at = index(job, given, all_of_it, k, 0, head)
            seen = observe(job, given, at, 0, s.n, x.decays, head, seen, flags)
        scale = _scale_of(seen, data, d, k0, numbers, flags, x)
        for k in range(k0, k0 + unit):
            at = index(job, given, all_of_it, k, 0, head)
            y = store_states(job, given, all_of_it, at, 0, s.n, scale, empty_sum(), flags)
            store(given.y, at.value, y)
            _keep_scale(x, k, scale, flags)


@noinline
def in_lanes(data: Any, consts: Any, t: Packed, x: Scratch, out: Any) -> None:
    """Decode a tensor (rows, columns) as (tiles, columns, 16)."""
    n = t.columns
    for k in range(t.rows // LANES):
        for r in range(LANES):
            plain_row(data, consts, t, k * LANES + r, x.flat, r * n, x.wide)
        to_lanes(x.flat, out, k * LANES * n, n)


@noinline
def fill_known(data: Any, p: Stored, tiles: int, numbers: Any, x: Scratch) -> None:
    """Static scales of the decay, as `known_scale` reads them: (5, tiles, 1, 16), as multiples."""
    flags = flags_in(p)
    if flags.span != STATIC and flags.span != STATIC_EACH:
        return
    field = tiles * LANES
    for k in range(tiles):
        scale = static_scale(data, p, k, numbers, flags, x)
        zero = zero_of(scale, flags) if flags.asym else every(np.float32(0))
        high = spread(numbers, 0)
        store(x.known, k * LANES, scale.scale)
        store(x.known, k * LANES + field, scale.inverse)
        store(x.known, k * LANES + 2 * field, scale.rest)
        low = negative(zero) if flags.asym else negative(high)
        store(x.known, k * LANES + 3 * field, low)
        store(x.known, k * LANES + 4 * field, high - zero if flags.asym else high)


@inline
def job_of(s: State, d: Stored, p: Stored, first: int, step: int) -> Job:
    """Sizes of one step of one sequence."""
    tiles = s.rows // LANES
    return Job(
        1, tiles, s.heads, tiles, s.n, s.channels, max(1, s.channels // LANES), s.groups, first,
        step, 0, 1,
        settings_of(d), settings_of(p),
    )  # fmt: skip


# -- the convolution ------------------------------------------------------------------------------


@noinline
def convolve(
    data: Any, s: State, d: Stored, job: Job, given: Given, weight: Any, bias: Any, numbers: Any,
    x: Scratch,
) -> None:  # fmt: skip
    """Compute y from the window and the present input, then move the window by one and round it."""
    flags, n = flags_in(d), s.n
    tiles = s.rows // LANES
    unit = s.unit if d.span == TENSOR else 1
    for k0 in range(0, tiles, unit):
        seen = unseen(flags)
        for k in range(k0, k0 + unit):
            at, value = k * n * LANES, load(given.x, k * LANES)
            total, w = empty_sum(), k * (n + 1) * LANES
            for i in range(n):
                past = load(x.state, at + i * LANES)
                total = total + load(weight, w + i * LANES) * past
            total = total + load(weight, w + n * LANES) * value
            store(given.y, k * LANES, total + load(bias, k * LANES))
            for i in range(n):
                v = value if i == n - 1 else load(x.state, at + (i + 1) * LANES)
                if flags.clip:
                    high = spread(numbers, CLIP)
                    v = clamp(v, negative(high), high)
                store(x.state, at + i * LANES, v)
                seen = widen(seen, v, flags)
        scale = _scale_of(seen, data, d, k0, numbers, flags, x)
        for k in range(k0, k0 + unit):
            place = Place(0, k, k + 1)
            for i in range(n):
                at = (k * n + i) * LANES
                z = noise(job, given, job.state, place, k, i, 0, flags)
                store(x.state, at, kept(load(x.state, at), scale, z, numbers, flags))
            _keep_scale(x, k, scale, flags)
