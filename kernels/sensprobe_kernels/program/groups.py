"""One step of a selective recurrence whose state has several scales in a row, one for every `run`
numbers; see `recurrence` for all else.

Scales in scratch lie tile after tile, group after group, one a lane; in memory row after row.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from sensprobe_kernels.jit import apart, inline
from sensprobe_kernels.ops.selective_scan.decays import unit_decays
from sensprobe_kernels.ops.selective_scan.job import Given, Job, Place
from sensprobe_kernels.ops.selective_scan.numbers import nothing
from sensprobe_kernels.ops.selective_scan.steps import observe, settle, spot
from sensprobe_kernels.program.memory import (
    live_at,
    live_zero_at,
    pack_rest,
    put_live,
    put_tile,
    ratios,
    raw_tile,
    unpack_rest,
)
from sensprobe_kernels.program.recurrence import Scratch, zero_of
from sensprobe_kernels.program.scales import scale_in, scale_with, zero_in
from sensprobe_kernels.program.tables import State, Stored, flags_in
from sensprobe_kernels.quantize.scales import dynamic_scale, unseen
from sensprobe_kernels.quantize.spec import GROUP
from sensprobe_kernels.simd.vector import LANES, every, load, store


@inline
def _bring(data: Any, memory: Any, base: int, s: State, d: Stored, x: Scratch) -> None:
    """The state from memory to scratch, with its scales and residuals."""
    groups, size = s.n // s.run, LANES * s.run
    for k in range(s.rows // LANES):
        raw_tile(memory, base, k, s, x.flat, x.state)
        for g in range(groups):
            at, first = (k * groups + g) * LANES, k * LANES * s.n + g * size
            for i in range(LANES):
                place = (k * LANES + i) * groups + g
                if d.span == GROUP:
                    x.scales[at + i] = live_at(memory, base, s, d.scales, place)
                    x.zeros[at + i] = live_zero_at(memory, base, s, d.scales, place)
                else:
                    x.scales[at + i] = scale_in(data, d, place)
                    x.zeros[at + i] = zero_in(data, d, place)
            scale, zero = load(x.scales, at), load(x.zeros, at)
            for i in range(first, first + size, LANES):
                store(x.state, i, (load(x.state, i) - zero) * scale)
        if d.feedback:
            unpack_rest(memory, base, k, s, x.flat, x.rest)


@inline
def _advance(
    job: Job, given: Given, head: bool, s: State, d: Stored, numbers: Any, x: Scratch
) -> None:
    """All tiles, group after group: y, and the state in scratch with its scales."""
    flags, groups = flags_in(d), s.n // s.run
    all_of_it = Place(0, 0, s.rows // LANES)
    for k in range(s.rows // LANES):
        spotted, total = spot(job, given, all_of_it, k, 0, head), nothing()
        for g in range(groups):
            i0, i1, at = g * s.run, (g + 1) * s.run, (k * groups + g) * LANES
            seen = observe(job, given, spotted, i0, i1, x.decays, head, unseen(flags), flags)
            if flags.span == GROUP:
                scale = dynamic_scale(seen, numbers, d.scales, flags)
                store(x.scales, at, scale.scale)
                store(x.zeros, at, zero_of(scale, flags) if flags.asym else every(np.float32(0)))
            else:
                scale = scale_with(load(x.scales, at), load(x.zeros, at), numbers, flags)
            total = settle(job, given, all_of_it, spotted, i0, i1, scale, total, flags)
        store(given.y, spotted.value, total)


@inline
def _take_back(memory: Any, base: int, s: State, d: Stored, x: Scratch) -> None:
    """The inverse of `_bring`."""
    groups, size = s.n // s.run, LANES * s.run
    for k in range(s.rows // LANES):
        for g in range(groups):
            at, first = (k * groups + g) * LANES, k * LANES * s.n + g * size
            for i in range(LANES if d.span == GROUP else 0):
                place = (k * LANES + i) * groups + g
                put_live(memory, base, s, d.scales, place, x.scales[at + i], x.zeros[at + i])
            scale, zero = load(x.scales, at), load(x.zeros, at)
            for i in range(first, first + size, LANES):
                store(x.state, i, ratios(load(x.state, i), scale, zero, s))
        put_tile(memory, base, k, s, x.flat, x.state)
        if d.feedback:
            pack_rest(memory, base, k, s, x.flat, x.rest)


@apart
def in_groups(
    data: Any, memory: Any, base: int, job: Job, given: Given, head: bool, s: State, d: Stored,
    p: Stored, numbers: Any, x: Scratch,
) -> None:  # fmt: skip
    """One step of one sequence, from memory to memory; p: the decays'."""
    _bring(data, memory, base, s, d, x)
    if not head:
        tiles = s.rows // LANES
        unit_decays(job, given, Place(0, 0, tiles), 0, x.decays, flags_in(p))
    _advance(job, given, head, s, d, numbers, x)
    _take_back(memory, base, s, d, x)
