"""The gradient of the convolution over a window that memory rounds.

    dx_t = sum_j w_{K-1-j} dy_{t+j}     dw_k = sum_t v_{t,k} dy_t     dbias = sum_t dy_t

Rounding passes gradients as if it were not there (straight through, Bengio et al. 2013, arXiv
1308.3432), so x meets every output that its value reached, as over an exact window. Filters meet
the windows v that the forward pass read; they are not kept, but computed again, step by step.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any, NamedTuple

from sensprobe_kernels.jit import compiled, inline
from sensprobe_kernels.ops.causal_conv.units import Filters, step
from sensprobe_kernels.ops.selective_scan.job import Given, Job, Place
from sensprobe_kernels.ops.selective_scan.numbers import empty_sum
from sensprobe_kernels.quantize.spec import Flags
from sensprobe_kernels.simd.vector import LANES, Floats, load, store


class Adjoint(NamedTuple):
    """Flat float32 arrays.

    dy, dx  as x of `Given`     dweight  (batch, tiles, K, 16)     dbias  (batch, tiles, 16)
    """

    dy: Any
    dx: Any
    dweight: Any
    dbias: Any


@inline
def _add(sums: Any, at: int, term: Floats) -> None:
    store(sums, at, load(sums, at) + term)


@inline
def _tile(
    job: Job, given: Given, filters: Filters, adjoint: Adjoint, place: Place, k: int, t: int
) -> None:
    """One tile at one step, before its window moves on."""
    line = job.tiles * LANES
    value = (place.b * job.length + t) * line + k * LANES
    own, w = place.b * job.tiles + k, k * (job.n + 1) * LANES
    dy = load(adjoint.dy, value)
    for i in range(job.n):
        seen = load(given.state, (own * job.n + i) * LANES)
        _add(adjoint.dweight, (own * (job.n + 1) + i) * LANES, seen * dy)
    _add(adjoint.dweight, (own * (job.n + 1) + job.n) * LANES, load(given.x, value) * dy)
    _add(adjoint.dbias, own * LANES, dy)
    total = empty_sum()
    for j in range(min(job.n + 1, job.length - t)):
        later = load(adjoint.dy, value + j * line)
        total = total + load(filters.weight, w + (job.n - j) * LANES) * later
    store(adjoint.dx, value, total)


@cache
def build_gradient(state: Flags) -> Callable[..., None]:
    """The compiled gradient, for the flags of the convolution it belongs to (see `units.build`).
    The sums of the Adjoint are zero."""

    def convolve_back(
        job: Job, given: Given, filters: Filters, adjoint: Adjoint, start: int, stop: int
    ) -> None:
        units = -(-job.tiles // job.unit)
        for i in range(start, stop):
            k0 = i % units * job.unit
            place = Place(i // units, k0, min(k0 + job.unit, job.tiles))
            for t in range(job.length):
                for k in range(place.k0, place.k1):
                    _tile(job, given, filters, adjoint, place, k, t)
                step(job, given, filters, place, t, state)

    return compiled(convolve_back)
