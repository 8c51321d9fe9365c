"""The convolution over a unit: the tiles of one sequence that share dynamic scales, all steps.

The window of K - 1 inputs is the state: n of `Job` is K - 1. It moves up by one input at a step,
and all of it is written to memory.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any, NamedTuple

from sensprobe_kernels.jit import compiled, inline, inline_optimised
from sensprobe_kernels.ops.selective_scan.job import Given, Job, Place
from sensprobe_kernels.ops.selective_scan.numbers import (
    empty_sum,
    known_scale,
    no_scale,
    noise,
    shared_scale,
)
from sensprobe_kernels.quantize.lanes import Scale, clamp, kept
from sensprobe_kernels.quantize.scales import Range, dynamic_scale, unseen, widen
from sensprobe_kernels.quantize.spec import (
    CLIP,
    GROUP,
    STATIC,
    STATIC_EACH,
    TENSOR,
    Flags,
    exactly,
)
from sensprobe_kernels.simd.vector import LANES, Floats, load, negative, spread, store


class Filters(NamedTuple):
    """weight: (tiles, K, 16), bias: (tiles, 16), -0 where there is none; flat."""

    weight: Any
    bias: Any


@inline
def _filtered(job: Job, given: Given, filters: Filters, place: Place, k: int, value: int) -> Floats:
    """y of tile k, from the oldest input to the present one."""
    w, s = k * (job.n + 1) * LANES, (place.b * job.tiles + k) * job.n * LANES
    total = empty_sum()
    for i in range(job.n):
        total = total + load(filters.weight, w + i * LANES) * load(given.state, s + i * LANES)
    total = total + load(filters.weight, w + job.n * LANES) * load(given.x, value)
    return total + load(filters.bias, k * LANES)


@inline
def _moved(
    job: Job, given: Given, place: Place, k: int, i: int, value: int, flags: Flags
) -> Floats:
    """The number that moves to place i of the window, clamped."""
    at = ((place.b * job.tiles + k) * job.n + i) * LANES
    v = load(given.x, value) if i == job.n - 1 else load(given.state, at + LANES)
    if flags.clip:
        high = spread(given.state_numbers, CLIP)
        v = clamp(v, negative(high), high)
    return v


@inline
def _put(
    job: Job, given: Given, place: Place, k: int, i: int, t: int, v: Floats, scale: Scale,
    flags: Flags,
) -> None:  # fmt: skip
    at = ((place.b * job.tiles + k) * job.n + i) * LANES
    z = noise(job, given, job.state, place, k, i, t, flags)
    store(given.state, at, kept(v, scale, z, given.state_numbers, flags))


@inline
def _plain(job: Job, given: Given, place: Place, k: int, t: int, value: int, flags: Flags) -> None:
    """Exact, or rounded by calibrated scales, in upward order, since each place reads the next."""
    scale = no_scale()
    if flags.span == STATIC or flags.span == STATIC_EACH:
        scale = known_scale(given.state_known, job, k, 0, flags)
    for i in range(job.n):
        if flags.span == STATIC_EACH:
            scale = known_scale(given.state_known, job, k, i, flags)
        v = _moved(job, given, place, k, i, value, flags)
        _put(job, given, place, k, i, t, v, scale, flags)


@inline
def _observe(
    job: Job, given: Given, place: Place, k: int, value: int, seen: Range, flags: Flags
) -> Range:
    """Move the window without rounding it; returns the range with its own added."""
    for i in range(job.n):
        v = _moved(job, given, place, k, i, value, flags)
        store(given.state, ((place.b * job.tiles + k) * job.n + i) * LANES, v)
        seen = widen(seen, v, flags)
    return seen


@inline
def _round(
    job: Job, given: Given, place: Place, k: int, i0: int, i1: int, t: int, scale: Scale,
    flags: Flags,
) -> None:  # fmt: skip
    for i in range(i0, i1):
        v = load(given.state, ((place.b * job.tiles + k) * job.n + i) * LANES)
        _put(job, given, place, k, i, t, v, scale, flags)


@inline
def _grouped(
    job: Job, given: Given, place: Place, k: int, t: int, value: int, flags: Flags
) -> None:
    """One step of a tile, a dynamic scale for every group of places along the window."""
    _observe(job, given, place, k, value, unseen(flags), flags)
    for i0 in range(0, job.n, job.state.group):
        i1 = min(i0 + job.state.group, job.n)
        seen = unseen(flags)
        for i in range(i0, i1):
            v = load(given.state, ((place.b * job.tiles + k) * job.n + i) * LANES)
            seen = widen(seen, v, flags)
        scale = dynamic_scale(seen, given.state_numbers, job.state.scales, flags)
        _round(job, given, place, k, i0, i1, t, scale, flags)


@inline_optimised
def step(job: Job, given: Given, filters: Filters, place: Place, t: int, flags: Flags) -> None:
    """One step of a unit: its outputs, and its windows moved on and stored."""
    due = (job.step + t + 1) % job.state.every == 0
    first = (place.b * job.length + t) * job.tiles
    seen = unseen(flags)
    for k in range(place.k0, place.k1):
        value = (first + k) * LANES
        store(given.y, value, _filtered(job, given, filters, place, k, value))
        if not due:
            _plain(job, given, place, k, t, value, exactly(flags))
        elif flags.span == GROUP:
            _grouped(job, given, place, k, t, value, flags)
        elif flags.span == TENSOR:
            seen = _observe(job, given, place, k, value, seen, flags)
        else:
            _plain(job, given, place, k, t, value, flags)
    if flags.span == TENSOR and due:
        scale = shared_scale(seen, given.state_numbers, job.state, flags)
        for k in range(place.k0, place.k1):
            _round(job, given, place, k, 0, job.n, t, scale, flags)


@cache
def build(state: Flags) -> Callable[..., None]:
    """The compiled convolution for one way to store the window, as `selective_scan` has it."""

    def convolve(job: Job, given: Given, filters: Filters, start: int, stop: int) -> None:
        units = -(-job.tiles // job.unit)
        for i in range(start, stop):
            k0 = i % units * job.unit
            place = Place(i // units, k0, min(k0 + job.unit, job.tiles))
            for t in range(job.length):
                step(job, given, filters, place, t, state)

    return compiled(convolve)
