"""The decays of one step, exp(dt A), rounded as the recurrence reads them.

They lie in a scratch of (tiles of the unit, n, 16) numbers that stays in the cache.
"""

from __future__ import annotations

from typing import Any

from sensprobe_kernels.jit import inline
from sensprobe_kernels.ops.selective_scan.exponential import (
    Eight,
    Four,
    exponential,
    exponentials,
)
from sensprobe_kernels.ops.selective_scan.job import Given, Job, Place
from sensprobe_kernels.ops.selective_scan.numbers import (
    known_scale,
    noise,
    shared_scale,
)
from sensprobe_kernels.quantize.lanes import Scale, kept
from sensprobe_kernels.quantize.scales import Range, dynamic_scale, unseen, widen
from sensprobe_kernels.quantize.spec import EXACT, GROUP, STATIC, STATIC_EACH, TENSOR, Flags
from sensprobe_kernels.simd.vector import LANES, Floats, load, store


@inline
def _four(dt: Floats, given: Given, A: int, left: int) -> Four:
    """dt A of four states, the last of those left again and again where there are fewer."""
    return Four(
        dt * load(given.A, A),
        dt * load(given.A, A + min(1, left) * LANES),
        dt * load(given.A, A + min(2, left) * LANES),
        dt * load(given.A, A + min(3, left) * LANES),
    )


@inline
def _put(four: Four, out: Any, at: int, left: int) -> None:
    store(out, at, four.a)
    store(out, at + min(1, left) * LANES, four.b)
    store(out, at + min(2, left) * LANES, four.c)
    store(out, at + min(3, left) * LANES, four.d)


@inline
def _eight(dt: Floats, given: Given, A: int, out: Any, at: int, left: int) -> None:
    """Exact decays of five to eight states: of the second four, `left` follow the first."""
    high = 4 * LANES
    found = exponentials(Eight(_four(dt, given, A, 3), _four(dt, given, A + high, left)))
    _put(found.low, out, at, 3)
    _put(found.high, out, at + high, left)


@inline
def _exact(
    job: Job, given: Given, place: Place, k: int, i0: int, i1: int, t: int, out: Any
) -> None:
    """Exact decays i0 to i1 of tile k."""
    dt = load(given.dt, ((place.b * job.length + t) * job.tiles + k) * LANES)
    A, at = (k * job.n + i0) * LANES, ((k - place.k0) * job.n + i0) * LANES
    for _ in range((i1 - i0) // 8):
        _eight(dt, given, A, out, at, 3)
        A, at = A + 8 * LANES, at + 8 * LANES
    rest = (i1 - i0) % 8
    if rest > 4:
        _eight(dt, given, A, out, at, rest - 5)
    elif rest > 2:
        four = _four(dt, given, A, rest - 1)
        _put(exponentials(Eight(four, four)).low, out, at, rest - 1)
    else:
        for i in range(0, rest * LANES, LANES):
            store(out, at + i, exponential(dt * load(given.A, A + i)))


@inline
def _exact_tiles(job: Job, given: Given, place: Place, k0: int, k1: int, t: int, out: Any) -> None:
    """Exact decays of tiles k0 to k1, all in one loop where each takes whole eights."""
    if job.n % 8:
        for k in range(k0, k1):
            _exact(job, given, place, k, 0, job.n, t, out)
        return
    line = ((place.b * job.length + t) * job.tiles + k0) * LANES
    A, at = k0 * job.n * LANES, (k0 - place.k0) * job.n * LANES
    dt, done = load(given.dt, line), 0
    for _ in range((k1 - k0) * job.n // 8):
        if done == job.n:
            done, line = 0, line + LANES
            dt = load(given.dt, line)
        _eight(dt, given, A, out, at, 3)
        A, at, done = A + 8 * LANES, at + 8 * LANES, done + 8


@inline
def _widened(
    job: Job, place: Place, k: int, i0: int, i1: int, out: Any, seen: Range, flags: Flags
) -> Range:
    """The range of what was seen and decays i0 to i1 of tile k."""
    for i in range(i0, i1):
        seen = widen(seen, load(out, ((k - place.k0) * job.n + i) * LANES), flags)
    return seen


@inline
def _observe(
    job: Job, given: Given, place: Place, k: int, i0: int, i1: int, t: int, out: Any, seen: Range,
    flags: Flags,
) -> Range:  # fmt: skip
    """Exact decays i0 to i1 of tile k; the range of what was seen and them."""
    _exact(job, given, place, k, i0, i1, t, out)
    return _widened(job, place, k, i0, i1, out, seen, flags)


@inline
def _round(
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
    """The decays of one tile that shares no scale with others."""
    if flags.span == GROUP:
        for i0 in range(0, job.n, job.decay.group):
            i1 = min(i0 + job.decay.group, job.n)
            seen = _observe(job, given, place, k, i0, i1, t, out, unseen(flags), flags)
            scale = dynamic_scale(seen, given.decay_numbers, job.decay.scales, flags)
            _round(job, given, place, k, i0, i1, t, out, scale, flags)
    elif flags.span == STATIC or flags.span == STATIC_EACH:
        scale = known_scale(given.decay_known, job, k, 0, flags)
        _exact(job, given, place, k, 0, job.n, t, out)
        _round(job, given, place, k, 0, job.n, t, out, scale, flags)


@inline
def _four_decays(
    job: Job, given: Given, place: Place, k: int, t: int, out: Any, flags: Flags
) -> None:
    """The decays of tiles k to k + 3, a dynamic scale a channel, computed side by side so that no
    scale waits for another."""
    numbers, kind, none = given.decay_numbers, job.decay.scales, unseen(flags)
    _exact_tiles(job, given, place, k, k + 4, t, out)
    r0 = _widened(job, place, k, 0, job.n, out, none, flags)
    r1 = _widened(job, place, k + 1, 0, job.n, out, none, flags)
    r2 = _widened(job, place, k + 2, 0, job.n, out, none, flags)
    r3 = _widened(job, place, k + 3, 0, job.n, out, none, flags)
    s0, s1 = dynamic_scale(r0, numbers, kind, flags), dynamic_scale(r1, numbers, kind, flags)
    s2, s3 = dynamic_scale(r2, numbers, kind, flags), dynamic_scale(r3, numbers, kind, flags)
    _round(job, given, place, k, 0, job.n, t, out, s0, flags)
    _round(job, given, place, k + 1, 0, job.n, t, out, s1, flags)
    _round(job, given, place, k + 2, 0, job.n, t, out, s2, flags)
    _round(job, given, place, k + 3, 0, job.n, t, out, s3, flags)


@inline
def unit_decays(job: Job, given: Given, place: Place, t: int, out: Any, flags: Flags) -> None:
    """The decays of all tiles of a unit."""
    if flags.span == EXACT:
        _exact_tiles(job, given, place, place.k0, place.k1, t, out)
        return
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
        _round(job, given, place, k, 0, job.n, t, out, scale, flags)
