"""One step of a few sequences, one after the other: sixteen numbers of a sequence at a time.

Real and imaginary numbers lie in turn. With the coefficients A_re, A_re, … and -A_im, A_im, … the
product of complex numbers is

    A h = along · h + across · (h with each number in the place of its neighbour)

whose two parts are the reference's differences and sums to the bit. Dynamic scales of all
these sequences are made at once, a sequence a place of a vector.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from sensprobe_kernels.jit import inline
from sensprobe_kernels.packing.tensor import by_turns
from sensprobe_kernels.quantize.lanes import (
    Scale,
    clamp,
    kept,
    noise_pair,
    residual_of,
    scale_from,
)
from sensprobe_kernels.quantize.rounding import STOCHASTIC
from sensprobe_kernels.quantize.scales import Range, across, dynamic_scale, finite, unseen, widen
from sensprobe_kernels.quantize.spec import CLIP, GROUP, SHIFTED, TENSOR, Flags, Settings, safe
from sensprobe_kernels.quantize.turns import range_of
from sensprobe_kernels.simd.vector import (
    LANES,
    Floats,
    bits,
    every,
    every_int,
    first_in_turn,
    from_bits,
    last_in_turn,
    load,
    load_first,
    negative,
    neighbours,
    places,
    spread,
    store,
    store_first,
)

_ZERO = np.float32(0.0)


class Job(NamedTuple):
    """Sizes and integers of one call: not specialised on."""

    length: int
    heads: int
    n: int
    step: int  # steps taken before
    first: int  # position of the batch's first sequence in its data set
    state: Settings


class Tile(NamedTuple):
    """The work of one thread: up to sixteen sequences, b0 to b1.

    A row has `pitch` numbers: the 2 heads n of a state, and room for sixteen more.
    """

    job: Job
    b0: int
    b1: int
    pitch: int
    along: Any  # a row: the real part of A, twice
    across: Any  # a row: -A_im and A_im in turn
    known: Any  # five rows: calibrated scales, as `Spec.known`
    numbers: Any  # the scheme's constants
    state: Any  # a row for every sequence
    residual: Any  # the same, under error feedback
    noise: Any  # the same, of stochastic rounding
    ranges: Any  # (2, 2, 32): keys of the range of each sequence, of both or of each part
    scales: Any  # (2, 6, 16): the scale of each sequence, of both or of each part


@inline
def row(tile: Tile, b: int) -> int:
    """Where the row of sequence b begins."""
    return (b - tile.b0) * tile.pitch


@inline
def _at(tile: Tile, b: int, t: int) -> int:
    """Where step t of sequence b begins in v and in the states."""
    return (b * tile.job.length + t) * 2 * tile.job.heads * tile.job.n


@inline
def line(x: Any, at: int, left: int) -> Floats:
    """Sixteen numbers; zeros for those beyond `left`."""
    if left >= LANES:
        return load(x, at)
    return load_first(x, at, left, every(_ZERO))


@inline
def put(x: Any, at: int, left: int, value: Floats) -> None:
    """Write the first `left` of sixteen numbers."""
    if left >= LANES:
        store(x, at, value)
    else:
        store_first(x, at, left, value)


@inline
def _advanced(tile: Tile, i: int, left: int, here: int, v: Any, at: int, flags: Flags) -> Floats:
    """A h + v of the numbers from i on, with the residual added, clamped: what is to be rounded."""
    h = load(tile.state, here + i)
    moved = load(tile.along, i) * h + load(tile.across, i) * neighbours(h)
    x = moved + line(v, at + i, left)
    if flags.feedback:
        x = x + load(tile.residual, here + i)
    if flags.clip:
        high = spread(tile.numbers, CLIP)
        x = clamp(x, negative(high), high)
    return x


@inline
def _round(
    tile: Tile, i: int, left: int, x: Floats, scale: Scale, here: int, v: Any, at: int,
    flags: Flags,
) -> None:  # fmt: skip
    """Store numbers from i on as the scheme leaves them, and their residuals."""
    noise = load(tile.noise, here + i) if flags.rounding == STOCHASTIC else every(_ZERO)
    back = kept(x, scale, noise, tile.numbers, flags)
    put(tile.state, here + i, left, back)
    put(v, at + i, left, back)
    if flags.feedback:
        put(tile.residual, here + i, left, residual_of(x, back, scale, flags))


@inline
def _draw(tile: Tile, b: int, t: int) -> None:
    """Draw a uniform number for every number of the state of a sequence."""
    job, keys = tile.job, tile.job.state
    sequence, step = every_int(job.first + b), every_int(job.step + t)
    for head in range(job.heads):
        for n in range(0, job.n, LANES):
            at, left = row(tile, b) + 2 * (head * job.n + n), 2 * (job.n - n)
            count = every_int(n) + places()
            re, im = noise_pair(count, every_int(head), sequence, step, keys.key0, keys.key1)
            put(tile.noise, at, left, first_in_turn(re, im))
            if left > LANES:
                put(tile.noise, at + LANES, left - LANES, last_in_turn(re, im))


@inline
def exact_step(tile: Tile, t: int, v: Any, plain: Flags) -> None:
    """A step after which nothing is rounded."""
    count = 2 * tile.job.heads * tile.job.n
    whole = count - count % LANES
    for b in range(tile.b0, tile.b1):
        here, at = row(tile, b), _at(tile, b, t)
        for i in range(0, whole, LANES):
            x = _advanced(tile, i, LANES, here, v, at, plain)
            store(tile.state, here + i, x)
            store(v, at + i, x)
        if whole < count:
            x = _advanced(tile, whole, count - whole, here, v, at, plain)
            put(tile.state, here + whole, count - whole, x)
            put(v, at + whole, count - whole, x)


@inline
def _static(tile: Tile, i: int, left: int, here: int, v: Any, at: int, flags: Flags) -> None:
    known, size = tile.known, tile.pitch
    x = _advanced(tile, i, left, here, v, at, flags)
    scale = scale_from(
        load(known, i), load(known, size + i), load(known, 2 * size + i),
        load(known, 3 * size + i), load(known, 4 * size + i), flags,
    )  # fmt: skip
    _round(tile, i, left, x, scale, here, v, at, flags)


@inline
def _static_step(tile: Tile, t: int, v: Any, flags: Flags) -> None:
    """A step whose states are rounded by calibrated scales."""
    count = 2 * tile.job.heads * tile.job.n
    whole = count - count % LANES
    for b in range(tile.b0, tile.b1):
        here, at = row(tile, b), _at(tile, b, t)
        for i in range(0, whole, LANES):
            _static(tile, i, LANES, here, v, at, flags)
        if whole < count:
            _static(tile, whole, count - whole, here, v, at, flags)


# -- dynamic scales -------------------------------------------------------------------------------


@inline
def _watch(tile: Tile, i0: int, i1: int, b: int, v: Any, at: int, flags: Flags) -> Range:
    """Advance numbers i0 to i1 of sequence b without rounding; returns their range."""
    seen, whole, here = unseen(flags), i1 - (i1 - i0) % LANES, row(tile, b)
    for i in range(i0, whole, LANES):
        x = _advanced(tile, i, LANES, here, v, at, flags)
        store(tile.state, here + i, x)
        seen = widen(seen, x, flags)
    if whole < i1:
        x = _advanced(tile, whole, i1 - whole, here, v, at, flags)
        put(tile.state, here + whole, i1 - whole, x)
        again = by_turns(tile.state[here + i0], tile.state[here + i0 + 1])
        seen = widen(seen, load_first(tile.state, here + whole, i1 - whole, again), flags)
    return seen


@inline
def _note(tile: Tile, k: int, seen: Range, flags: Flags) -> None:
    """Keep the range of sequence k of the tile, of all its numbers or of each part's. Its places
    are written over by the sequences that follow."""
    for part in range(tile.job.state.parts + 1):
        found = range_of(seen, part, flags) if tile.job.state.parts else across(seen)
        at = 4 * part * LANES + k
        store(tile.ranges, at, from_bits(found.low))
        store(tile.ranges, at + 2 * LANES, from_bits(found.high))


@inline
def _noted(tile: Tile, part: int) -> Range:
    """The ranges of all sequences."""
    at = 4 * part * LANES
    return Range(bits(load(tile.ranges, at)), bits(load(tile.ranges, at + 2 * LANES)))


@inline
def _make_scales(tile: Tile, flags: Flags) -> None:
    """The scales of all sequences."""
    kind = tile.job.state
    for part in range(kind.parts + 1):
        scale = dynamic_scale(_noted(tile, part), tile.numbers, kind.scales, flags)
        at = 6 * part * LANES
        store(tile.scales, at, scale.scale)
        store(tile.scales, at + LANES, scale.inverse)
        store(tile.scales, at + 2 * LANES, scale.rest)
        store(tile.scales, at + 3 * LANES, scale.low)
        store(tile.scales, at + 4 * LANES, scale.high)
        store(tile.scales, at + 5 * LANES, scale.shift)


@inline
def _made(tile: Tile, k: int) -> Scale:
    """The scale of sequence k, in turn that of real and of imaginary numbers."""
    x, at = tile.scales, k
    if tile.job.state.parts:
        other = 6 * LANES + k
        return Scale(
            by_turns(x[at], x[other]), by_turns(x[at + LANES], x[other + LANES]),
            by_turns(x[at + 2 * LANES], x[other + 2 * LANES]),
            by_turns(x[at + 3 * LANES], x[other + 3 * LANES]),
            by_turns(x[at + 4 * LANES], x[other + 4 * LANES]),
            by_turns(x[at + 5 * LANES], x[other + 5 * LANES]),
        )  # fmt: skip
    return Scale(
        spread(x, at), spread(x, at + LANES), spread(x, at + 2 * LANES),
        spread(x, at + 3 * LANES), spread(x, at + 4 * LANES), spread(x, at + 5 * LANES),
    )  # fmt: skip


@inline
def _round_run(tile: Tile, i0: int, i1: int, k: int, v: Any, at: int, flags: Flags) -> None:
    """Round numbers i0 to i1 of sequence k of the tile by its scale."""
    scale, here = _made(tile, k), k * tile.pitch
    whole = i1 - (i1 - i0) % LANES
    for i in range(i0, whole, LANES):
        _round(tile, i, LANES, load(tile.state, here + i), scale, here, v, at, flags)
    if whole < i1:
        x = load(tile.state, here + whole)
        _round(tile, whole, i1 - whole, x, scale, here, v, at, flags)


@inline
def _run_step(tile: Tile, i0: int, i1: int, t: int, v: Any, flags: Flags) -> None:
    """Numbers i0 to i1 of every sequence, which share a dynamic scale, or one of each part."""
    for b in range(tile.b0, tile.b1):
        _note(tile, b - tile.b0, _watch(tile, i0, i1, b, v, _at(tile, b, t), flags), flags)
    if flags.quotient != SHIFTED or (
        finite(_noted(tile, 0), flags) and finite(_noted(tile, tile.job.state.parts), flags)
    ):
        _make_scales(tile, flags)
        for b in range(tile.b0, tile.b1):
            _round_run(tile, i0, i1, b - tile.b0, v, _at(tile, b, t), flags)
    else:
        _make_scales(tile, safe(flags))
        for b in range(tile.b0, tile.b1):
            _round_run(tile, i0, i1, b - tile.b0, v, _at(tile, b, t), safe(flags))


@inline
def rounded_step(tile: Tile, t: int, v: Any, flags: Flags) -> None:
    """A step after which the state is rounded."""
    if flags.rounding == STOCHASTIC:
        for b in range(tile.b0, tile.b1):
            _draw(tile, b, t)
    heads, n, group = tile.job.heads, tile.job.n, tile.job.state.group
    if flags.span == GROUP:
        for head in range(heads):
            for k in range(0, n, group):
                i0, i1 = 2 * (head * n + k), 2 * (head * n + min(k + group, n))
                _run_step(tile, i0, i1, t, v, flags)
    elif flags.span == TENSOR:
        _run_step(tile, 0, 2 * heads * n, t, v, flags)
    else:
        _static_step(tile, t, v, flags)
