"""The kernel against the reference, bit for bit, and the reference's definition in float64."""

from __future__ import annotations

from dataclasses import replace
from math import inf, nan

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from recurrence import Problem, assert_same, problem, rounded, state_site
from schemes import schemes_for
from sensprobe_kernels.ops.diagonal_scan import cpu
from torch import Tensor

from sensprobe.numerics.storage import Carry, Rounded
from sensprobe.ops import diagonal_scan as fast
from sensprobe.ops.diagonal_scan import reference
from sensprobe.plans.scheme import Scheme
from sensprobe.testing.kernel import KernelContract

CODES = [
    *("int2", "int3/head", "int8", "int16", "int13/head/parts", "int8/head/asym/parts"),
    *("int16/asym", "int8/group2", "int8/group3/asym/parts", "int5/channel"),
    *("e4m3/head", "e5m2/parts", "e2m1/group2", "log3/head", "log5", "log8/head/parts"),
]
STATIC = [*CODES, "int8/head/s32", "int8/head/asym/s32", "int8/head/pow2", "e4m3/s32"]
DYNAMIC = [
    *(f"{code}/dynamic" for code in CODES),
    *("int8/head/dynamic/s32", "int8/head/asym/dynamic/pow2", "int4/asym/dynamic/s32"),
]
OPTIONS = [
    *("bf16", "fp16", "fp32/clip1.5", "int8/head/clip1.5", "int8/head/asym/dynamic/clip1.5"),
    *("int8/head/truncate", "int8/asym/dynamic/truncate", "e4m3/truncate", "bf16/truncate"),
    *("int8/head/stochastic3", "int4/dynamic/stochastic", "log5/stochastic", "bf16/stochastic9"),
    *("int8/head/feedback", "int4/head/asym/parts/dynamic/feedback", "e4m3/feedback"),
    *("bf16/feedback", "int8/head/s32/feedback", "log8/feedback", "int6/dynamic/feedback"),
    *("int8/head/every4", "int8/dynamic/every3", "int4/head/every3/feedback/clip2"),
]
SOME = [
    *(None, "int8/head/asym/parts", "int8/head/asym/parts/dynamic", "int4/dynamic"),
    *("int8/head/stochastic3", "int4/head/every3/feedback/clip2"),
]


def storage_of(scheme: str | None, u: Tensor, A: Tensor, **more: float) -> Rounded | None:
    return None if scheme is None else rounded(scheme, *A.shape, **more)


def part(p: Problem, sequences: slice, steps: slice = slice(None)) -> Problem:
    return p[0][sequences, steps], *p[1:]


@pytest.mark.parametrize("scheme", [None, *STATIC, *DYNAMIC, *OPTIONS])
def test_every_storage_equals_the_reference(scheme: str | None) -> None:
    p = problem(17, 70, 3, 5)
    storage = storage_of(scheme, *p[:2])
    assert_same(fast(*p, storage), reference(*p, storage))


@pytest.mark.parametrize("scheme", SOME)
@pytest.mark.parametrize(
    ("batch", "length", "heads", "n"),
    [(1, 1, 1, 1), (15, 2, 3, 1), (16, 129, 1, 5), (33, 63, 17, 2), (2, 65, 2, 32), (3, 0, 2, 2)],
)
def test_odd_sizes(scheme: str | None, batch: int, length: int, heads: int, n: int) -> None:
    if n == 1 and scheme and "dynamic" in scheme:
        scheme = "int4/dynamic" if heads > 1 else None  # else a scale for each value
    p = problem(batch, length, heads, n)
    storage = storage_of(scheme, *p[:2])
    assert_same(fast(*p, storage), reference(*p, storage))


def test_an_empty_batch_gives_an_empty_result() -> None:
    p = problem(0, 5, 2, 3)
    assert_same(fast(*p), reference(*p))


