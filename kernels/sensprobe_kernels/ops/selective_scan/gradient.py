"""The gradient of the recurrence: the adjoint of the state runs backward through time.

    g_t = C_t dy_t + a_{t+1} g_{t+1}     the gradient of y and later states in h_t
    du_t = sum_n B_t g_t      of u = dt x      dB_t = sum_d u_t g_t      dC_t = sum_d dy_t h_t
    da_t = g_t h_{t-1}        and of a = exp(dt A):     d(dt A) = a da

Rounding passes gradients as if it were not there (straight through, Bengio et al. 2013, arXiv
1308.3432): h and a are those the forward pass went on with, only the a of a da is the exact one.
They are not kept: there is a checkpoint of the state every `interval` steps, and states between are
computed again, a stretch of steps at a time.

Sums over channels go lane by lane, then across lanes: a fixed order, another than autograd's.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any, NamedTuple

from sensprobe_kernels.jit import compiled, inline, inline_optimised
from sensprobe_kernels.ops.selective_scan.exponential import exponential
from sensprobe_kernels.ops.selective_scan.job import Given, Job, Place
from sensprobe_kernels.ops.selective_scan.numbers import empty_sum
from sensprobe_kernels.ops.selective_scan.steps import Index, index
from sensprobe_kernels.ops.selective_scan.units import copy, step
from sensprobe_kernels.quantize.spec import ANY, Flags
from sensprobe_kernels.simd.vector import LANES, Floats, load, spread, store, summed


class Adjoint(NamedTuple):
    """Flat float32 arrays, laid out as in `Given`.

    dy, dx  as x      ddt  as dt      dA  (batch, tiles, n, 16)      ddecay  as decay
    dB, dC  as B, C
    """

    dy: Any
    dx: Any
    ddt: Any
    dA: Any
    ddecay: Any
    dB: Any
    dC: Any


class Work(NamedTuple):
    """Scratch of one thread: states (interval + 1, tiles, n, 16) and decays (interval, tiles, n,
    16) of a stretch, a g of the step after (tiles, n, 16), sums for B and C (2, n, 16), and decays
    of a unit."""

    states: Any
    decays: Any
    carry: Any
    sums: Any
    unit: Any


@inline_optimised
def _recompute(
    job: Job, given: Given, work: Work, b: int, t0: int, t1: int, head: bool, kept: Flags,
    passed: Flags,
) -> None:  # fmt: skip
    """States and decays of steps t0 to t1, from the state before t0, which is in place."""
    line = job.n * LANES
    whole, own = job.tiles * line, b * job.tiles * line
    copy(given.state, own, work.states, 0, whole)
    for k0 in range(0, job.tiles, job.unit):
        k1 = min(k0 + job.unit, job.tiles)
        place, size = Place(b, k0, k1), (k1 - k0) * line
        for t in range(t0, t1):
            step(job, given, place, t, work.unit, head, kept, passed)
            to = (t - t0) * whole + k0 * line
            copy(given.state, own + k0 * line, work.states, to + whole, size)
            if not head:
                copy(work.unit, 0, work.decays, to, size)


@inline
def _tile(
    job: Job, given: Given, adjoint: Adjoint, work: Work, at: Index, before: int, head: bool,
    b: int, first: bool, passed: Flags,
) -> None:  # fmt: skip
    """One tile at one step; `before` is where the stretch has its state of the step before."""
    whole, line = job.tiles * job.n * LANES, job.n * LANES
    x, dy = load(given.x, at.value), load(adjoint.dy, at.value)
    if head:
        a, dt = spread(given.decay, at.decay), spread(given.dt, at.decay)
    else:
        dt = load(given.dt, at.value)
    u = dt * x
    du, other = empty_sum(), empty_sum()
    for i in range(job.n):
        j, c = before + i * LANES, (at.k * job.n + i) * LANES
        if not head:
            a = load(work.decays, j)
        g = spread(given.C, at.row + i) * dy + load(work.carry, c)
        store(work.carry, c, a * g)
        du = du + spread(given.B, at.row + i) * g
        _sum(work.sums, i * LANES, u * g, first)
        _sum(work.sums, line + i * LANES, dy * load(work.states, j + whole), first)
        da = g * load(work.states, j)
        if head:
            other = other + da
        else:
            A = load(given.A, c)
            raw = a if passed.code == ANY else exponential(dt * A)
            exponent = raw * da
            other = other + exponent * A
            to = b * whole + c
            store(adjoint.dA, to, load(adjoint.dA, to) + exponent * dt)
    store(adjoint.dx, at.value, dt * du)
    if head:
        adjoint.ddecay[at.decay] += summed(other)
        adjoint.ddt[at.decay] += summed(x * du)
    else:
        store(adjoint.ddt, at.value, other + x * du)


@inline
def _sum(sums: Any, at: int, term: Floats, first: bool) -> None:
    store(sums, at, term if first else load(sums, at) + term)


@inline_optimised
def _step_backward(
    job: Job, given: Given, adjoint: Adjoint, work: Work, b: int, t: int, t0: int, head: bool,
    passed: Flags,
) -> None:  # fmt: skip
    """All tiles at step t, those that share a row of B and C after one another."""
    share, place = job.tiles // job.groups, Place(b, 0, job.tiles)
    for group in range(job.groups):
        for k in range(group * share, (group + 1) * share):
            at = index(job, given, place, k, t, head)
            before = ((t - t0) * job.tiles + k) * job.n * LANES
            first = k == group * share
            if first:
                _tile(job, given, adjoint, work, at, before, head, b, True, passed)
            else:
                _tile(job, given, adjoint, work, at, before, head, b, False, passed)
        row = ((b * job.length + t) * job.groups + group) * job.n
        for i in range(job.n):
            adjoint.dB[row + i] = summed(load(work.sums, i * LANES))
            adjoint.dC[row + i] = summed(load(work.sums, (job.n + i) * LANES))


@cache
def build_gradient(state: Flags, decay: Flags, head: bool) -> Callable[..., None]:
    """The compiled gradient, for the flags of the scan it belongs to (see `units.build`).

    It takes a Job, the scan's Given with a state to write to, an Adjoint whose sums are zero, Work,
    and the first sequence of the call and the one after its last.
    """

    def scan_back(
        job: Job, given: Given, adjoint: Adjoint, work: Work, start: int, stop: int
    ) -> None:
        whole = job.tiles * job.n * LANES
        stretches = -(-job.length // job.interval)
        for b in range(start, stop):
            for i in range(0, whole, LANES):
                store(work.carry, i, empty_sum())
            for back in range(stretches):
                s = stretches - 1 - back
                t0, t1 = s * job.interval, min((s + 1) * job.interval, job.length)
                at = (s * job.batch + b) * whole
                copy(given.checkpoints, at, given.state, b * whole, whole)
                if state.feedback:
                    copy(given.residual_checkpoints, at, given.residual, b * whole, whole)
                _recompute(job, given, work, b, t0, t1, head, state, decay)
                for i in range(t1 - t0):
                    _step_backward(job, given, adjoint, work, b, t1 - 1 - i, t0, head, decay)

    return compiled(scan_back)
