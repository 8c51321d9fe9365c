"""One step of one head: sixteen sequences, the sum over n from n = 0 upward.

Arrays are flat. Place p is that of a complex state in the tile, c that of its coefficients.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from sensprobe_kernels.jit import inline
from sensprobe_kernels.ops.diagonal_scan.job import Tile
from sensprobe_kernels.quantize.lanes import (
    Scale,
    clamp,
    kept,
    noise_pair,
    residual_of,
    scale_from,
)
from sensprobe_kernels.quantize.rounding import STOCHASTIC
from sensprobe_kernels.quantize.scales import Range, dynamic_scale, finite, union, unseen, widen
from sensprobe_kernels.quantize.spec import CLIP, GROUP, SHIFTED, STATIC_EACH, Flags, exactly, safe
from sensprobe_kernels.simd.vector import (
    LANES,
    Floats,
    Ints,
    bits,
    choose,
    every,
    every_int,
    from_bits,
    less,
    load,
    negative,
    number,
    places,
    shift_left,
    shift_right,
    spread,
    store,
)

PAIR = 2 * LANES

# Places in the coefficients of one complex state after those of `Row`; those of the imaginary
# scale are one further.
SCALE, INVERSE, REST, LOW, HIGH = range(6, 16, 2)
ROW = 16

_MINUS_ZERO, _ZERO = np.float32(-0.0), np.float32(0.0)


@inline
def empty_sum() -> Floats:
    """The empty sum: -0, because -0 + x is x for zeros of either sign too."""
    return every(_MINUS_ZERO)


# -- one complex state ----------------------------------------------------------------------------


class ComplexState(NamedTuple):
    """A complex state and, under error feedback, its residual."""

    re: Floats
    im: Floats
    re_residual: Floats
    im_residual: Floats


@inline
def load_state(tile: Tile, p: int, flags: Flags) -> ComplexState:
    """The state at place p."""
    re, im = load(tile.state, p), load(tile.state, p + LANES)
    if flags.feedback:
        return ComplexState(re, im, load(tile.residual, p), load(tile.residual, p + LANES))
    return ComplexState(re, im, empty_sum(), empty_sum())


@inline
def store_state(tile: Tile, p: int, held: ComplexState, flags: Flags) -> None:
    store(tile.state, p, held.re)
    store(tile.state, p + LANES, held.im)
    if flags.feedback:
        store(tile.residual, p, held.re_residual)
        store(tile.residual, p + LANES, held.im_residual)


class Row(NamedTuple):
    """A complex state's coefficients."""

    a_re: Floats
    a_im: Floats
    b_re: Floats
    b_im: Floats
    c_re: Floats
    c_im: Floats


@inline
def row(tile: Tile, c: int) -> Row:
    return Row(
        spread(tile.coef, c),
        spread(tile.coef, c + 1),
        spread(tile.coef, c + 2),
        spread(tile.coef, c + 3),
        spread(tile.coef, c + 4),
        spread(tile.coef, c + 5),
    )


@inline
def advanced(
    tile: Tile, row: Row, held: ComplexState, drive: Floats, flags: Flags
) -> tuple[Floats, Floats]:
    """A h + B u with the residual added, clamped: the numbers to be rounded."""
    re = (row.a_re * held.re - row.a_im * held.im) + row.b_re * drive
    im = (row.a_re * held.im + row.a_im * held.re) + row.b_im * drive
    if flags.feedback:
        re, im = re + held.re_residual, im + held.im_residual
    if flags.clip:
        high = spread(tile.numbers, CLIP)
        re, im = clamp(re, negative(high), high), clamp(im, negative(high), high)
    return re, im


@inline
def term(row: Row, held: ComplexState) -> Floats:
    """The real part of C h."""
    return row.c_re * held.re - row.c_im * held.im


@inline
def noise_at(tile: Tile, n: int, h: int, t: int, flags: Flags) -> tuple[Floats, Floats]:
    """Uniform noise of one complex state at one step, if it is rounded at random."""
    if flags.rounding == STOCHASTIC:
        job, keys = tile.job, tile.job.state
        sequence = every_int(job.first + tile.b0) + places()
        step = every_int(job.step + t)
        return noise_pair(every_int(n), every_int(h), sequence, step, keys.key0, keys.key1)
    return empty_sum(), empty_sum()


class Scales(NamedTuple):
    re: Scale
    im: Scale


# What random bits decided, for the gradient, which computes states once more: two bits for every
# complex state, one for each part that was rounded up; sixteen states to a word of 32.
IN_A_WORD = 16
_LAST = np.float32(1 - 2.0**-24)


