"""The recurrence over a unit: the tiles of one sequence that share dynamic scales, all steps.

`build` makes the compiled function for one set of compile-time flags.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

from sensprobe_kernels.jit import compiled, inline, inline_optimised
from sensprobe_kernels.ops.selective_scan.decays import unit_decays
from sensprobe_kernels.ops.selective_scan.job import Given, Job, Place
from sensprobe_kernels.ops.selective_scan.numbers import empty_sum, shared_scale
from sensprobe_kernels.ops.selective_scan.steps import (
    four_group_step,
    four_step,
    group_step,
    index,
    observe,
    store_states,
    tile_step,
)
from sensprobe_kernels.quantize.rounding import STOCHASTIC
from sensprobe_kernels.quantize.scales import unseen
from sensprobe_kernels.quantize.spec import GROUP, TENSOR, Flags, exactly
from sensprobe_kernels.simd.vector import LANES, load, prefetch, store

AHEAD = 3
"""Steps from the present one to the one whose lines are prefetched."""


@inline
def copy(source: Any, at: int, target: Any, to: int, size: int) -> None:
    for i in range(0, size, LANES):
        store(target, to + i, load(source, at + i))


@inline
def _checkpoint(job: Job, given: Given, place: Place, stretch: int, flags: Flags) -> None:
    """Copy the unit's state and residual, for the gradient."""
    line = job.n * LANES
    at, size = (place.b * job.tiles + place.k0) * line, (place.k1 - place.k0) * line
    to = stretch * job.batch * job.tiles * line + at
    copy(given.state, at, given.checkpoints, to, size)
    if flags.feedback:
        copy(given.residual, at, given.residual_checkpoints, to, size)


@inline
def _prefetch(job: Job, given: Given, place: Place, t: int, head: bool) -> None:
    """Prefetch the lines of a later step: those of a wide model lie pages apart, and a processor
    prefetches within a page."""
    first = ((place.b * job.length + t) * job.tiles + place.k0) * LANES
    for i in range(first, first + (place.k1 - place.k0) * LANES, LANES):
        prefetch(given.x, i)
        prefetch(given.y, i)
        if not head:
            prefetch(given.dt, i)


@inline_optimised
def step(
    job: Job, given: Given, place: Place, t: int, decays: Any, head: bool, state: Flags,
    decay: Flags,
) -> None:  # fmt: skip
    """One step of all tiles of a unit."""
    if not head:
        unit_decays(job, given, place, t, decays, decay)
    if (job.step + t + 1) % job.state.every:
        _plain_steps(job, given, place, t, decays, head, exactly(state))
    elif state.span == GROUP:
        _group_steps(job, given, place, t, decays, head, state)
    elif state.span == TENSOR:
        _shared_step(job, given, place, t, decays, head, state)
    else:
        _plain_steps(job, given, place, t, decays, head, state)


@inline
def _plain_steps(
    job: Job, given: Given, place: Place, t: int, decays: Any, head: bool, flags: Flags
) -> None:
    """Exact or static: four tiles at a time, unless noise takes the registers."""
    k = place.k0
    if flags.rounding != STOCHASTIC:
        for _ in range((place.k1 - place.k0) // 4):
            four_step(job, given, place, k, t, decays, head, flags)
            k += 4
    for k1 in range(k, place.k1):
        tile_step(job, given, place, k1, t, decays, head, flags)


@inline
def _group_steps(
    job: Job, given: Given, place: Place, t: int, decays: Any, head: bool, flags: Flags
) -> None:
    """A dynamic scale a channel, four tiles at a time, or several along n, a tile at a time."""
    k = place.k0
    if job.state.group >= job.n and flags.rounding != STOCHASTIC:
        for _ in range((place.k1 - place.k0) // 4):
            four_group_step(job, given, place, k, t, decays, head, flags)
            k += 4
    for k1 in range(k, place.k1):
        group_step(job, given, place, k1, t, decays, head, flags)


@inline
def _shared_step(
    job: Job, given: Given, place: Place, t: int, decays: Any, head: bool, flags: Flags
) -> None:
    """One dynamic scale for all tiles."""
    seen = unseen(flags)
    for k in range(place.k0, place.k1):
        at = index(job, given, place, k, t, head)
        seen = observe(job, given, at, 0, job.n, decays, head, seen, flags)
    scale = shared_scale(seen, given.state_numbers, job.state, flags)
    for k in range(place.k0, place.k1):
        at = index(job, given, place, k, t, head)
        total = store_states(job, given, place, at, 0, job.n, scale, empty_sum(), flags)
        store(given.y, at.value, total)


@cache
def build(state: Flags, decay: Flags, head: bool) -> Callable[..., None]:
    """The compiled scan for one way to store the state and one to round the decay.

    `head`: decays are given, one a head and step. It takes a Job, Given, scratch for the decays of
    a unit, and the first unit of the call and the one after its last. It releases the interpreter's
    lock.
    """

    def scan_units(job: Job, given: Given, decays: Any, start: int, stop: int) -> None:
        units = -(-job.tiles // job.unit)
        for i in range(start, stop):
            k0 = i % units * job.unit
            place = Place(i // units, k0, min(k0 + job.unit, job.tiles))
            for t in range(job.length):
                if job.interval and t % job.interval == 0:
                    _checkpoint(job, given, place, t // job.interval, state)
                _prefetch(job, given, place, t + AHEAD, head)
                step(job, given, place, t, decays, head, state, decay)

    return compiled(scan_units)


@cache
def build_decays(decay: Flags) -> Callable[..., None]:
    """The compiled decays of every step, without the recurrence. It takes a Job, Given, where they
    go (length, batch, tiles, n, 16), and the first unit of the call and the one after its last."""

    def write_decays(job: Job, given: Given, out: Any, decays: Any, start: int, stop: int) -> None:
        units = -(-job.tiles // job.unit)
        line = job.n * LANES
        for i in range(start, stop):
            k0 = i % units * job.unit
            place = Place(i // units, k0, min(k0 + job.unit, job.tiles))
            for t in range(job.length):
                unit_decays(job, given, place, t, decays, decay)
                to = ((t * job.batch + place.b) * job.tiles + k0) * line
                copy(decays, 0, out, to, (place.k1 - k0) * line)

    return compiled(write_decays)
