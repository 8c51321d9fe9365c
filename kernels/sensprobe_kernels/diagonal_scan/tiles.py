"""The recurrence over one tile: sixteen sequences, a few heads, all steps.

    state  (heads, n, 2, 16)  stays in cache      drive, out  (heads, CHUNK, 16)

Within a head the order is time, then n upward, as in the reference. A range that spans all heads
puts the heads inside time.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from hashlib import sha256
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numba import njit

from sensprobe_kernels.diagonal_scan.flags import (
    CLIP,
    EXACT,
    GROUP,
    STATIC,
    STOCHASTIC,
    TENSOR,
    Flags,
    Job,
    Tile,
    inline,
)
from sensprobe_kernels.diagonal_scan.lanes import Scale, clamp, kept, left_over, noise_pair
from sensprobe_kernels.diagonal_scan.scales import Range, live_scale, union, unseen, widen
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

CHUNK = 32
"""Steps whose inputs and outputs are transposed at a time."""

PAIR = 2 * LANES

# Places in the coefficients of one complex state; those of the imaginary scale are one further.
A_RE, A_IM, B_RE, B_IM, C_RE, C_IM, SCALE, INVERSE, LOW, HIGH = 0, 1, 2, 3, 4, 5, 6, 8, 10, 12
ROW = 16

_START = np.float32(-0.0)  # -0 + x is x, signed zeros included


class Pair(NamedTuple):
    """What goes with the real and with the imaginary part."""

    re: Any
    im: Any


# -- layout ---------------------------------------------------------------------------------------


@inline
def enter(tile: Tile, whole: Any, part: Any) -> None:
    """(batch, heads, n, 2) -> (heads, n, 2, 16); missing sequences are zero."""
    size = tile.job.n * 2
    for lane in range(LANES):
        base = ((tile.b0 + lane) * tile.job.heads + tile.h0) * size
        for i in range((tile.h1 - tile.h0) * size):
            part[i * LANES + lane] = whole[base + i] if tile.b0 + lane < tile.job.batch else 0.0


@inline
def leave(tile: Tile, whole: Any, part: Any) -> None:
    size = tile.job.n * 2
    for lane in range(min(LANES, tile.job.batch - tile.b0)):
        base = ((tile.b0 + lane) * tile.job.heads + tile.h0) * size
        for i in range((tile.h1 - tile.h0) * size):
            whole[base + i] = part[i * LANES + lane]


@inline
def read(tile: Tile, u: Any, drive: Any, t0: int, t1: int) -> None:
    """(batch, length, heads) -> (heads, CHUNK, 16); missing sequences are zero."""
    job = tile.job
    for lane in range(LANES):
        for t in range(t0, t1):
            base = ((tile.b0 + lane) * job.length + t) * job.heads
            for h in range(tile.h0, tile.h1):
                at = ((h - tile.h0) * CHUNK + t - t0) * LANES + lane
                drive[at] = u[base + h] if tile.b0 + lane < job.batch else 0.0


@inline
def write(tile: Tile, y: Any, out: Any, t0: int, t1: int) -> None:
    job = tile.job
    for lane in range(min(LANES, job.batch - tile.b0)):
        for t in range(t0, t1):
            base = ((tile.b0 + lane) * job.length + t) * job.heads
            for h in range(tile.h0, tile.h1):
                y[base + h] = out[((h - tile.h0) * CHUNK + t - t0) * LANES + lane]


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
    return every(_START), every(_START)


@inline
def rounded(tile: Tile, p: int, x: Floats, noise: Floats, scale: Scale, flags: Flags) -> Floats:
    """One part of a state, at place p, as memory gives it back; its residual is written."""
    back = kept(x, scale, noise, tile.numbers, flags)
    if flags.feedback:
        store(tile.residual, p, left_over(x, back, scale, flags))
    return back


@inline
def row_scale(coef: Any, c: int) -> Scale:
    return Scale(
        spread(coef, c + SCALE),
        spread(coef, c + INVERSE),
        spread(coef, c + LOW),
        spread(coef, c + HIGH),
    )


# -- one head, one step: the sum over n -----------------------------------------------------------


@inline
def exact_step(tile: Tile, h: int, drive: Floats) -> Floats:
    c, p, total = h * tile.job.n * ROW, (h - tile.h0) * tile.job.n * PAIR, every(_START)
    for _ in range(tile.job.n):
        re, im = advance(tile, c, p, drive)
        total = keep(tile, c, p, re, im, total)
        c, p = c + ROW, p + PAIR
    return total


@inline
def static_step(tile: Tile, h: int, t: int, drive: Floats, flags: Flags) -> Floats:
    """Every state rounded by the scale in its row of coefficients."""
    c, p, total = h * tile.job.n * ROW, (h - tile.h0) * tile.job.n * PAIR, every(_START)
    for n in range(tile.job.n):
        re, im = to_round(tile, c, p, drive, flags)
        noise = noise_at(tile, n, h, t, flags)
        re = rounded(tile, p, re, noise[0], row_scale(tile.coef, c), flags)
        im = rounded(tile, p + LANES, im, noise[1], row_scale(tile.coef, c + 1), flags)
        total = keep(tile, c, p, re, im, total)
        c, p = c + ROW, p + PAIR
    return total


@inline
def observe(
    tile: Tile, h: int, n0: int, n1: int, drive: Floats, re_seen: Range, im_seen: Range, flags: Flags
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
        re_seen = im_seen = union(re_seen, im_seen, flags)
    kind = tile.job.scales
    return (
        live_scale(re_seen, tile.numbers, kind, flags),
        live_scale(im_seen, tile.numbers, kind, flags),
    )


@inline
def settle(
    tile: Tile, h: int, n0: int, n1: int, t: int, re_scale: Scale, im_scale: Scale, total: Floats, flags: Flags
) -> Floats:
    """Round states n0 to n1, which `observe` left in place; the sum with their share added."""
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
    job, total = tile.job, every(_START)
    for n0 in range(0, job.n, job.group):
        n1 = min(n0 + job.group, job.n)
        re_seen, im_seen = observe(tile, h, n0, n1, drive, unseen(flags), unseen(flags), flags)
        re_scale, im_scale = live_scales(tile, re_seen, im_seen, flags)
        total = settle(tile, h, n0, n1, t, re_scale, im_scale, total, flags)
    return total


# -- a chunk of steps -----------------------------------------------------------------------------


@inline
def head_by_head(tile: Tile, drive: Any, out: Any, t0: int, t1: int, flags: Flags) -> None:
    """All steps of a head, then the next head: its state stays in the first-level cache."""
    job = tile.job
    for h in range(tile.h0, tile.h1):
        for t in range(t0, t1):
            at = ((h - tile.h0) * CHUNK + t - t0) * LANES
            if flags.span == EXACT or (job.step + t + 1) % job.every != 0:
                total = exact_step(tile, h, load(drive, at))
            elif flags.span == STATIC:
                total = static_step(tile, h, t, load(drive, at), flags)
            else:
                total = group_step(tile, h, t, load(drive, at), flags)
            store(out, at, total + total)


@inline
def step_by_step(tile: Tile, drive: Any, out: Any, t0: int, t1: int, flags: Flags) -> None:
    """All heads of a step, then the next step: one range spans them."""
    job = tile.job
    for t in range(t0, t1):
        rounds = (job.step + t + 1) % job.every == 0
        re_seen, im_seen = unseen(flags), unseen(flags)
        if rounds:
            for h in range(tile.h0, tile.h1):
                at = ((h - tile.h0) * CHUNK + t - t0) * LANES
                re_seen, im_seen = observe(tile, h, 0, job.n, load(drive, at), re_seen, im_seen, flags)
        re_scale, im_scale = live_scales(tile, re_seen, im_seen, flags)
        for h in range(tile.h0, tile.h1):
            at = ((h - tile.h0) * CHUNK + t - t0) * LANES
            if rounds:
                total = settle(tile, h, 0, job.n, t, re_scale, im_scale, every(_START), flags)
            else:
                total = exact_step(tile, h, load(drive, at))
            store(out, at, total + total)


def _fingerprint() -> int:
    """Of the source that is compiled: Numba's cache watches one file only, a tile is made of five."""
    here = Path(__file__).parent
    files = sorted(here.glob("*.py")) + [here.parent / "vector.py"]
    return int(sha256(b"".join(file.read_bytes() for file in files)).hexdigest()[:15], 16)


