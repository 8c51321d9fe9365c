"""The selective recurrences against what defines them: sums over the past, memory in the loop."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from builders import vector
from recurrence import assert_same
from torch import Tensor

from sensprobe.numerics.rounding import scale_and_zero
from sensprobe.numerics.storage import Carry, Custom, Rounded, Watched, fresh
from sensprobe.ops.exponential import exponential
from sensprobe.ops.head_scan import reference as head_scan
from sensprobe.ops.selective_scan import reference as selective_scan
from sensprobe.plans.fitting import check
from sensprobe.plans.scheme import parse, scale_shape
from sensprobe.plans.sites import Axis, Kind, Part, Site

D, N = 3, 4
HEADS, P, GROUPS = 4, 2, 2
SHAPES = {selective_scan: (D, N), head_scan: (HEADS, P, N)}
DECAYS = {selective_scan: (D, N), head_scan: (HEADS,)}
SCANS = [selective_scan, head_scan]
both = pytest.mark.parametrize("scan", SCANS, ids=lambda f: f.__name__)


def problem(scan, batch: int = 2, length: int = 6, seed: int = 0) -> tuple[Tensor, ...]:
    """x, dt, A, B, C of a recurrence that forgets over some ten steps."""

    def normal(*shape: int, k: int) -> Tensor:
        return vector(*shape, seed=10 * seed + k, dtype=torch.float32)

    if scan is selective_scan:
        x, dt = normal(batch, length, D, k=0), normal(batch, length, D, k=1)
        A, BC = normal(D, N, k=2), [normal(batch, length, N, k=k) for k in (3, 4)]
    else:
        x, dt = normal(batch, length, HEADS, P, k=0), normal(batch, length, HEADS, k=1)
        A, BC = normal(HEADS, k=2), [normal(batch, length, GROUPS, N, k=k) for k in (3, 4)]
    return x, dt.exp() / 10, -A.exp(), *BC


def spread_out(scan, p: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    """x, dt (b, l, r), A, B, C (…, r, n) in float64: one row for each recurrence of one channel."""
    x, dt, A, B, C = (v.double() for v in p)
    if scan is selective_scan:
        return x, dt, A, *(v[:, :, None].expand(*x.shape, N) for v in (B, C))
    B, C = (v.repeat_interleave(HEADS // GROUPS, dim=2) for v in (B, C))
    B, C = (v[:, :, :, None].expand(*x.shape, N).flatten(2, 3) for v in (B, C))
    dt = dt[..., None].expand(x.shape).flatten(2)
    return x.flatten(2), dt, A[:, None, None].expand(HEADS, P, N).flatten(0, 1), B, C


def by_definition(scan, p: tuple[Tensor, ...]) -> Tensor:
    """y_t = sum over j <= t of C_t exp(A sum of dt over (j, t]) dt_j B_j x_j, in float64."""
    x, dt, A, B, C = spread_out(scan, p)
    y = torch.zeros_like(x)
    for t in range(x.shape[1]):
        for j in range(t + 1):
            decay = (dt[:, j + 1 : t + 1].sum(1)[..., None] * A).exp()
            y[:, t] += (C[:, t] * decay * B[:, j]).sum(-1) * dt[:, j] * x[:, j]
    return y.reshape(p[0].shape)


@both
def test_an_exact_state_gives_the_sum_over_the_past(scan) -> None:
    p = problem(scan, 3, 20)
    y, memory = scan(*p)
    torch.testing.assert_close(y.double(), by_definition(scan, p), rtol=0, atol=2e-6)
    assert memory.state.shape == (3, *SHAPES[scan])
    assert memory.step == 20


@both
@pytest.mark.parametrize("which", range(5))
def test_that_bound_catches_any_argument_shifted_by_one(scan, which) -> None:
    p = problem(scan, 3, 20)
    wrong = list(p)
    wrong[which] = p[which].roll(1, dims=0 if p[which].ndim < 3 else 1)
    y, _ = scan(*wrong)
    assert (y.double() - by_definition(scan, p)).abs().max() > 1e-2


@both
def test_the_arithmetic_is_the_one_written_down(scan) -> None:
    """Each operation of the docstring on single numbers, rounded to float32 one by one."""
    p = problem(scan, 1, 3)
    y, memory = scan(*p)
    x, dt, A, B, C = (v.float() for v in spread_out(scan, p))
    y, state = y.reshape(1, 3, -1), memory.state.reshape(1, -1, N)
    for row in range(x.shape[2]):
        h = [torch.zeros(())] * N
        for t in range(3):
            drive, total = dt[0, t, row] * x[0, t, row], None
            for n in range(N):
                a = exponential(dt[0, t, row] * A[row, n])
                h[n] = a * h[n] + drive * B[0, t, row, n]
                term = C[0, t, row, n] * h[n]
                total = term if total is None else total + term
            assert y[0, t, row] == total
        assert torch.equal(state[0, row], torch.stack(h))


@both
def test_state_and_decay_are_rounded_inside_the_loop_and_y_reads_what_is_stored(scan) -> None:
    p = problem(scan)
    y, memory = scan(
        *p,
        Custom(lambda a, step: (4 * a).round() / 4),
        Custom(lambda h, step: (8 * h).round() / 8),
    )
    x, dt, A, B, C = (v.float() for v in spread_out(scan, p))
    h = torch.zeros(*x[:, 0].shape, N)
    for t in range(x.shape[1]):
        a = (4 * exponential(dt[:, t, :, None] * A)).round() / 4
        h = (8 * (a * h + (dt[:, t] * x[:, t])[..., None] * B[:, t])).round() / 8
        wanted = (C[:, t] * h).sum(-1)
        torch.testing.assert_close(y[:, t].flatten(1), wanted, rtol=0, atol=1e-5)
    assert torch.equal(memory.state.reshape(h.shape), h)


@both
def test_what_is_watched_is_one_step_at_a_time(scan) -> None:
    """By the reference: no tensor of all decays or states exists to be shown."""
    seen: list[tuple[str, int, tuple[int, ...]]] = []

    def look(name: str) -> Watched:
        return Watched(lambda v, step: seen.append((name, step, tuple(v.shape[1:]))))

    p = problem(scan, 2, 3)
    y, memory = scan(*p, look("decay"), look("state"))
    shapes = {"decay": (2, *DECAYS[scan]), "state": (2, *SHAPES[scan])}
    assert seen == [(n, t, shapes[n]) for t in range(3) for n in ("decay", "state")]
    assert_same((y, memory), scan(*p))


def storages(scan, state: str | None, decay: str | None) -> tuple[Rounded | None, Rounded | None]:
    axes = (Axis.HEAD, Axis.N) if scan is selective_scan else (Axis.HEAD, Axis.CHANNEL, Axis.N)
    inner = DECAYS[scan]
    sites = (
        Site("layers.0.decay", Part.DECAY, Kind.ACTIVATION, inner, axes[: len(inner)]),
        Site("layers.0.state", Part.STATE, Kind.STATE, SHAPES[scan], axes),
    )
    out = []
    for text, site, reach in zip((decay, state), sites, (1.0, 4.0), strict=True):
        if text is None:
            out.append(None)
            continue
        scheme = parse(text)
        check(scheme, site)
        ends = None, None
        if scheme.scaled and not scheme.dynamic:
            high = torch.full(scale_shape(scheme, site), reach)
            ends = scale_and_zero(scheme, -high, high)
        out.append(Rounded(scheme, site, *ends))
    return out[0], out[1]


SCHEMES = [
    (None, None),
    ("int8/head", "int8"),
    ("int4/channel/dynamic", "e4m3/range1"),
    ("int4/feedback", "bf16"),
    ("int8/stochastic", "int8/stochastic"),
    ("int6/asym/dynamic/every3", None),
]


@both
@pytest.mark.parametrize(("state", "decay"), SCHEMES)
def test_pieces_of_a_sequence_equal_the_run(scan, state, decay) -> None:
    p = problem(scan, 2, 7)
    how = storages(scan, state, decay)
    wanted = scan(*p, *how)
    memory, outs = fresh(2, SHAPES[scan], how[1]), []
    for piece in (slice(0, 1), slice(1, 5), slice(5, 5), slice(5, 7)):
        cut = [v[:, piece] if v.ndim > 2 else v for v in p]
        y, memory = scan(*cut, *how, memory)
        outs.append(y)
    assert_same((torch.cat(outs, dim=1), memory), wanted)


@both
def test_stochastic_rounding_depends_on_the_sequence_and_not_on_its_batch(scan) -> None:
    p = problem(scan, 3, 5)
    decay, state = storages(scan, "int4/stochastic", "int4/stochastic")
    y, memory = scan(*p, decay, state)
    alone = [v[2:] if v.ndim > 2 else v for v in p]
    got = scan(*alone, replace(decay, first=2), replace(state, first=2))
    assert_same(got, (y[2:], Carry(memory.state[2:], None, 5)))
    other = scan(*alone, decay, state)
    assert not torch.equal(other[0], y[2:])


@both
def test_a_rounded_state_holds_codes_times_the_scale(scan) -> None:
    decay, state = storages(scan, "int4/head", None)
    _, memory = scan(*problem(scan), decay, state)
    codes = memory.state / state.scale
    assert torch.equal(codes, codes.round())
    assert 0 < codes.abs().max() <= 7


@both
def test_no_steps_leave_the_memory_alone(scan) -> None:
    p = [v[:, :0] if v.ndim > 2 else v for v in problem(scan)]
    memory = Carry(torch.rand(2, *SHAPES[scan]), None, 7)
    y, after = scan(*p, None, None, memory)
    assert y.shape == p[0].shape
    assert after is memory