@settings(max_examples=25)
@given(st.sampled_from(SOME), st.integers(0, 2**31), st.floats(1e-6, 1e6), st.floats(1e-3, 30))
def test_any_numbers(scheme: str | None, seed: int, gain: float, reach: float) -> None:
    u, *rest = problem(3, 20, 2, 4, seed)
    p = (gain * u, *rest)
    storage = storage_of(scheme, *p[:2], reach=gain * reach)
    assert_same(fast(*p, storage), reference(*p, storage))


@pytest.mark.slow
@settings(max_examples=600)
@given(schemes_for(state_site(3, 5)), st.integers(0, 99), st.sampled_from([1e-4, 1.0, 1e4]))
def test_any_scheme(scheme: Scheme, seed: int, gain: float) -> None:
    scheme = replace(scheme, range="absmax", clip=scheme.clip and 3 * gain)
    u, *rest = problem(3, 20, 3, 5, seed)
    p = (gain * u, *rest)
    storage = rounded(scheme, 3, 5, reach=2 * gain)
    assert_same(fast(*p, storage), reference(*p, storage))


# -- what a state may meet ------------------------------------------------------------------------


@pytest.mark.parametrize("odd", [nan, inf, -inf, 3e38, -1e-45])
@pytest.mark.parametrize("scheme", [*SOME, "int8/head/asym/dynamic/pow2", "bf16", "log8/dynamic"])
def test_odd_numbers_do_what_they_do_in_the_reference(scheme: str | None, odd: float) -> None:
    u, *rest = problem(4, 12, 2, 3)
    u[1, 5, 0] = odd
    p = (u, *rest)
    storage = storage_of(scheme, *p[:2])
    got = fast(*p, storage)
    assert_same(got, reference(*p, storage))
    clean = fast(problem(4, 12, 2, 3)[0], *rest, storage)
    others = [0, 2, 3]
    assert torch.equal(got[0][others], clean[0][others])


@pytest.mark.parametrize("scheme", SOME)
def test_silence_stays_silent(scheme: str | None) -> None:
    u, *rest = problem(2, 9, 2, 3)
    p = (torch.zeros_like(u), *rest)
    if scheme and "stochastic" not in scheme:
        y, memory = fast(*p, rounded(scheme, 2, 3))
        assert not y.any()
        assert not memory.state.any()


# -- what the result does not depend on -----------------------------------------------------------


@pytest.mark.parametrize("scheme", SOME)
@pytest.mark.parametrize("cuts", [(1,), (7, 8, 31)])
def test_pieces_of_a_sequence_equal_the_whole(scheme: str | None, cuts: tuple[int, ...]) -> None:
    p = problem(5, 40, 3, 4)
    storage = storage_of(scheme, *p[:2])
    memory: Carry | None = None
    pieces = []
    for start, stop in zip((0, *cuts), (*cuts, 40), strict=True):
        y, memory = fast(*part(p, slice(None), slice(start, stop)), storage, memory)
        pieces.append(y)
    assert memory is not None
    assert_same((torch.cat(pieces, dim=1), memory), fast(*p, storage))


@pytest.mark.parametrize("scheme", SOME)
def test_a_sequence_does_not_depend_on_its_batch(scheme: str | None) -> None:
    p = problem(37, 20, 2, 3)
    whole, _ = fast(*p, storage_of(scheme, *p[:2]))
    for start, stop in [(0, 1), (5, 22), (36, 37)]:
        storage = storage_of(scheme, *p[:2], first=start)
        y, _ = fast(*part(p, slice(start, stop)), storage)
        assert torch.equal(y, whole[start:stop])


@pytest.mark.parametrize("scheme", SOME)
def test_threads_do_not_change_a_bit(scheme: str | None) -> None:
    p = problem(40, 20, 5, 3)
    storage = storage_of(scheme, *p[:2])
    alone = fast(*p, storage)
    torch.set_num_threads(3)
    try:
        assert_same(fast(*p, storage), alone)
    finally:
        torch.set_num_threads(1)


