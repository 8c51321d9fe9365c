"""One step of one head: sixteen sequences, the sum over n from n = 0 upward.

Arrays are flat. Place p is that of a complex state in the tile, c that of its coefficients.
"""

from __future__ import annotations

import numpy as np

from sensprobe_kernels.diagonal_scan.flags import (
    CLIP,
    SHIFTED,
    STATIC_EACH,
    STOCHASTIC,
    Flags,
    Tile,
    inline,
    safe,
)
from sensprobe_kernels.diagonal_scan.lanes import (
    Scale,
    clamp,
    kept,
    left_over,
    noise_pair,
    scale_from,
)
from sensprobe_kernels.diagonal_scan.scales import Range, finite, live_scale, union, unseen, widen
from sensprobe_kernels.vector import (
    LANES,
    Floats,
    every,
    every_int,
    load,
    negative,
    places,
    spread,
    store,
)

PAIR = 2 * LANES

# Places in the coefficients of one complex state; those of the imaginary scale are one further.
A_RE, A_IM, B_RE, B_IM, C_RE, C_IM = range(6)
SCALE, INVERSE, REST, LOW, HIGH = range(6, 16, 2)
ROW = 16

_MINUS_ZERO = np.float32(-0.0)


@inline
def nothing() -> Floats:
    """The empty sum: -0, because -0 + x is x for zeros of either sign too."""
    return every(_MINUS_ZERO)


# -- one complex state ----------------------------------------------------------------------------


@inline
def advance(tile: Tile, c: int, p: int, drive: Floats) -> tuple[Floats, Floats]:
    """A h + B u."""
    re, im = load(tile.state, p), load(tile.state, p + LANES)
    a_re, a_im = spread(tile.coef, c + A_RE), spread(tile.coef, c + A_IM)
    b_re, b_im = spread(tile.coef, c + B_RE), spread(tile.coef, c + B_IM)
    return (a_re * re - a_im * im) + b_re * drive, (a_re * im + a_im * re) + b_im * drive


@inline
def to_round(tile: Tile, c: int, p: int, drive: Floats, flags: Flags) -> tuple[Floats, Floats]:
    """A h + B u, with the residual added and clamped: what is about to be rounded."""
    re, im = advance(tile, c, p, drive)
    if flags.feedback:
        re, im = re + load(tile.residual, p), im + load(tile.residual, p + LANES)
    if flags.clip:
        high = spread(tile.numbers, CLIP)
        re, im = clamp(re, negative(high), high), clamp(im, negative(high), high)
    return re, im


@inline
def keep(tile: Tile, c: int, p: int, re: Floats, im: Floats, total: Floats) -> Floats:
    """Write the state; the sum with its share of y added."""
    store(tile.state, p, re)
    store(tile.state, p + LANES, im)
    return total + (spread(tile.coef, c + C_RE) * re - spread(tile.coef, c + C_IM) * im)


@inline
def noise_at(tile: Tile, n: int, h: int, t: int, flags: Flags) -> tuple[Floats, Floats]:
    """The noise of one complex state at one step; none where none is needed."""
    if flags.rounding == STOCHASTIC:
        job = tile.job
        sequence = every_int(job.first + tile.b0) + places()
        step = every_int(job.step + t)
        return noise_pair(every_int(n), every_int(h), sequence, step, job.key0, job.key1)
    return nothing(), nothing()


@inline
def rounded(tile: Tile, p: int, x: Floats, noise: Floats, scale: Scale, flags: Flags) -> Floats:
    """One part of a state, at place p, as memory gives it back; its residual is written."""
    back = kept(x, scale, noise, tile.numbers, flags)
    if flags.feedback:
        store(tile.residual, p, left_over(x, back, scale, flags))
    return back


@inline
def row_scale(tile: Tile, c: int, flags: Flags) -> Scale:
    return scale_from(
        spread(tile.coef, c + SCALE),
        spread(tile.coef, c + INVERSE),
        spread(tile.coef, c + REST),
        spread(tile.coef, c + LOW),
        spread(tile.coef, c + HIGH),
        flags,
    )


