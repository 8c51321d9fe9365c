"""Selective recurrences with a rounded state and decay, on the CPU, bit for bit the reference.

    h_t = store(a_t h_{t-1} + (dt x)_t B_t),   y_t = sum_n C_{t,n} h_{t,n}

The decay a is given, one a head and step (Mamba-2), or computed and rounded within the step from dt
and A, one a channel and n (Mamba: its channels are those of one head). Plain numpy arrays and
`Spec`s in, arrays out. Sixteen channels share a vector register: no sum is reordered and nothing
contracted, so a result depends on no thread. Functions are compiled on first use for the flags at
hand (seconds, once a machine) and cached.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from sensprobe_kernels.ops.selective_scan.gradient import Adjoint, Work, build_gradient
from sensprobe_kernels.ops.selective_scan.job import Given, Job
from sensprobe_kernels.ops.selective_scan.units import build, build_decays
from sensprobe_kernels.quantize.rounding import STOCHASTIC
from sensprobe_kernels.quantize.spec import STATIC, STATIC_EACH, TENSOR, Array, Flags, Spec
from sensprobe_kernels.simd.vector import LANES
from sensprobe_kernels.threads import aligned, lines, scratch, spread_out

_NONE = np.zeros(0, np.float32)
TILES = 4
"""Tiles that go through time together: a quarter of a kilobyte side by side in memory."""

_WORK, _SLOW_WORK = 1 << 21, 1 << 19
"""Least numbers of state written by what one thread takes at a time; where it draws random bits."""


class Decays(NamedTuple):
    """Decays that are computed within the step from a dt a channel and A (heads, p, n). A scale of
    `spec` is dense, as A."""

    A: Array
    spec: Spec


class Run(NamedTuple):
    """One call of the kernel: its arguments, the keys of compiled functions, the shape of x."""

    job: Job
    given: Given
    state: Flags
    decay: Flags
    head: bool  # decays are given, one a head
    shape: tuple[int, ...]


class Result(NamedTuple):
    """y (batch, length, heads, p), state and residual (batch, heads, p, n) after the last step."""

    y: Array
    state: Array
    residual: Array | None


def prepare(
    x: Array,
    dt: Array,
    decay: Array | Decays,
    B: Array,
    C: Array,
    spec: Spec,
    state: Array,
    residual: Array | None,
    step: int,
    interval: int = 0,
) -> Run:
    """Prepare a call of the kernel.

    x: (batch, length, heads, p), no axis empty. decay: (batch, length, heads), as dt, or how it is
    computed from a dt of x's shape. B, C: (batch, length, groups, n). state, residual: (batch,
    heads, p, n); a residual, allowed with NEAREST only, turns error feedback on. A scale of `spec`
    is dense, (heads, p, n). `step` counts the steps taken before. With an `interval` there are
    checkpoints of the state every so many steps, for `gradient`. All float32; the arguments are
    left as they are.
    """
    batch, length, heads, p = x.shape
    groups, n = B.shape[2], state.shape[-1]
    head = -(-p // LANES)
    tiles = heads * head
    computed = decay if isinstance(decay, Decays) else None
    state_spec = spec._replace(feedback=residual is not None).apart_along(-1)
    decay_spec = Spec() if computed is None else computed.spec._replace(feedback=False)
    decay_spec = decay_spec.apart_along(-1)
    checkpoints = scratch(-(-length // interval) * batch * tiles * n * LANES) if interval else _NONE
    job = Job(
        length, tiles, heads, _unit(heads, head, state_spec, decay_spec), n, p, head, groups,
        max(spec.first, decay_spec.first), step, interval, batch, spec.settings(n),
        decay_spec.settings(n),
    )  # fmt: skip
    given = Given(
        widened(x).reshape(-1),
        (dt if computed is None else widened(dt)).reshape(-1),
        _NONE if computed is None else tiled(computed.A[None]).reshape(-1),
        decay.reshape(-1) if isinstance(decay, np.ndarray) else _NONE,
        B.reshape(-1),
        C.reshape(-1),
        lines((batch * length * tiles * LANES,)),
        tiled(state).reshape(-1),
        _NONE if residual is None else tiled(residual).reshape(-1),
        _known(state_spec, (heads, p, n)),
        np.array(state_spec.constants(), np.float32),
        _known(decay_spec, (heads, p, n)),
        np.array(decay_spec.constants(), np.float32),
        np.arange(tiles) // head,
        np.arange(tiles) // (tiles // groups),
        checkpoints,
        _NONE if residual is None else scratch(checkpoints.size),
    )
    return Run(job, given, state_spec.flags(), decay_spec.flags(), computed is None, x.shape)


def pieces_of(run: Run, threads: int) -> list[tuple[int, int]]:
    """Ranges of units, about as many for each thread."""
    job = run.job
    slow = STOCHASTIC in (run.state.rounding, run.decay.rounding)
    units = job.batch * -(-job.tiles // job.unit)
    few = (_SLOW_WORK if slow else _WORK) // (job.unit * LANES * job.n * job.length)
    pieces = -(-units // max(1, few))
    few = max(1, units // (-(-pieces // threads) * threads))
    return [(i, min(i + few, units)) for i in range(0, units, few)]


def result_of(run: Run) -> Result:
    """The results of a run that has been executed."""
    job, (_, _, heads, p) = run.job, run.shape
    held = [x for x in (run.given.state, run.given.residual) if x.size]
    after = [_untiled(x.reshape(job.batch, job.tiles, job.n, LANES), heads, p) for x in held]
    y = narrowed(run.given.y, run.shape)
    return Result(y, after[0], after[1] if len(after) == 2 else None)


def scan(run: Run, threads: int) -> Result:
    """Run the recurrence. A run is for one call: its state is overwritten."""
    compiled = build(run.state, run.decay, run.head)

    def work(start: int, stop: int) -> None:
        decays = scratch(run.job.unit * run.job.n * LANES)
        compiled(run.job, run.given, decays, start, stop)

    spread_out(work, pieces_of(run, threads), threads)
    return result_of(run)


def states_of(run: Run, found: Result) -> Array:
    """The states (length, batch, heads, p, n) after every step of a run that was prepared with an
    interval of 1, and scanned."""
    job, (_, length, heads, p) = run.job, run.shape
    out = np.empty((length, *found.state.shape), np.float32)
    out[-1] = found.state
    if length > 1:
        before = run.given.checkpoints.reshape(length * job.batch, job.tiles, job.n, LANES)
        out[:-1] = _untiled(before[job.batch :], heads, p).reshape(out[:-1].shape)
    return out


def decays_of(run: Run, threads: int) -> Array:
    """The decays (length, batch, heads, p, n) of every step of a run that computes them."""
    job, (batch, length, heads, p) = run.job, run.shape
    written = scratch(length * batch * job.tiles * job.n * LANES)
    compiled = build_decays(run.decay)

    def work(start: int, stop: int) -> None:
        compiled(job, run.given, written, scratch(job.unit * job.n * LANES), start, stop)

    spread_out(work, pieces_of(run, threads), threads)
    rows = written.reshape(length * batch, job.tiles, job.n, LANES)
    return _untiled(rows, heads, p).reshape(length, batch, heads, p, job.n)


class Gradient(NamedTuple):
    """The gradient of sum(y · dy) in x, dt, B, C, and in decay or A, each of its shape."""

    x: Array
    dt: Array
    B: Array
    C: Array
    decay: Array | None
    A: Array | None


def gradient(run: Run, dy: Array, threads: int) -> Gradient:
    """The gradient of a run that was prepared with an interval and scanned. dy: as y."""
    job, shape = run.job, run.shape
    batch, length, heads, p = shape
    whole, wide = job.tiles * job.n * LANES, batch * length * job.tiles * LANES
    adjoint = Adjoint(
        widened(dy, repeat=False).reshape(-1),
        scratch(wide),
        np.zeros_like(run.given.dt) if run.head else scratch(wide),
        scratch(0 if run.head else batch * whole),
        np.zeros_like(run.given.decay),
        np.zeros_like(run.given.B),
        np.zeros_like(run.given.C),
    )
    given = run.given._replace(y=scratch(wide))
    compiled = build_gradient(run.state, run.decay, run.head)

    def work(start: int, stop: int) -> None:
        memory = Work(
            scratch((job.interval + 1) * whole),
            scratch(0 if run.head else job.interval * whole),
            scratch(whole),
            scratch(2 * job.n * LANES),
            scratch(job.unit * job.n * LANES),
        )
        compiled(job, given, adjoint, memory, start, stop)

    spread_out(work, [(b, b + 1) for b in range(batch)], threads)
    rows = (batch, length, job.groups, job.n)
    dx, dB, dC = narrowed(adjoint.dx, shape), adjoint.dB.reshape(rows), adjoint.dC.reshape(rows)
    if run.head:
        ddt, ddecay = adjoint.ddt.reshape(shape[:3]), adjoint.ddecay.reshape(shape[:3])
        return Gradient(dx, ddt, dB, dC, ddecay, None)
    dA = adjoint.dA.reshape(batch, job.tiles, job.n, LANES).sum(axis=0, keepdims=True)
    return Gradient(dx, narrowed(adjoint.ddt, shape), dB, dC, None, _untiled(dA, heads, p)[0])


def _unit(heads: int, head: int, state: Spec, decay: Spec) -> int:
    """Tiles that share a dynamic scale, or else TILES, which makes use of whole cache lines."""
    if decay.span == TENSOR or (state.span == TENSOR and not state.by_head):
        return heads * head
    return head if state.span == TENSOR else min(TILES, heads * head)


def _known(spec: Spec, shape: tuple[int, int, int]) -> Array:
    """Calibrated scales and their bounds, in tiles; see `Given`."""
    if spec.span not in (STATIC, STATIC_EACH):
        return _NONE
    fields = spec.known(shape)
    return tiled(fields[..., :1] if spec.span == STATIC else fields).reshape(-1)


# -- layouts --------------------------------------------------------------------------------------


def widened(x: Array, repeat: bool = True) -> Array:
    """x (…, p) with p padded to whole tiles by its last number, or by zeros; aligned."""
    if missing := -x.shape[-1] % LANES:
        last = x[..., -1:] if repeat else np.zeros_like(x[..., -1:])
        x = np.concatenate([x, np.repeat(last, missing, axis=-1)], axis=-1)
    return aligned(x)


def narrowed(x: Array, shape: tuple[int, ...]) -> Array:
    """Undoes `widened`, from a flat array. Contiguous, since last bits of PyTorch's sums may depend
    on strides."""
    return np.ascontiguousarray(x.reshape(*shape[:-1], -1)[..., : shape[-1]])


def tiled(x: Array) -> Array:
    """(batch, heads, p, n) -> (batch, tiles, n, 16), a copy."""
    batch, heads, p, n = x.shape
    tiles = -(-p // LANES)
    out = scratch(batch * heads * tiles * n * LANES).reshape(batch, heads, tiles, n, LANES)
    whole = p // LANES
    cut = x[:, :, : whole * LANES].reshape(batch, heads, whole, LANES, n)
    out[:, :, :whole] = cut.swapaxes(3, 4)
    if rest := p % LANES:
        last = x[:, :, whole * LANES :].swapaxes(2, 3)
        out[:, :, whole, :, :rest] = last
        out[:, :, whole, :, rest:] = last[..., -1:]
    return out.reshape(batch, heads * tiles, n, LANES)


def _untiled(x: Array, heads: int, p: int) -> Array:
    """(batch, tiles, n, 16) -> (batch, heads, p, n)."""
    batch, tiles, n, _ = x.shape
    rows = x.reshape(batch, heads, tiles // heads, n, LANES).swapaxes(3, 4)
    return np.ascontiguousarray(rows.reshape(batch, heads, -1, n)[:, :, :p])
