"""Selective recurrences with a rounded state and decay, on the CPU, bit for bit the reference.

    h_t = store(a_t h_{t-1} + (dt x)_t B_t),   y_t = sum_n C_{t,n} h_{t,n}

The decay a is given, one a head and step (Mamba-2), or computed and rounded within the step from dt
and A, one a channel and n (Mamba: its channels are those of one head). Plain numpy arrays and
`Store`s in, arrays out. Sixteen channels share a vector register: no sum is reordered and nothing
contracted, so a result depends on no thread. Functions are compiled on first use for the flags at
hand (seconds, once a machine) and cached.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from sensprobe_kernels.selective_scan.job import Given, Job, Kept
from sensprobe_kernels.selective_scan.units import Key, build
from sensprobe_kernels.stored.flags import STATIC, STATIC_EACH, TENSOR
from sensprobe_kernels.stored.store import Array, Store, known, numbers, quotient
from sensprobe_kernels.stored.threads import aligned, scratch, spread_out
from sensprobe_kernels.vector import LANES

_NONE = np.zeros(0, np.float32)
TILES = 8
"""Tiles that go through time together: half a kilobyte side by side in memory."""

_WORK = 1 << 17
"""Least numbers of state written by what one thread takes at a time."""


class Decays(NamedTuple):
    """Computed within the step. dt: (batch, length, heads, p). A: (heads, p, n). A scale of `store`
    is dense, as A."""

    dt: Array
    A: Array
    store: Store


def scan(
    u: Array,
    decay: Array | Decays,
    B: Array,
    C: Array,
    store: Store,
    state: Array,
    residual: Array | None,
    step: int,
    threads: int,
    unit_heads: bool = False,
) -> tuple[Array, Array, Array | None]:
    """Run the recurrence; returns y, the state and the residual after the last step.

    u = dt x: (batch, length, heads, p). decay: (batch, length, heads), or how it is computed. B, C:
    (batch, length, groups, n). state, residual: (batch, heads, p, n); a residual, allowed with
    NEAREST only, turns error feedback on. A scale of `store` is dense, (heads, p, n); a live TENSOR
    range spans all heads, or each head with `unit_heads`. `step` counts the steps taken before. All
    float32; the arguments are left as they are.
    """
    batch, length, heads, p = u.shape
    groups, n = B.shape[2:]
    if not (u.size and n):
        return np.zeros_like(u), state, residual
    head = -(-p // LANES)
    computed = decay if isinstance(decay, Decays) else None
    passed = Store() if computed is None else computed.store
    kept = _tiled(state)
    rest = _NONE if residual is None else _tiled(residual)
    job = Job(
        length, heads * head, heads, _unit(heads, head, store, passed, unit_heads), n, p, head,
        groups, store.first, step, _kept(store, n), _kept(passed, n),
    )  # fmt: skip
    out = scratch(batch * length * heads * head * LANES)
    given = Given(
        _wide(u).reshape(-1),
        _NONE if computed is None else _wide(computed.dt).reshape(-1),
        _NONE if computed is None else _tiled(computed.A[None]).reshape(-1),
        decay.reshape(-1) if isinstance(decay, np.ndarray) else _NONE,
        B.reshape(-1), C.reshape(-1), out, kept.reshape(-1), rest.reshape(-1),
        _known(store, (heads, p, n)), numbers(store),
        _known(passed, (heads, p, n)), numbers(passed),
        np.arange(heads * head) // head, np.arange(heads * head) // (heads * head // groups),
    )  # fmt: skip
    run = build(_key(store, residual is not None), _key(passed), computed is None)
    units = batch * -(-job.tiles // job.unit)
    few = max(1, _WORK // (job.unit * LANES * n * length))
    pieces = [(i, min(i + few, units)) for i in range(0, units, few)]

    def work(start: int, stop: int) -> None:
        run(job, given, scratch(job.unit * n * LANES), start, stop)

    spread_out(work, pieces, threads)
    y = out.reshape(batch, length, heads, -1)[..., :p]
    after = None if residual is None else _untiled(rest, heads, p)
    return y, _untiled(kept, heads, p), after


def _kept(store: Store, n: int) -> Kept:
    return Kept(store.group or n, store.scales, store.every, *store.key)


def _unit(heads: int, head: int, store: Store, passed: Store, unit_heads: bool) -> int:
    """Tiles that share a live scale, or else as many as make good use of what memory brings."""
    if passed.span == TENSOR or (store.span == TENSOR and not unit_heads):
        return heads * head
    return head if store.span == TENSOR else min(TILES, heads * head)


def _key(store: Store, feedback: bool = False) -> Key:
    span = store.span
    if span == STATIC and not all(
        (x == x[..., :1]).all() for x in (store.scale, store.zero) if x is not None
    ):
        span = STATIC_EACH
    return (
        span, store.code, store.rounding, quotient(store), int(store.asym), int(feedback),
        int(store.clip is not None),
    )  # fmt: skip


def _known(store: Store, shape: tuple[int, int, int]) -> Array:
    """Scales known before and their bounds, in tiles; see `Given`."""
    if store.span != STATIC:
        return _NONE
    fields = known(store, shape)
    if _key(store)[0] == STATIC:
        fields = fields[..., :1]
    return _tiled(fields).reshape(-1)


# -- layouts --------------------------------------------------------------------------------------


def _wide(x: Array) -> Array:
    """(…, p) with p filled up to whole tiles by its last number; contiguous and aligned."""
    if missing := -x.shape[-1] % LANES:
        x = np.concatenate([x, np.repeat(x[..., -1:], missing, axis=-1)], axis=-1)
    return aligned(x)


def _tiled(x: Array) -> Array:
    """(batch, heads, p, n) -> (batch, tiles, n, 16), a copy."""
    batch, heads, p, n = x.shape
    tiles = -(-p // LANES)
    out = scratch(batch * heads * tiles * n * LANES).reshape(batch, heads, tiles, n, LANES)
    x = x.swapaxes(2, 3)
    for k in range(tiles):
        piece = x[..., k * LANES : (k + 1) * LANES]
        out[:, :, k, :, : piece.shape[-1]] = piece
        out[:, :, k, :, piece.shape[-1] :] = x[..., -1:]
    return out.reshape(batch, heads * tiles, n, LANES)


def _untiled(x: Array, heads: int, p: int) -> Array:
    """(batch, tiles, n, 16) -> (batch, heads, p, n)."""
    batch, tiles, n, _ = x.shape
    rows = x.reshape(batch, heads, tiles // heads, n, LANES).swapaxes(3, 4)
    return np.ascontiguousarray(rows.reshape(batch, heads, -1, n)[:, :, :p])
