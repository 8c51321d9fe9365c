"""The kernel of S5's recurrence and its gradient against the reference loop and autograd."""

from __future__ import annotations

from dataclasses import replace
from math import inf, nan
from typing import Any

import pytest
import torch
from builders import vector
from hypothesis import given, settings
from hypothesis import strategies as st
from recurrence import assert_same, rounded, state_site
from recurrence import problem as driven_by_heads
from schemes import schemes_for
from torch import Tensor

from sensprobe.numerics.storage import Carry, Storage, Watched
from sensprobe.ops import modal_scan
from sensprobe.ops.modal_scan import associative, reference
from sensprobe.plans.scheme import Scheme
from sensprobe.testing.kernel import KernelContract

SCHEMES = [
    *(None, "int2", "int8/head/parts", "int13/head/asym", "int5/group3/asym/parts", "int8/channel"),
    *("e4m3/head", "log5", "bf16", "fp16/truncate", "fp32/clip0.5", "int8/head/s32"),
    *("int4/dynamic", "int8/head/dynamic", "int5/head/asym/parts/dynamic", "int6/asym/dynamic"),
    *("int8/group3/asym/parts/dynamic", "int4/group8/dynamic/pow2", "e4m3/parts/dynamic"),
    *("int8/head/stochastic3", "int4/dynamic/stochastic", "int6/group9/dynamic/stochastic"),
    *("int8/head/feedback", "int4/asym/parts/dynamic/feedback", "log8/feedback", "bf16/feedback"),
    *("int8/dynamic/every3", "int4/head/every3/feedback/clip2", "int8/head/dynamic/clip1.5"),
]
SOME = [*SCHEMES[:1], "int8/head/asym/parts", "int4/dynamic", "int5/group3/asym/parts/dynamic"]


