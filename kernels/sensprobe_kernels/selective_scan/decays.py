"""The decays of one step, exp(dt A), as the recurrence goes on with them.

They lie in a scratch of (tiles of the unit, n, 16) numbers that stays in the cache.
"""

from __future__ import annotations

from typing import Any

from sensprobe_kernels.selective_scan.exponential import Four, exponential, exponentials
from sensprobe_kernels.selective_scan.job import Given, Job, Place
from sensprobe_kernels.selective_scan.numbers import known_scale, noise, shared_scale
from sensprobe_kernels.stored.flags import EXACT, GROUP, STATIC, STATIC_EACH, TENSOR, Flags, inline
from sensprobe_kernels.stored.lanes import Scale, kept
from sensprobe_kernels.stored.scales import Range, live_scale, unseen, widen
from sensprobe_kernels.vector import LANES, load, store


@inline
def _raw(job: Job, given: Given, place: Place, k: int, i0: int, i1: int, t: int, out: Any) -> None:
    """Exact decays i0 to i1 of tile k."""
    dt = load(given.dt, ((place.b * job.length + t) * job.tiles + k) * LANES)
    A, at = (k * job.n + i0) * LANES, ((k - place.k0) * job.n + i0) * LANES
    for _ in range(i0, i1 - 3, 4):
        four = exponentials(
            Four(
                dt * load(given.A, A),
                dt * load(given.A, A + LANES),
                dt * load(given.A, A + 2 * LANES),
                dt * load(given.A, A + 3 * LANES),
            )
        )
        store(out, at, four.a)
        store(out, at + LANES, four.b)
        store(out, at + 2 * LANES, four.c)
        store(out, at + 3 * LANES, four.d)
        A, at = A + 4 * LANES, at + 4 * LANES
    for _ in range((i1 - i0) % 4):
        store(out, at, exponential(dt * load(given.A, A)))
        A, at = A + LANES, at + LANES


@inline
def _observe(
    job: Job, given: Given, place: Place, k: int, i0: int, i1: int, t: int, out: Any, seen: Range,
    flags: Flags,
) -> Range:  # fmt: skip
    """Exact decays i0 to i1 of tile k; the range of what was seen and them."""
    _raw(job, given, place, k, i0, i1, t, out)
    for i in range(i0, i1):
        seen = widen(seen, load(out, ((k - place.k0) * job.n + i) * LANES), flags)
    return seen


@inline
def _settle(
    job: Job, given: Given, place: Place, k: int, i0: int, i1: int, t: int, out: Any, scale: Scale,
    flags: Flags,
) -> None:  # fmt: skip
    """Round decays i0 to i1 of tile k, which `_observe` left in place."""
    for i in range(i0, i1):
        at = ((k - place.k0) * job.n + i) * LANES
        if flags.span == STATIC_EACH:
            scale = known_scale(given.decay_known, job, k, i, flags)
        z = noise(job, given, job.decay, place, k, i, t, flags)
        store(out, at, kept(load(out, at), scale, z, given.decay_numbers, flags))


@inline
def _tile_decays(
    job: Job, given: Given, place: Place, k: int, t: int, out: Any, flags: Flags
) -> None:
    """Those of one tile, whose scales are its own."""
    if flags.span == EXACT:
        _raw(job, given, place, k, 0, job.n, t, out)
    elif flags.span == GROUP:
        for i0 in range(0, job.n, job.decay.group):
            i1 = min(i0 + job.decay.group, job.n)
            seen = _observe(job, given, place, k, i0, i1, t, out, unseen(flags), flags)
            scale = live_scale(seen, given.decay_numbers, job.decay.scales, flags)
            _settle(job, given, place, k, i0, i1, t, out, scale, flags)
    elif flags.span == STATIC or flags.span == STATIC_EACH:
        scale = known_scale(given.decay_known, job, k, 0, flags)
        _raw(job, given, place, k, 0, job.n, t, out)
        _settle(job, given, place, k, 0, job.n, t, out, scale, flags)


@inline
def _four_decays(
    job: Job, given: Given, place: Place, k: int, t: int, out: Any, flags: Flags
) -> None:
    """Those of tiles k to k + 3, a live range a channel: one scale need not wait for another."""
    numbers, kind, none = given.decay_numbers, job.decay.scales, unseen(flags)
    r0 = _observe(job, given, place, k, 0, job.n, t, out, none, flags)
    r1 = _observe(job, given, place, k + 1, 0, job.n, t, out, none, flags)
    r2 = _observe(job, given, place, k + 2, 0, job.n, t, out, none, flags)
    r3 = _observe(job, given, place, k + 3, 0, job.n, t, out, none, flags)
    s0, s1 = live_scale(r0, numbers, kind, flags), live_scale(r1, numbers, kind, flags)
    s2, s3 = live_scale(r2, numbers, kind, flags), live_scale(r3, numbers, kind, flags)
    _settle(job, given, place, k, 0, job.n, t, out, s0, flags)
    _settle(job, given, place, k + 1, 0, job.n, t, out, s1, flags)
    _settle(job, given, place, k + 2, 0, job.n, t, out, s2, flags)
    _settle(job, given, place, k + 3, 0, job.n, t, out, s3, flags)


@inline
def unit_decays(job: Job, given: Given, place: Place, t: int, out: Any, flags: Flags) -> None:
    """Those of all tiles of a unit."""
    if flags.span != TENSOR:
        k = place.k0
        if flags.span == GROUP and job.decay.group >= job.n:
            for _ in range((place.k1 - place.k0) // 4):
                _four_decays(job, given, place, k, t, out, flags)
                k += 4
        for k1 in range(k, place.k1):
            _tile_decays(job, given, place, k1, t, out, flags)
        return
    seen = unseen(flags)
    for k in range(place.k0, place.k1):
        seen = _observe(job, given, place, k, 0, job.n, t, out, seen, flags)
    scale = shared_scale(seen, given.decay_numbers, job.decay, flags)
    for k in range(place.k0, place.k1):
        _settle(job, given, place, k, 0, job.n, t, out, scale, flags)
