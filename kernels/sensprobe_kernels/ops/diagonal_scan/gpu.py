"""The diagonal complex recurrence of S4D and S5 in Triton, its state packed between tokens.

    h = A h + B u,  y = 2 · Re sum of C h      S4D
    h = A h + x,    y = h                      S5, of whose linear maps B and C are

Complex numbers are real and imaginary parts by turns in memory, and two tiles in registers. The
state is read once, stays in registers for as many tokens as there are, is rounded after each as the
reference rounds it, bit for bit, and is packed where it came from; sums for y are in any order.
"""

from __future__ import annotations

import triton
import triton.language as tl

from sensprobe_kernels.ops.selective_scan.gpu import finished
from sensprobe_kernels.ops.state.gpu import (
    before_rounding,
    load_residual,
    store_numbers,
    store_residual,
)
from sensprobe_kernels.packing.gpu import load_numbers
from sensprobe_kernels.quantize.gpu import (
    GROUP,
    STOCHASTIC,
    dynamic_scale,
    dynamic_scale_of_two,
    kept,
    load_scale,
    noise_pair,
    residual_of,
    store_scale,
)


@triton.jit
def _turns(a, b, N: tl.constexpr):
    """Two tiles (R, N) as one (R, 2N), a number of each by turns."""
    return tl.reshape(tl.join(a, b), (a.shape[0], 2 * N))


@triton.jit
def _apart(x, N: tl.constexpr):
    """The inverse."""
    return tl.split(tl.reshape(x, (x.shape[0], N, 2)))


@triton.jit
def _kept_scales(
    scale, zero, run, part: tl.constexpr, inside, PARTS: tl.constexpr, r: tl.constexpr
):
    """Scale and zero point of one part of runs, 1 and 0 where there are none."""
    at = run * PARTS + (part if PARTS == 2 else 0)
    s, z = tl.full(run.shape, 1.0, tl.float32), tl.full(run.shape, 0.0, tl.float32)
    if r.scaled:
        s = load_scale(scale + at, inside, r.scales)
        if r.asym:
            z = tl.load(zero + at, mask=inside, other=0).to(tl.float32)
    return s, z