def problem(batch: int, length: int, heads: int, n: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    """v and A of a stable recurrence."""
    v = vector(batch, length, 2 * heads * n, seed=seed + 5, dtype=torch.float32)
    return v, driven_by_heads(1, 1, heads, n, seed)[1]


def fast(v: Tensor, *rest: Any) -> tuple[Tensor, Carry]:
    return modal_scan(v.clone(), *rest)


def storage_of(scheme: str | None, heads: int, n: int, **more: float) -> Storage:
    return None if scheme is None else rounded(scheme, heads, n, **more)


class TestContract(KernelContract):
    kernel = staticmethod(fast)
    reference = staticmethod(reference)

    def problem(self, length: int) -> tuple[Tensor, ...]:
        return problem(3, length, 2, 5)

    def storage(self, scheme: str) -> Storage:
        return rounded(scheme, 2, 5)


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize(("heads", "n"), [(3, 7), (1, 40)])
def test_every_storage_equals_the_reference(scheme: str | None, heads: int, n: int) -> None:
    p, storage = problem(9, 21, heads, n), storage_of(scheme, heads, n)
    assert_same(fast(*p, storage), reference(*p, storage))


@pytest.mark.parametrize("scheme", SOME)
@pytest.mark.parametrize(
    "size", [(1, 1, 1, 2), (17, 3, 2, 8), (2, 70, 1, 33), (3, 0, 2, 2), (0, 5, 2, 3)]
)
def test_odd_sizes(scheme: str | None, size: tuple[int, int, int, int]) -> None:
    p, storage = problem(*size), storage_of(scheme if size[3] > 2 else None, *size[2:])
    assert_same(fast(*p, storage), reference(*p, storage))


@pytest.mark.slow
@settings(max_examples=400)
@given(schemes_for(state_site(3, 5)), st.integers(0, 99), st.sampled_from([1e-4, 1.0, 1e4]))
def test_any_scheme(scheme: Scheme, seed: int, gain: float) -> None:
    scheme = replace(scheme, range="absmax", clip=scheme.clip and 3 * gain)
    v, A = problem(3, 20, 3, 5, seed)
    storage = rounded(scheme, 3, 5, reach=2 * gain)
    assert_same(fast(gain * v, A, storage), reference(gain * v, A, storage))


@pytest.mark.parametrize("odd", [nan, inf, -inf, 3e38, -1e-45])
@pytest.mark.parametrize("scheme", [*SOME, "bf16", "int8/head/dynamic"])
def test_odd_numbers_do_what_they_do_in_the_reference(scheme: str | None, odd: float) -> None:
    """And nothing to the sequences that take turns with theirs."""
    v, A = problem(4, 12, 2, 3)
    clean, v[1, 5, 0] = v.clone(), odd
    storage = storage_of(scheme, 2, 3)
    got = fast(v, A, storage)
    assert_same(got, reference(v, A, storage))
    others = [0, 2, 3]
    assert torch.equal(got[0][others], fast(clean, A, storage)[0][others])


@pytest.mark.parametrize("scheme", [*SOME, "int4/dynamic/stochastic"])
@pytest.mark.parametrize("threads", [1, 2, 3])
def test_a_sequence_depends_neither_on_its_batch_nor_on_threads(
    scheme: str | None, threads: int
) -> None:
    v, A = problem(19, 20, 2, 3)
    whole, _ = fast(v, A, storage_of(scheme, 2, 3))
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        for start, stop in [(0, 1), (5, 17), (18, 19)]:
            part, _ = fast(v[start:stop], A, storage_of(scheme, 2, 3, first=start))
            assert torch.equal(part, whole[start:stop])
    finally:
        torch.set_num_threads(before)


def test_the_states_are_written_over_the_drive() -> None:
    v, A = problem(2, 9, 1, 4)
    states, _ = modal_scan(v, A, None)
    assert states.data_ptr() == v.data_ptr()


def test_every_state_is_shown_to_one_who_watches() -> None:
    (v, A), shown = problem(2, 9, 1, 4), []
    states, _ = fast(v, A, Watched(lambda some, step: shown.append((step, some.clone()))))
    assert [step for step, _ in shown] == [0]
    assert torch.equal(
        torch.cat([some for _, some in shown]), states.view(2, 9, 1, 4, 2).movedim(1, 0)
    )


@pytest.mark.parametrize("length", [0, 1, 2, 3, 64, 101])
def test_an_associative_scan_has_the_same_states(length: int) -> None:
    """To the bound of float32 sums in another order."""
    v, A = problem(2, length, 2, 3)
    got, want = associative(v, A), reference(v.double(), A.to(torch.complex128))[0]
    assert got.shape == v.shape
    assert ((got - want).abs() <= 2e-6 * want.abs().max().item() if length else got == want).all()


def test_that_bound_catches_a_wrong_scan() -> None:
    v, A = problem(2, 64, 2, 3)
    want = reference(v, A)[0]
    assert (associative(v, A * (1 + 1e-4)) - want).abs().max() > 4e-6 * want.abs().max()


# -- the gradient ---------------------------------------------------------------------------------


def gradients(scan: Any, v: Tensor, A: Tensor, *rest: Any) -> list[Tensor]:
    """Of a weighted sum of the states, in v and A."""
    leaves = [x.clone().requires_grad_() for x in (v, A)]
    states, _ = scan(leaves[0] * 1, leaves[1], *rest)
    weights = torch.randn(states.shape, generator=torch.Generator().manual_seed(1))
    (states * weights).sum().backward()
    return [x.grad for x in leaves]  # type: ignore[misc]


def assert_near(got: list[Tensor], wanted: list[Tensor]) -> None:
    """Equal to two millionths of the largest: sums of some thousand float32 terms in another
    order."""
    for a, b in zip(got, wanted, strict=True):
        assert (a - b).abs().max() <= 2e-6 * b.abs().max()


@pytest.mark.parametrize("size", [(2, 23, 3, 5), (17, 130, 1, 19), (1, 64, 1, 1), (1, 1, 5, 3)])
def test_it_has_the_gradient_of_the_reference(size: tuple[int, ...]) -> None:
    p = problem(*size)
    assert_near(gradients(modal_scan, *p), gradients(reference, *p))


@pytest.mark.parametrize("scheme", [s for s in SCHEMES if s])
def test_rounding_passes_gradients_straight_through(scheme: str) -> None:
    p, storage = problem(9, 40, 3, 7), rounded(scheme, 3, 7)
    assert_near(gradients(modal_scan, *p, storage), gradients(reference, *p, storage))


def test_the_gradient_is_of_the_rounded_trajectory() -> None:
    p, storage = problem(3, 70, 2, 5), rounded("int4/head/dynamic", 2, 5)
    exact, coarse = (gradients(modal_scan, *p, s)[1] for s in (None, storage))
    assert (exact - coarse).abs().max() > 1e-2 * exact.abs().max()


def test_it_goes_on_from_a_carry_and_leaves_it() -> None:
    (v, A), storage = problem(2, 90, 2, 3), rounded("int8/head/dynamic", 2, 3)
    _, carry = fast(v[:, :20], A, storage)
    kept = carry.state.clone()
    found = gradients(modal_scan, v[:, 20:], A, storage, carry)
    assert torch.equal(carry.state, kept)
    assert_near(found, gradients(reference, v[:, 20:], A, storage, carry))


def test_a_drive_that_is_a_leaf_of_a_graph_is_not_written_over() -> None:
    v, A = problem(2, 5, 1, 3)
    with pytest.raises(RuntimeError, match="leaf Variable"):
        modal_scan(v.requires_grad_(), A)
