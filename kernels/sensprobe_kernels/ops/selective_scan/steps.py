"""One step of a tile or of four: sixteen channels each, the sum over n from n = 0 upward.

A sum waits for each of its terms: four tiles go side by side, so that there is always a sum that
need not wait.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from sensprobe_kernels.jit import inline
from sensprobe_kernels.ops.selective_scan.job import Given, Job, Place
from sensprobe_kernels.ops.selective_scan.numbers import empty_sum, known_scale, no_scale, noise
from sensprobe_kernels.quantize.lanes import Scale, clamp, kept, residual_of
from sensprobe_kernels.quantize.scales import Range, dynamic_scale, unseen, widen
from sensprobe_kernels.quantize.spec import CLIP, STATIC, STATIC_EACH, Flags
from sensprobe_kernels.simd.vector import LANES, Floats, load, negative, spread, store


class Index(NamedTuple):
    """Positions of a tile's numbers at one step, in the arrays of `Given`."""

    k: int  # the tile
    t: int
    row: int  # in B and C
    state: int
    value: int  # in x and y
    decay: int  # in the unit's scratch; in the array of those given, and in a head's dt


@inline
def index(job: Job, given: Given, place: Place, k: int, t: int, head: bool) -> Index:
    """The Index of tile k at step t."""
    step = place.b * job.length + t
    decay = (k - place.k0) * job.n * LANES
    if head:
        decay = step * job.heads + given.head_of[k]
    return Index(
        k,
        t,
        (step * job.groups + given.row_of[k]) * job.n,
        (place.b * job.tiles + k) * job.n * LANES,
        (step * job.tiles + k) * LANES,
        decay,
    )


@inline
def drive(given: Given, at: Index, head: bool) -> Floats:
    """dt · x of a tile."""
    dt = spread(given.dt, at.decay) if head else load(given.dt, at.value)
    return dt * load(given.x, at.value)


@inline
def _advanced(
    given: Given, at: Index, i: int, decays: Any, driven: Floats, head: bool, flags: Flags
) -> Floats:
    """a h + (dt x) B with the residual added, clamped: the number to be rounded."""
    place = at.state + i * LANES
    a = spread(given.decay, at.decay) if head else load(decays, at.decay + i * LANES)
    v = a * load(given.state, place) + driven * spread(given.B, at.row + i)
    if flags.feedback:
        v = v + load(given.residual, place)
    if flags.clip:
        high = spread(given.state_numbers, CLIP)
        v = clamp(v, negative(high), high)
    return v


@inline
def _put(
    job: Job, given: Given, place: Place, at: Index, i: int, v: Floats, scale: Scale, flags: Flags
) -> Floats:
    """Store v; returns the term of y that reads the stored number."""
    z = noise(job, given, job.state, place, at.k, i, at.t, flags)
    back = kept(v, scale, z, given.state_numbers, flags)
    store(given.state, at.state + i * LANES, back)
    if flags.feedback:
        store(given.residual, at.state + i * LANES, residual_of(v, back, scale, flags))
    return spread(given.C, at.row + i) * back


# -- exact, or rounded by scales known before -----------------------------------------------------


@inline
def _scale(job: Job, given: Given, at: Index, i: int, flags: Flags) -> Scale:
    if flags.span == STATIC or flags.span == STATIC_EACH:
        return known_scale(given.state_known, job, at.k, i, flags)
    return no_scale()


@inline
def _term(
    job: Job, given: Given, place: Place, at: Index, i: int, decays: Any, driven: Floats,
    scale: Scale, head: bool, flags: Flags,
) -> Floats:  # fmt: skip
    """Advance and store state i; returns its term of y."""
    v = _advanced(given, at, i, decays, driven, head, flags)
    if flags.span == STATIC_EACH:
        scale = _scale(job, given, at, i, flags)
    return _put(job, given, place, at, i, v, scale, flags)


@inline
def tile_step(
    job: Job, given: Given, place: Place, k: int, t: int, decays: Any, head: bool, flags: Flags
) -> None:
    at, total = index(job, given, place, k, t, head), empty_sum()
    driven, scale = drive(given, at, head), _scale(job, given, at, 0, flags)
    for i in range(job.n):
        total = total + _term(job, given, place, at, i, decays, driven, scale, head, flags)
    store(given.y, at.value, total)


