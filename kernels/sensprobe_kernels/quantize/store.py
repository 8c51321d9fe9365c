"""What a scan is told of how it stores its numbers, and what follows from it."""

from __future__ import annotations

from functools import cache
from typing import NamedTuple, TypeAlias

import numpy as np
from llvmlite.binding import get_host_cpu_features
from numpy.typing import NDArray

from sensprobe_kernels.quantize.flags import (
    ANY,
    DIVIDED,
    EXACT,
    FUSED,
    INTEGER,
    NEAREST,
    S16,
    UNSCALED,
)

Array: TypeAlias = NDArray[np.float32]


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


@cache
def _has_fused() -> bool:
    """Whether the processor multiplies and adds with one rounding; x86 says so, ARM always does."""
    features = get_host_cpu_features()
    return bool(features.get("fma") or features.get("neon"))


def quotient(store: Store) -> int:
    """How to divide by the scale: by its reciprocal where that gives what division gives."""
    if not store.scaled:
        return UNSCALED
    usual = store.rounding == NEAREST and (store.code == INTEGER or store.floor > -100)
    short = store.scales == S16 if store.scale is None else _short(store.scale)
    near = store.zero is None or bool((np.abs(store.zero) < 2**15).all())
    return FUSED if usual and short and near and _has_fused() else DIVIDED


def _short(scale: Array) -> bool:
    """Whether scales are positive float16 numbers."""
    with np.errstate(over="ignore"):
        half = scale.astype(np.float16)
    return bool((half == scale).all() and (scale > 0).all() and np.isfinite(half).all())


def known(store: Store, shape: tuple[int, ...]) -> Array:
    """Of each number of this shape: scale, inverse, rest, low, high (see `lanes.Scale`), stacked.

    The bounds are multiples of the scale. Returns (5, *shape).
    """
    peak = np.float32(store.peak)
    scale = np.ones(shape, np.float32) if store.scale is None else store.scale
    low = np.full(shape, -peak) if store.zero is None else -store.zero
    high = np.full(shape, peak) if store.zero is None else peak - store.zero
    with np.errstate(all="ignore"):
        inverse = np.float32(1) / scale
        rest = (1 / scale.astype(np.float64) - inverse).astype(np.float32)
    return np.stack([scale, inverse, rest, low, high])


def numbers(store: Store) -> Array:
    """The scheme's constants, in the order of `flags`."""
    values = [
        store.peak, store.peak, store.zero_peak, 2.0**store.floor, 2.0**-store.mantissa,
        0.0 if store.clip is None else store.clip, store.smallest, store.largest,
    ]  # fmt: skip
    return np.array(values, np.float32)