@inline
def draws_place(tile: Tile, h: int, n: int, t: int) -> int:
    """The place in `draws` of state n of head h at step t."""
    words = -(-tile.job.n // IN_A_WORD)
    return (((h - tile.h0) * tile.job.length + t) * words + n // IN_A_WORD) * LANES


@inline
def _raised(x: Floats, scale: Scale, back: Floats, tile: Tile, flags: Flags) -> Ints:
    """1 where x was rounded up, so that `back`, as it was stored, is above what zero noise gives;
    else 0."""
    one, none = from_bits(every_int(1)), from_bits(every_int(0))
    floor = kept(x, scale, every(_ZERO), tile.numbers, flags)
    return bits(choose(less(floor, back), one, none))


@inline
def save_draws(
    tile: Tile, n: int, h: int, t: int, re: Floats, im: Floats, held: ComplexState, s: Scales,
    flags: Flags,
) -> None:  # fmt: skip
    """Keep what the noise of state n decided, where that is asked for."""
    if flags.rounding == STOCHASTIC and tile.draws.size:
        at, bit = draws_place(tile, h, n, t), 2 * (n % IN_A_WORD)
        up = shift_left(_raised(re, s.re, held.re, tile, flags), every_int(bit))
        up = up | shift_left(_raised(im, s.im, held.im, tile, flags), every_int(bit + 1))
        if bit:
            up = up | bits(load(tile.draws, at))
        store(tile.draws, at, from_bits(up))


@inline
def drawn_at(tile: Tile, n: int, h: int, t: int, flags: Flags) -> tuple[Floats, Floats]:
    """Noise with which a state is rounded as it was: the largest there is where it was rounded up,
    none elsewhere."""
    if flags.rounding == STOCHASTIC:
        one, last, bit = every_int(1), every(_LAST), 2 * (n % IN_A_WORD)
        up = bits(load(tile.draws, draws_place(tile, h, n, t)))
        re, im = shift_right(up, every_int(bit)) & one, shift_right(up, every_int(bit + 1)) & one
        return number(re) * last, number(im) * last
    return empty_sum(), empty_sum()


@inline
def _row_scale(tile: Tile, c: int, flags: Flags) -> Scale:
    return scale_from(
        spread(tile.coef, c + SCALE),
        spread(tile.coef, c + INVERSE),
        spread(tile.coef, c + REST),
        spread(tile.coef, c + LOW),
        spread(tile.coef, c + HIGH),
        flags,
    )


@inline
def known_scales(tile: Tile, h: int, n: int, flags: Flags) -> Scales:
    """The calibrated scales of one state, from its row of coefficients; under STATIC those of the
    head's first row."""
    c = (h * tile.job.n + (n if flags.span == STATIC_EACH else 0)) * ROW
    return Scales(_row_scale(tile, c, flags), _row_scale(tile, c + 1, flags))


@inline
def rounded(
    tile: Tile,
    re: Floats,
    im: Floats,
    noise: tuple[Floats, Floats],
    re_scale: Scale,
    im_scale: Scale,
    flags: Flags,
) -> ComplexState:
    """A state as it is read back after it was stored, and its residual."""
    re_back = kept(re, re_scale, noise[0], tile.numbers, flags)
    im_back = kept(im, im_scale, noise[1], tile.numbers, flags)
    if flags.feedback:
        return ComplexState(
            re_back,
            im_back,
            residual_of(re, re_back, re_scale, flags),
            residual_of(im, im_back, im_scale, flags),
        )
    return ComplexState(re_back, im_back, empty_sum(), empty_sum())


# -- one head, one step: the sum over n -----------------------------------------------------------


@inline
def exact_step(tile: Tile, h: int, n0: int, drive: Floats, total: Floats, flags: Flags) -> Floats:
    """Advance states from n0 on without rounding; returns the sum with their terms of y."""
    c, p = (h * tile.job.n + n0) * ROW, ((h - tile.h0) * tile.job.n + n0) * PAIR
    plain = exactly(flags)
    for _ in range(n0, tile.job.n):
        coef, held = row(tile, c), load_state(tile, p, plain)
        re, im = advanced(tile, coef, held, drive, plain)
        held = ComplexState(re, im, empty_sum(), empty_sum())
        store_state(tile, p, held, plain)
        total = total + term(coef, held)
        c, p = c + ROW, p + PAIR
    return total


@inline
def static_step(
    tile: Tile, h: int, n0: int, t: int, drive: Floats, total: Floats, flags: Flags
) -> Floats:
    """Advance states from n0 on, rounded by calibrated scales; returns the sum with their terms."""
    c, p = (h * tile.job.n + n0) * ROW, ((h - tile.h0) * tile.job.n + n0) * PAIR
    scales = known_scales(tile, h, n0, flags)
    for n in range(n0, tile.job.n):
        coef = row(tile, c)
        re, im = advanced(tile, coef, load_state(tile, p, flags), drive, flags)
        noise = noise_at(tile, n, h, t, flags)
        if flags.span == STATIC_EACH:
            scales = known_scales(tile, h, n, flags)
        held = rounded(tile, re, im, noise, scales.re, scales.im, flags)
        save_draws(tile, n, h, t, re, im, held, scales, flags)
        store_state(tile, p, held, flags)
        total = total + term(coef, held)
        c, p = c + ROW, p + PAIR
    return total


@inline
def observe(
    tile: Tile,
    h: int,
    n0: int,
    n1: int,
    drive: Floats,
    re_seen: Range,
    im_seen: Range,
    flags: Flags,
) -> tuple[Range, Range]:
    """Advance states n0 to n1 without rounding them; returns the ranges with theirs added."""
    c, p = (h * tile.job.n + n0) * ROW, ((h - tile.h0) * tile.job.n + n0) * PAIR
    for _ in range(n0, n1):
        re, im = advanced(tile, row(tile, c), load_state(tile, p, flags), drive, flags)
        store(tile.state, p, re)
        store(tile.state, p + LANES, im)
        re_seen, im_seen = widen(re_seen, re, flags), widen(im_seen, im, flags)
        c, p = c + ROW, p + PAIR
    return re_seen, im_seen


@inline
def dynamic_scales(tile: Tile, re_seen: Range, im_seen: Range, flags: Flags) -> tuple[Scale, Scale]:
    if not tile.job.state.parts:
        re_seen = im_seen = union(re_seen, im_seen)
    kind = tile.job.state.scales
    return (
        dynamic_scale(re_seen, tile.numbers, kind, flags),
        dynamic_scale(im_seen, tile.numbers, kind, flags),
    )


@inline
def store_states(
    tile: Tile,
    h: int,
    n0: int,
    n1: int,
    t: int,
    re_seen: Range,
    im_seen: Range,
    total: Floats,
    flags: Flags,
) -> Floats:
    """Round and store states n0 to n1, which `observe` advanced; returns the sum with theirs."""
    re_scale, im_scale = dynamic_scales(tile, re_seen, im_seen, flags)
    if flags.span == GROUP and tile.scales.size:
        save_scales(tile, h, n0, t, re_scale, im_scale, flags)
    c, p = (h * tile.job.n + n0) * ROW, ((h - tile.h0) * tile.job.n + n0) * PAIR
    scales = Scales(re_scale, im_scale)
    for n in range(n0, n1):
        noise = noise_at(tile, n, h, t, flags)
        re, im = load(tile.state, p), load(tile.state, p + LANES)
        held = rounded(tile, re, im, noise, re_scale, im_scale, flags)
        save_draws(tile, n, h, t, re, im, held, scales, flags)
        store_state(tile, p, held, flags)
        total = total + term(row(tile, c), held)
        c, p = c + ROW, p + PAIR
    return total


@inline
def saved_numbers(flags: Flags) -> int:
    """Numbers that are saved of a Scale: it, and under asym the bounds of its codes."""
    return 3 if flags.asym else 1


@inline
def saved_place(tile: Tile, h: int, n0: int, t: int, flags: Flags) -> int:
    """The place in `scales` of the group of head h that starts at n0, at step t."""
    groups = -(-tile.job.n // tile.job.state.group)
    at = ((h - tile.h0) * tile.job.length + t) * groups + n0 // tile.job.state.group
    return at * 2 * saved_numbers(flags) * LANES


@inline
def save_scales(
    tile: Tile, h: int, n0: int, t: int, re_scale: Scale, im_scale: Scale, flags: Flags
) -> None:
    at, width = saved_place(tile, h, n0, t, flags), saved_numbers(flags) * LANES
    store(tile.scales, at, re_scale.scale)
    store(tile.scales, at + width, im_scale.scale)
    if flags.asym:
        store(tile.scales, at + LANES, re_scale.low)
        store(tile.scales, at + 2 * LANES, re_scale.high)
        store(tile.scales, at + width + LANES, im_scale.low)
        store(tile.scales, at + width + 2 * LANES, im_scale.high)


@inline
def group_step(tile: Tile, h: int, t: int, drive: Floats, flags: Flags) -> Floats:
    """One step of a head, a dynamic scale for every group of states along n."""
    job, total = tile.job, empty_sum()
    for n0 in range(0, job.n, job.state.group):
        n1 = min(n0 + job.state.group, job.n)
        re_seen, im_seen = observe(tile, h, n0, n1, drive, unseen(flags), unseen(flags), flags)
        if flags.quotient != SHIFTED or finite(union(re_seen, im_seen), flags):
            total = store_states(tile, h, n0, n1, t, re_seen, im_seen, total, flags)
        else:
            total = store_states(tile, h, n0, n1, t, re_seen, im_seen, total, safe(flags))
    return total
