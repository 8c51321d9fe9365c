"""Scales and noise for rounding the numbers of a tile."""

from __future__ import annotations

from typing import Any

import numpy as np

from sensprobe_kernels.jit import inline
from sensprobe_kernels.ops.selective_scan.job import Given, Job, Place
from sensprobe_kernels.quantize.lanes import Scale, noise_pair, scale_from
from sensprobe_kernels.quantize.rounding import STOCHASTIC
from sensprobe_kernels.quantize.scales import Range, across, dynamic_scale
from sensprobe_kernels.quantize.spec import STATIC_EACH, Flags, Settings
from sensprobe_kernels.simd.vector import (
    LANES,
    Floats,
    every,
    every_int,
    load,
    places,
    smaller,
)

_MINUS_ZERO = np.float32(-0.0)


@inline
def empty_sum() -> Floats:
    """The empty sum: -0, because -0 + x is x for zeros of either sign too."""
    return every(_MINUS_ZERO)


@inline
def no_scale() -> Scale:
    """A Scale for numbers that have none."""
    none = empty_sum()
    return Scale(none, none, none, none, none, none)


@inline
def known_scale(known: Any, job: Job, k: int, i: int, flags: Flags) -> Scale:
    """The calibrated Scale of number i along n of tile k; under STATIC a tile has one."""
    row = k * job.n + i if flags.span == STATIC_EACH else k
    field = (job.tiles * job.n if flags.span == STATIC_EACH else job.tiles) * LANES
    at = row * LANES
    return scale_from(
        load(known, at),
        load(known, at + field),
        load(known, at + 2 * field),
        load(known, at + 3 * field),
        load(known, at + 4 * field),
        flags,
    )


@inline
def shared_scale(seen: Range, numbers: Any, settings: Settings, flags: Flags) -> Scale:
    """The dynamic Scale of a range that spans all lanes."""
    return dynamic_scale(across(seen), numbers, settings.scales, flags)


@inline
def noise(
    job: Job, given: Given, settings: Settings, place: Place, k: int, i: int, t: int, flags: Flags
) -> Floats:
    """Uniform noise for number i along n of tile k, if it is rounded at random.

    Lanes that repeat the last channel repeat its noise.
    """
    if flags.rounding != STOCHASTIC:
        return empty_sum()
    head = given.head_of[k]
    inside = (k - head * job.head) * LANES
    lane = smaller(places(), every_int(job.channels - 1 - inside))
    row = every_int(head * job.channels + inside) + lane
    sequence, step = every_int(job.first + place.b), every_int(job.step + t)
    return noise_pair(every_int(i), row, sequence, step, settings.key0, settings.key1)[0]