@triton.jit
def _places(row, inside, n: tl.constexpr, N: tl.constexpr, G: tl.constexpr, WHOLE: tl.constexpr):
    """Where scales lie, and a mask of those there are: one of the whole state (1, 1), or of every G
    pairs of rows (R, N / G)."""
    if WHOLE:
        run = tl.full((1, 1), 0, tl.int32)
        return run, run >= 0
    elif G < N:
        group = tl.arange(0, N // G)[None, :]
        return row * (n // G) + group, inside & (group < n // G)
    else:
        return row, inside


@triton.jit
def _spread(x, N: tl.constexpr, G: tl.constexpr):
    """Numbers of groups (R, N / G) in every place of theirs; others as they are."""
    if G < N:
        R: tl.constexpr = x.shape[0]
        return tl.reshape(tl.broadcast_to(x[:, :, None], (R, N // G, G)), (R, N))
    else:
        return x


@triton.jit
def _dynamic_scales(
    re, im, there, N: tl.constexpr, G: tl.constexpr, PARTS: tl.constexpr, WHOLE: tl.constexpr,
    r: tl.constexpr,
):  # fmt: skip
    """Scales and zero points of both parts, as `_places` has them."""
    axis: tl.constexpr = -1 if WHOLE else 1
    R: tl.constexpr = re.shape[0]
    if G < N:
        re, im = tl.reshape(re, (R * (N // G), G)), tl.reshape(im, (R * (N // G), G))
        there = tl.reshape(there, (R * (N // G), G))
    if PARTS == 2:
        a, az = dynamic_scale(re, there, axis, r)
        b, bz = dynamic_scale(im, there, axis, r)
    else:
        a, az = dynamic_scale_of_two(re, im, there, axis, r)
        b, bz = a, az
    if G < N:
        a, az = tl.reshape(a, (R, N // G)), tl.reshape(az, (R, N // G))
        b, bz = tl.reshape(b, (R, N // G)), tl.reshape(bz, (R, N // G))
    return a, az, b, bz


@triton.jit
def _filled(a, b, none, N: tl.constexpr, G: tl.constexpr):
    """Scales or zero points of both parts for every place of a tile (R, 2N); none: zeros (R, N)."""
    return _turns(_spread(a, N, G) + none, _spread(b, N, G) + none, N)


@triton.jit
def _rounded(v, scale, zero, bits, N: tl.constexpr, G: tl.constexpr, r: tl.constexpr):
    """One part as it is read back after it was stored, and its residual."""
    scale, zero = _spread(scale, N, G), _spread(zero, N, G)
    back, residual = kept(v, scale, zero, bits, r), 0.0
    if r.feedback:
        residual = residual_of(v, back, scale, zero, r)
    return back, residual


@triton.jit
def scan(
    x, A, B, C, D, y, codes, scale, zero, residual, known, known_zero, slots, times, key0, key1,
    length, heads, pitch, each, x_pitch, dynamic,
    n: tl.constexpr, N: tl.constexpr, R: tl.constexpr, G: tl.constexpr, PARTS: tl.constexpr,
    WHOLE: tl.constexpr, SKIPS: tl.constexpr, DRIVEN: tl.constexpr, c: tl.constexpr,
    r: tl.constexpr,
):  # fmt: skip
    """x, y (batch, length, heads), or DRIVEN (batch, length, heads, n) pairs; A, B, C (heads, n)
    pairs of float32. codes: `each` a slot, of
    rows of `pitch` bytes that hold n pairs; scale, zero: `dynamic` a slot. PARTS 2: a scale for
    each part; for G pairs of a head, or WHOLE: for the whole state, and there is one program."""
    block, b = tl.program_id(0), tl.program_id(1)
    slot = tl.load(slots + b)
    row, col = block * R + tl.arange(0, R)[:, None], tl.arange(0, N)[None, :]
    inside = row < heads
    there = inside & (col < n)
    run, present = _places(row, inside, n, N, G, WHOLE)
    from_scale, from_zero = known, known_zero
    if r.span == GROUP:
        from_scale, from_zero = scale + slot * dynamic, zero + slot * dynamic
    s, sz = _kept_scales(from_scale, from_zero, run, 0, present, PARTS, r)
    e, ez = _kept_scales(from_scale, from_zero, run, 1, present, PARTS, r)
    none = tl.zeros((R, N), tl.float32)
    state, residual = codes + slot * each, residual + slot * heads * 2 * n
    h = load_numbers(
        state, row, 0, 2 * n, pitch, _filled(s, e, none, N, G), _filled(sz, ez, none, N, G),
        inside, 2 * N, c,
    )  # fmt: skip
    re, im = _apart(h, N)
    re_residual, im_residual = 0.0, 0.0
    if r.feedback:
        re_residual, im_residual = _apart(load_residual(residual, row, 2 * n, inside, 2 * N, r), N)
    time = tl.load(times + slot)
    pair = (row * n + col) * 2
    a, ai = tl.load(A + pair, mask=there, other=0.0), tl.load(A + pair + 1, mask=there, other=0.0)
    if not DRIVEN:
        d = tl.load(B + pair, mask=there, other=0.0)
        di = tl.load(B + pair + 1, mask=there, other=0.0)
        o = tl.load(C + pair, mask=there, other=0.0)
        oi = tl.load(C + pair + 1, mask=there, other=0.0)
    for t in range(length):
        token = b * length + t
        if DRIVEN:
            u = 0.0
            drive = tl.load(x + token * x_pitch + pair, mask=there, other=0.0)
            im_drive = tl.load(x + token * x_pitch + pair + 1, mask=there, other=0.0)
        else:
            u = tl.load(x + token * x_pitch + row, mask=inside, other=0.0)
            drive, im_drive = d * u, di * u
        real = before_rounding((a * re - ai * im) + drive, re_residual, r)
        imag = before_rounding((a * im + ai * re) + im_drive, im_residual, r)
        if r.span == GROUP:
            s, sz, e, ez = _dynamic_scales(real, imag, there, N, G, PARTS, WHOLE, r)
        bits, im_bits = 0.0, 0.0
        if r.rounding == STOCHASTIC:
            bits, im_bits = noise_pair(col, row, slot, time + t, key0, key1)
        re, re_residual = _rounded(real, s, sz, bits, N, G, r)
        im, im_residual = _rounded(imag, e, ez, im_bits, N, G, r)
        if DRIVEN:
            tl.store(y + token * x_pitch + pair, re, mask=there)
            tl.store(y + token * x_pitch + pair + 1, im, mask=there)
        else:
            total = tl.sum(tl.where(there, o * re - oi * im, 0.0), 1)[:, None] * 2.0
            total = finished(total, u, D, D, row, 1, inside, SKIPS, 0)
            tl.store(y + token * x_pitch + row, total, mask=inside)
    tl.debug_barrier()  # what other threads of this program read is now written
    store_numbers(
        state, _turns(re, im, N), _filled(s, e, none, N, G), _filled(sz, ez, none, N, G), row,
        2 * n, pitch, inside, 2 * N, c, r,
    )  # fmt: skip
    if r.feedback:
        store_residual(residual, _turns(re_residual, im_residual, N), row, 2 * n, inside, 2 * N)
    if r.span == GROUP:
        at = scale + slot * dynamic + run * PARTS
        store_scale(at, s, present, r.scales)
        if PARTS == 2:
            store_scale(at + 1, e, present, r.scales)
        if r.asym:
            to = zero + slot * dynamic + run * PARTS
            tl.store(to, sz.to(zero.dtype.element_ty), mask=present)
            if PARTS == 2:
                tl.store(to + 1, ez.to(zero.dtype.element_ty), mask=present)