SOURCE = _fingerprint()


@cache
def build(span: int, code: int, rounding: int, quotient: int, asym: int, feedback: int, clip: int) -> Callable:
    """The compiled scan of a tile for one set of flags (see `Flags`).

    It takes u and y (batch, length, heads), the state and residual (batch, heads, n, 2), all flat
    float32, a Tile, and flat scratch for drive and out. It releases the interpreter's lock.
    """
    source = SOURCE

    def scan_tile(u: Any, y: Any, state: Any, residual: Any, tile: Tile, drive: Any, out: Any) -> int:
        flags = Flags(span, code, rounding, quotient, asym, feedback, clip)
        enter(tile, state, tile.state)
        if feedback:
            enter(tile, residual, tile.residual)
        for t0 in range(0, tile.job.length, CHUNK):
            t1 = min(t0 + CHUNK, tile.job.length)
            read(tile, u, drive, t0, t1)
            if span == TENSOR:
                step_by_step(tile, drive, out, t0, t1, flags)
            else:
                head_by_head(tile, drive, out, t0, t1, flags)
            write(tile, y, out, t0, t1)
        leave(tile, state, tile.state)
        if feedback:
            leave(tile, residual, tile.residual)
        return source

    try:
        return njit(scan_tile, cache=True, nogil=True)
    except RuntimeError:  # no folder to cache in
        return njit(scan_tile, nogil=True)
