"""One step of a selective recurrence whose state has a scale for every `run` numbers of a row; see
`recurrence` for all else.

Scales lie tile after tile, group after group, one a lane, in scratch; row after row in the carry.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from sensprobe_kernels.jit import inline, noinline
from sensprobe_kernels.ops.selective_scan.decays import unit_decays
from sensprobe_kernels.ops.selective_scan.job import Given, Job, Place
from sensprobe_kernels.ops.selective_scan.numbers import empty_sum
from sensprobe_kernels.ops.selective_scan.steps import index, observe, store_states
from sensprobe_kernels.program.cpu.recurrence import Scratch, zero_of
from sensprobe_kernels.program.cpu.scales import scale_in, scale_with, zero_in
from sensprobe_kernels.program.cpu.states import (
    dynamic_scale_at,
    dynamic_zero_at,
    pack_residual,
    put_dynamic,
    put_tile,
    ratios,
    raw_tile,
    unpack_residual,
)
from sensprobe_kernels.program.cpu.tables import flags_in
from sensprobe_kernels.program.ir import State, Stored
from sensprobe_kernels.quantize.scales import dynamic_scale, unseen
from sensprobe_kernels.quantize.spec import GROUP
from sensprobe_kernels.simd.vector import LANES, every, load, store


@inline
def _load_state(data: Any, carry: Any, base: int, s: State, d: Stored, x: Scratch) -> None:
    """Read the state, its scales and its residual into scratch."""
    groups, size = s.n // s.run, LANES * s.run
    for k in range(s.rows // LANES):
        raw_tile(carry, base, k, s, x.flat, x.state)
        for g in range(groups):
            at, first = (k * groups + g) * LANES, k * LANES * s.n + g * size
            for i in range(LANES):
                place = (k * LANES + i) * groups + g
                if d.span == GROUP:
                    x.scales[at + i] = dynamic_scale_at(carry, base, s, d.scales, place)
                    x.zeros[at + i] = dynamic_zero_at(carry, base, s, d.scales, place)
                else:
                    x.scales[at + i] = scale_in(data, d, place)
                    x.zeros[at + i] = zero_in(data, d, place)
            scale, zero = load(x.scales, at), load(x.zeros, at)
            for i in range(first, first + size, LANES):
                store(x.state, i, (load(x.state, i) - zero) * scale)
        if d.feedback:
            unpack_residual(carry, base, k, s, x.flat, x.residual)


@inline
def _advance(
    job: Job, given: Given, head: bool, s: State, d: Stored, numbers: Any, x: Scratch
) -> None:
    """Compute y, and the state and its scales in scratch, tile after tile and group after group."""
    flags, groups = flags_in(d), s.n // s.run
    all_of_it = Place(0, 0, s.rows // LANES)
    for k in range(s.rows // LANES):
        at_tile, total = index(job, given, all_of_it, k, 0, head), empty_sum()
        for g in range(groups):
            i0, i1, at = g * s.run, (g + 1) * s.run, (k * groups + g) * LANES
            seen = observe(job, given, at_tile, i0, i1, x.decays, head, unseen(flags), flags)
            if flags.span == GROUP:
                scale = dynamic_scale(seen, numbers, d.scales, flags)
                store(x.scales, at, scale.scale)
                store(x.zeros, at, zero_of(scale, flags) if flags.asym else every(np.float32(0)))
            else:
                scale = scale_with(load(x.scales, at), load(x.zeros, at), numbers, flags)
            total = store_states(job, given, all_of_it, at_tile, i0, i1, scale, total, flags)
        store(given.y, at_tile.value, total)


@inline
def _store_state(carry: Any, base: int, s: State, d: Stored, x: Scratch) -> None:
    """The inverse of `_load_state`."""
    groups, size = s.n // s.run, LANES * s.run
    for k in range(s.rows // LANES):
        for g in range(groups):
            at, first = (k * groups + g) * LANES, k * LANES * s.n + g * size
            for i in range(LANES if d.span == GROUP else 0):
                place = (k * LANES + i) * groups + g
                put_dynamic(carry, base, s, d.scales, place, x.scales[at + i], x.zeros[at + i])
            scale, zero = load(x.scales, at), load(x.zeros, at)
            for i in range(first, first + size, LANES):
                store(x.state, i, ratios(load(x.state, i), scale, zero, s))
        put_tile(carry, base, k, s, x.flat, x.state)
        if d.feedback:
            pack_residual(carry, base, k, s, x.flat, x.residual)


@noinline
def in_groups(
    data: Any, carry: Any, base: int, job: Job, given: Given, head: bool, s: State, d: Stored,
    p: Stored, numbers: Any, x: Scratch,
) -> None:  # fmt: skip
    """One step of one sequence: reads and writes the carry; p: the store of the decays."""
    _load_state(data, carry, base, s, d, x)
    if not head:
        tiles = s.rows // LANES
        unit_decays(job, given, Place(0, 0, tiles), 0, x.decays, flags_in(p))
    _advance(job, given, head, s, d, numbers, x)
    _store_state(carry, base, s, d, x)