@pytest.mark.parametrize("scheme", SOME)
def test_what_memory_held_before_is_not_read(
    scheme: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    p = problem(17, 40, 3, 5)
    storage = storage_of(scheme, *p[:2])
    clean = fast(*p, storage)
    zeros = cpu.scratch
    monkeypatch.setattr(cpu, "scratch", lambda size: zeros(size) + np.float32(nan))
    monkeypatch.setattr(np, "empty_like", lambda x: np.full_like(x, nan))
    assert_same(fast(*p, storage), clean)


def test_a_failure_in_a_thread_is_raised(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(size: int) -> None:
        raise MemoryError("full")

    monkeypatch.setattr(cpu, "scratch", broken)
    with pytest.raises(MemoryError, match="full"):
        fast(*problem(33, 2, 2, 2))


# -- proof that these comparisons can fail --------------------------------------------------------


@pytest.mark.parametrize("scheme", SOME)
def test_a_wrong_decay_is_seen(scheme: str | None) -> None:
    u, A, B, C = problem(17, 40, 3, 5)
    storage = storage_of(scheme, u, A)
    with pytest.raises(AssertionError):
        assert_same(fast(u, A.roll(1, dims=1), B, C, storage), reference(u, A, B, C, storage))


@pytest.mark.parametrize("scheme", SOME[1:])
def test_a_state_rounded_differently_is_seen(scheme: str) -> None:
    p = problem(17, 40, 3, 5)
    other = scheme.replace("int8", "int7").replace("int4", "int5")
    with pytest.raises(AssertionError):
        assert_same(fast(*p, rounded(scheme, 3, 5)), reference(*p, rounded(other, 3, 5)))


# -- the exact recurrence in float64 --------------------------------------------------------------


def bounded(u: Tensor, A: Tensor, B: Tensor, C: Tensor) -> tuple[Tensor, Tensor]:
    """y in float64, and how far float32 may be from it by running error analysis.

    With unit roundoff r, a step rounds each part of A h three times and of B u twice: an error of
    at most sqrt(2) r (3 |A h| + 2 |B u|), which later steps shrink by |A|. The sum over n terms of
    |C h|, each a difference of two products, adds (n + 2) r of their magnitudes.
    """
    r = 2.0**-24 * 1.001  # second-order terms
    u, A, B, C = u.double(), A.to(torch.complex128), B.to(torch.complex128), C.to(torch.complex128)
    h = torch.zeros(u.shape[0], *A.shape, dtype=torch.complex128)
    error = torch.zeros(h.shape, dtype=torch.float64)
    y, bound = [], []
    for t in range(u.shape[1]):
        drive = B * u[:, t, :, None]
        error = A.abs() * error + 2**0.5 * r * (3 * (A * h).abs() + 2 * drive.abs())
        h = A * h + drive
        y.append(2 * (C * h).sum(-1).real)
        terms = C.abs() * h.abs()
        bound.append(2 * (C.abs() * error + (A.shape[1] + 2) * r * terms).sum(-1))
    return torch.stack(y, dim=1), torch.stack(bound, dim=1)


@pytest.mark.parametrize("length", [1, 63, 300])
def test_the_exact_scan_is_as_near_float64_as_float32_can_be(length: int) -> None:
    p = problem(5, length, 3, 7)
    y, bound = bounded(*p)
    assert ((fast(*p)[0].double() - y).abs() <= bound).all()


def test_this_bound_catches_a_wrong_kernel() -> None:
    u, A, B, C = problem(5, 63, 3, 7)
    y, bound = bounded(u, A * (1 + 1e-5), B, C)
    assert not ((fast(u, A, B, C)[0].double() - y).abs() <= bound).all()


class TestKernel(KernelContract):
    kernel, reference = staticmethod(fast), staticmethod(reference)

    def problem(self, length: int) -> Problem:
        return problem(3, length, 4, 3)

    def storage(self, scheme: str) -> Rounded:
        return rounded(scheme, 4, 3)
