"""The diagonal complex recurrence with a rounded state, on the CPU, bit for bit the reference.

    h_t = store(A h_{t-1} + B u_t),   y_t = 2 Re(sum_n C_n h_{t,n})

Plain numpy arrays and a `Store` in, arrays out. Sixteen sequences share a vector register: no sum
is reordered and nothing contracted, so a sequence's result depends on no other and on no thread.
Functions are compiled on first use for the flags at hand (seconds, once a machine) and cached.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from itertools import count
from threading import Thread
from typing import NamedTuple, TypeAlias

import numpy as np
from llvmlite.binding import get_host_cpu_features
from numpy.typing import NDArray

from sensprobe_kernels.diagonal_scan.flags import (
    ANY,
    DIVIDED,
    EXACT,
    FUSED,
    INTEGER,
    NEAREST,
    S16,
    SHIFTED,
    STATIC,
    STATIC_EACH,
    TENSOR,
    UNSCALED,
    Job,
    Tile,
)
from sensprobe_kernels.diagonal_scan.steps import ROW, SCALE
from sensprobe_kernels.diagonal_scan.tiles import build
from sensprobe_kernels.diagonal_scan.transfer import LINE
from sensprobe_kernels.vector import LANES

Array: TypeAlias = NDArray[np.float32]

HEADS = 16
"""Most heads in a tile: one line of 64 bytes of u and y."""


class Store(NamedTuple):
    """How the state is stored. The defaults keep it exact.

    `span` says what a scale spans; STATIC takes `scale` and `zero`, dense (heads, n, 2) float32;
    GROUP reads ranges live over `group` states along n; TENSOR over a whole sequence's state.
    INTEGER codes go to `peak` on both sides, or from 0 to `peak` around a zero point if `asym`.
    FLOAT and WIDE have `mantissa` bits and normal numbers from 2^floor; ANY is not rounded.
    """

    span: int = EXACT
    code: int = ANY
    rounding: int = NEAREST
    scaled: bool = False
    asym: bool = False
    peak: float = 0.0
    mantissa: int = 0
    floor: int = 0
    group: int = 0
    parts: bool = False
    scales: int = S16
    smallest: float = 0.0
    largest: float = 0.0
    zero_peak: float = 0.0
    clip: float | None = None
    every: int = 1
    first: int = 0
    key: tuple[int, int] = (0, 0)
    scale: Array | None = None
    zero: Array | None = None


def scan(
    u: Array,
    coefficients: tuple[Array, Array, Array],
    store: Store,
    state: Array,
    residual: Array | None,
    step: int,
    threads: int,
) -> Array:
    """Run the recurrence; returns y (batch, length, heads), changes state and residual in place.

    u: (batch, length, heads). coefficients: A, B, C as (heads, n, 2). state and residual:
    (batch, heads, n, 2); a residual, allowed with NEAREST only, turns error feedback on. `step`
    counts the steps taken before. All float32, C-contiguous.
    """
    batch, length, heads = u.shape
    n = coefficients[0].shape[1]
    y = np.empty_like(u)
    if not (batch and length and heads and n):
        return y
    job = Job(
        batch, length, heads, n, store.group or n, int(store.parts), store.scales, store.every,
        step, store.first, *store.key,
    )  # fmt: skip
    quotient = _quotient(store, coefficients)
    rest = np.zeros(0, np.float32) if residual is None else residual.reshape(-1)
    run = build(
        _span(store), store.code, store.rounding, quotient, int(store.asym),
        int(residual is not None), int(store.clip is not None),
    )  # fmt: skip
    coef, numbers = _rows(coefficients, store), _numbers(store)
    wide = heads if store.span == TENSOR else _tile_heads(job, threads)

    def work(b0: int, h0: int) -> None:
        h1 = min(h0 + wide, heads)
        size = (h1 - h0) * n * 2 * LANES
        tile = Tile(
            job, b0, h0, h1, coef, numbers, _scratch(size), _scratch(size if rest.size else 0)
        )
        chunk = (h1 - h0) * LINE
        run(
            u.reshape(-1),
            y.reshape(-1),
            state.reshape(-1),
            rest,
            tile,
            _scratch(chunk),
            _scratch(chunk),
        )

    tiles = [(b0, h0) for b0 in range(0, batch, LANES) for h0 in range(0, heads, wide)]
    _spread_out(work, tiles, threads)
    return y


def _tile_heads(job: Job, threads: int) -> int:
    """Heads a tile: as many as fill a line, fewer where that leaves threads without work."""
    blocks = -(-job.batch // LANES)
    return max(1, min(HEADS, job.heads * blocks // max(threads, 1)))


def _spread_out(
    work: Callable[[int, int], None], tiles: list[tuple[int, int]], threads: int
) -> None:
    """Call work on every tile; each thread takes the next one that is left.

    Threads start and end here: nothing is left that a fork would break.
    """
    ticket = count()
    failures: list[BaseException] = []

    def loop() -> None:
        try:
            while not failures and (place := next(ticket)) < len(tiles):
                work(*tiles[place])
        except BaseException as error:
            failures.append(error)

    helpers = [Thread(target=loop) for _ in range(min(threads, len(tiles)) - 1)]
    for helper in helpers:
        helper.start()
    loop()
    for helper in helpers:
        helper.join()
    if failures:
        raise failures[0]


def _scratch(size: int) -> Array:
    """Zeros that start at a cache line."""
    raw = np.zeros(size + LANES, np.float32)
    start = -(raw.ctypes.data // 4) % LANES
    return raw[start : start + size]


@cache
def _has_fused() -> bool:
    """Whether the processor multiplies and adds with one rounding; x86 says so, ARM always does."""
    features = get_host_cpu_features()
    return bool(features.get("fma") or features.get("neon"))


def _span(store: Store) -> int:
    """STATIC as it is where the states of a head share their scales."""
    arrays = [x for x in (store.scale, store.zero) if x is not None]
    shared = all((x == x[:, :1]).all() for x in arrays)
    return STATIC_EACH if store.span == STATIC and not shared else store.span


def _quotient(store: Store, coefficients: tuple[Array, Array, Array]) -> int:
    """How to divide by the scale: the fastest way that gives what division gives."""
    if not store.scaled:
        return UNSCALED
    usual = store.rounding == NEAREST and (store.code == INTEGER or store.floor > -100)
    short = store.scales == S16 if store.scale is None else _short(store.scale)
    near = store.zero is None or bool((np.abs(store.zero) < 2**15).all())
    if not (usual and short and near and _has_fused()):
        return DIVIDED
    if store.code != INTEGER:
        return FUSED
    tame = store.every == 1 and all((np.abs(x) <= 2**30).all() for x in coefficients)
    return SHIFTED if store.span != STATIC or tame else FUSED


def _short(scale: Array) -> bool:
    """Whether scales are positive float16 numbers."""
    with np.errstate(over="ignore"):
        half = scale.astype(np.float16)
    return bool((half == scale).all() and (scale > 0).all() and np.isfinite(half).all())


def _rows(coefficients: tuple[Array, Array, Array], store: Store) -> Array:
    """What the inner loop reads for each complex state, side by side; see `steps`."""
    A, B, C = coefficients
    rows = np.zeros((*A.shape[:2], ROW), np.float32)
    rows[..., :SCALE] = np.concatenate([A, B, C], axis=-1)
    if store.span != STATIC:
        return rows.reshape(-1)
    peak = np.float32(store.peak)
    scale = np.ones_like(A) if store.scale is None else store.scale
    low = np.full_like(A, -peak) if store.zero is None else -store.zero
    high = np.full_like(A, peak) if store.zero is None else peak - store.zero
    with np.errstate(all="ignore"):
        inverse = np.float32(1) / scale
        rest = (1 / scale.astype(np.float64) - inverse).astype(np.float32)
    rows[..., SCALE:] = np.concatenate([scale, inverse, rest, low, high], axis=-1)
    return rows.reshape(-1)


def _numbers(store: Store) -> Array:
    """The scheme's constants, in the order of `flags`."""
    values = [
        store.peak, store.peak, store.zero_peak, 2.0**store.floor, 2.0**-store.mantissa,
        0.0 if store.clip is None else store.clip, store.smallest, store.largest,
    ]  # fmt: skip
    return np.array(values, np.float32)