@inline
def four_step(
    job: Job, given: Given, place: Place, k: int, t: int, decays: Any, head: bool, flags: Flags
) -> None:
    """One step of tiles k to k + 3."""
    p0, p1 = index(job, given, place, k, t, head), index(job, given, place, k + 1, t, head)
    p2, p3 = index(job, given, place, k + 2, t, head), index(job, given, place, k + 3, t, head)
    u0, u1 = drive(given, p0, head), drive(given, p1, head)
    u2, u3 = drive(given, p2, head), drive(given, p3, head)
    s0, s1 = _scale(job, given, p0, 0, flags), _scale(job, given, p1, 0, flags)
    s2, s3 = _scale(job, given, p2, 0, flags), _scale(job, given, p3, 0, flags)
    y0, y1, y2, y3 = empty_sum(), empty_sum(), empty_sum(), empty_sum()
    for i in range(job.n):
        y0 = y0 + _term(job, given, place, p0, i, decays, u0, s0, head, flags)
        y1 = y1 + _term(job, given, place, p1, i, decays, u1, s1, head, flags)
        y2 = y2 + _term(job, given, place, p2, i, decays, u2, s2, head, flags)
        y3 = y3 + _term(job, given, place, p3, i, decays, u3, s3, head, flags)
    store(given.y, p0.value, y0)
    store(given.y, p1.value, y1)
    store(given.y, p2.value, y2)
    store(given.y, p3.value, y3)


# -- rounded by dynamic scales --------------------------------------------------------------------


@inline
def observe(
    job: Job, given: Given, at: Index, i0: int, i1: int, decays: Any, head: bool, seen: Range,
    flags: Flags,
) -> Range:  # fmt: skip
    """Advance states i0 to i1 without rounding them; returns the range with theirs added."""
    driven = drive(given, at, head)
    for i in range(i0, i1):
        v = _advanced(given, at, i, decays, driven, head, flags)
        store(given.state, at.state + i * LANES, v)
        seen = widen(seen, v, flags)
    return seen


@inline
def store_states(
    job: Job, given: Given, place: Place, at: Index, i0: int, i1: int, scale: Scale, total: Floats,
    flags: Flags,
) -> Floats:  # fmt: skip
    """Round and store states i0 to i1, which `observe` advanced; returns the sum with theirs."""
    for i in range(i0, i1):
        v = load(given.state, at.state + i * LANES)
        total = total + _put(job, given, place, at, i, v, scale, flags)
    return total


@inline
def four_group_step(
    job: Job, given: Given, place: Place, k: int, t: int, decays: Any, head: bool, flags: Flags
) -> None:
    """One step of tiles k to k + 3, a dynamic scale a channel."""
    p0, p1 = index(job, given, place, k, t, head), index(job, given, place, k + 1, t, head)
    p2, p3 = index(job, given, place, k + 2, t, head), index(job, given, place, k + 3, t, head)
    none, numbers, kind = unseen(flags), given.state_numbers, job.state.scales
    r0 = observe(job, given, p0, 0, job.n, decays, head, none, flags)
    r1 = observe(job, given, p1, 0, job.n, decays, head, none, flags)
    r2 = observe(job, given, p2, 0, job.n, decays, head, none, flags)
    r3 = observe(job, given, p3, 0, job.n, decays, head, none, flags)
    s0, s1 = dynamic_scale(r0, numbers, kind, flags), dynamic_scale(r1, numbers, kind, flags)
    s2, s3 = dynamic_scale(r2, numbers, kind, flags), dynamic_scale(r3, numbers, kind, flags)
    y0, y1, y2, y3 = empty_sum(), empty_sum(), empty_sum(), empty_sum()
    for i in range(job.n):
        y0 = store_states(job, given, place, p0, i, i + 1, s0, y0, flags)
        y1 = store_states(job, given, place, p1, i, i + 1, s1, y1, flags)
        y2 = store_states(job, given, place, p2, i, i + 1, s2, y2, flags)
        y3 = store_states(job, given, place, p3, i, i + 1, s3, y3, flags)
    store(given.y, p0.value, y0)
    store(given.y, p1.value, y1)
    store(given.y, p2.value, y2)
    store(given.y, p3.value, y3)


@inline
def group_step(
    job: Job, given: Given, place: Place, k: int, t: int, decays: Any, head: bool, flags: Flags
) -> None:
    """One step of a tile, a dynamic scale for every group of states along n."""
    at, total = index(job, given, place, k, t, head), empty_sum()
    for i0 in range(0, job.n, job.state.group):
        i1 = min(i0 + job.state.group, job.n)
        seen = observe(job, given, at, i0, i1, decays, head, unseen(flags), flags)
        scale = dynamic_scale(seen, given.state_numbers, job.state.scales, flags)
        total = store_states(job, given, place, at, i0, i1, scale, total, flags)
    store(given.y, at.value, total)