# -- one head, one step: the sum over n -----------------------------------------------------------


@inline
def exact_step(tile: Tile, h: int, drive: Floats) -> Floats:
    c, p, total = h * tile.job.n * ROW, (h - tile.h0) * tile.job.n * PAIR, nothing()
    for _ in range(tile.job.n):
        re, im = advance(tile, c, p, drive)
        total = keep(tile, c, p, re, im, total)
        c, p = c + ROW, p + PAIR
    return total


@inline
def static_step(tile: Tile, h: int, t: int, drive: Floats, flags: Flags) -> Floats:
    """Every state rounded by the scale in its row of coefficients, or in the head's first row."""
    c, p, total = h * tile.job.n * ROW, (h - tile.h0) * tile.job.n * PAIR, nothing()
    re_scale, im_scale = row_scale(tile, c, flags), row_scale(tile, c + 1, flags)
    for n in range(tile.job.n):
        re, im = to_round(tile, c, p, drive, flags)
        noise = noise_at(tile, n, h, t, flags)
        if flags.span == STATIC_EACH:
            re_scale, im_scale = row_scale(tile, c, flags), row_scale(tile, c + 1, flags)
        re = rounded(tile, p, re, noise[0], re_scale, flags)
        im = rounded(tile, p + LANES, im, noise[1], im_scale, flags)
        total = keep(tile, c, p, re, im, total)
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
    """Advance states n0 to n1 without rounding; the ranges seen before and of them."""
    c, p = (h * tile.job.n + n0) * ROW, ((h - tile.h0) * tile.job.n + n0) * PAIR
    for _ in range(n0, n1):
        re, im = to_round(tile, c, p, drive, flags)
        store(tile.state, p, re)
        store(tile.state, p + LANES, im)
        re_seen, im_seen = widen(re_seen, re, flags), widen(im_seen, im, flags)
        c, p = c + ROW, p + PAIR
    return re_seen, im_seen


@inline
def live_scales(tile: Tile, re_seen: Range, im_seen: Range, flags: Flags) -> tuple[Scale, Scale]:
    if not tile.job.parts:
        re_seen = im_seen = union(re_seen, im_seen)
    kind = tile.job.scales
    return (
        live_scale(re_seen, tile.numbers, kind, flags),
        live_scale(im_seen, tile.numbers, kind, flags),
    )


@inline
def settle(
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
    """Round states n0 to n1, which `observe` left in place; the sum with their share added."""
    re_scale, im_scale = live_scales(tile, re_seen, im_seen, flags)
    c, p = (h * tile.job.n + n0) * ROW, ((h - tile.h0) * tile.job.n + n0) * PAIR
    for n in range(n0, n1):
        noise = noise_at(tile, n, h, t, flags)
        re = rounded(tile, p, load(tile.state, p), noise[0], re_scale, flags)
        im = rounded(tile, p + LANES, load(tile.state, p + LANES), noise[1], im_scale, flags)
        total = keep(tile, c, p, re, im, total)
        c, p = c + ROW, p + PAIR
    return total


@inline
def group_step(tile: Tile, h: int, t: int, drive: Floats, flags: Flags) -> Floats:
    """Every group of states along n rounded by its own live range."""
    job, total = tile.job, nothing()
    for n0 in range(0, job.n, job.group):
        n1 = min(n0 + job.group, job.n)
        re_seen, im_seen = observe(tile, h, n0, n1, drive, unseen(flags), unseen(flags), flags)
        if flags.quotient != SHIFTED or finite(union(re_seen, im_seen), flags):
            total = settle(tile, h, n0, n1, t, re_seen, im_seen, total, flags)
        else:
            total = settle(tile, h, n0, n1, t, re_seen, im_seen, total, safe(flags))
    return total
