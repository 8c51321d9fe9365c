"""The gradient kernel of the diagonal recurrence against autograd through the reference loop."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from recurrence import Problem, problem, rounded
from sensprobe_kernels.ops.diagonal_scan import cpu
from torch import Tensor

from sensprobe import ops
from sensprobe.numerics.storage import Carry
from sensprobe.ops.diagonal_scan import reference

SIZES = [(2, 23, 3, 5), (17, 130, 3, 5), (1, 64, 1, 1), (16, 65, 18, 2), (1, 1, 5, 3)]
SCHEMES = [
    *("int8/head/dynamic", "int4/dynamic", "int8/head/asym/parts", "int5/group2/dynamic"),
    *("int8/head/stochastic3", "e4m3/head", "log5", "bf16"),
    *("int4/head/every3", "fp32/clip0.5"),
]


def gradients(scan: Any, p: Problem, *rest: Any) -> list[Tensor]:
    """Of a weighted sum of y, in u, A, B and C."""
    leaves = [x.clone().requires_grad_() for x in p]
    y, _ = scan(*leaves, *rest)
    weights = torch.randn(y.shape, generator=torch.Generator().manual_seed(1))
    (y * weights).sum().backward()
    return [x.grad for x in leaves]  # type: ignore[misc]


def assert_near(got: list[Tensor], wanted: list[Tensor]) -> None:
    """Equal to two millionths of the largest: sums of some thousand float32 terms in another
    order."""
    for a, b in zip(got, wanted, strict=True):
        assert (a - b).abs().max() <= 2e-6 * b.abs().max()


@pytest.mark.parametrize("size", SIZES)
def test_it_is_the_gradient_of_the_reference(size: tuple[int, ...]) -> None:
    p = problem(*size)
    assert_near(gradients(ops.diagonal_scan, p), gradients(reference, p))


@pytest.mark.parametrize("scheme", SCHEMES)
def test_rounding_passes_gradients_straight_through(scheme: str) -> None:
    p = problem(17, 70, 3, 5)
    storage = rounded(scheme, 3, 5)
    assert_near(gradients(ops.diagonal_scan, p, storage), gradients(reference, p, storage))


@pytest.mark.parametrize(
    "scheme",
    [
        *("int3/head/dynamic/stochastic", "int6/group3/asym/parts/dynamic/stochastic"),
        *("int5/head/parts/stochastic", "e4m3/head/dynamic/stochastic", "bf16/stochastic"),
        *("int4/dynamic/stochastic", "int4/head/dynamic/every3/stochastic"),
    ],
)
def test_states_are_what_random_bits_made_of_them(scheme: str) -> None:
    """Also of more states than a word of what was decided has room for."""
    p = problem(17, 70, 3, 19)
    storage = rounded(scheme, 3, 19)
    assert_near(gradients(ops.diagonal_scan, p, storage), gradients(reference, p, storage))


@pytest.mark.parametrize("scheme", ["int8/head/feedback", "int4/head/every3/feedback/clip2"])
def test_error_feedback_passes_them_too(scheme: str) -> None:
    p = problem(3, 70, 2, 5)
    storage = rounded(scheme, 2, 5)
    assert_near(gradients(ops.diagonal_scan, p, storage), gradients(reference, p, storage))


def test_the_gradient_is_of_the_rounded_trajectory() -> None:
    """Else the tests above would pass of a kernel that forgets to round."""
    p, storage = problem(3, 70, 2, 5), rounded("int4/head/dynamic", 2, 5)
    exact, coarse = (gradients(ops.diagonal_scan, p, s)[1] for s in (None, storage))
    assert (exact - coarse).abs().max() > 1e-2 * exact.abs().max()


@pytest.mark.parametrize("threads", [1, 2, 3])
def test_any_number_of_threads_gives_the_same_bits(threads: int) -> None:
    p, storage = problem(33, 130, 9, 3), rounded("int8/head/dynamic", 9, 3)
    wanted = gradients(ops.diagonal_scan, p, storage)
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        found = gradients(ops.diagonal_scan, p, storage)
    finally:
        torch.set_num_threads(before)
    assert all(map(torch.equal, found, wanted))


def test_it_goes_on_from_a_carry_and_leaves_it() -> None:
    p, storage = problem(2, 90, 2, 3), rounded("int8/head/dynamic", 2, 3)
    _, carry = ops.diagonal_scan(p[0][:, :20], *p[1:], storage)
    kept = carry.state.clone()
    rest = (p[0][:, 20:], *p[1:])
    found = gradients(ops.diagonal_scan, rest, storage, carry)
    assert torch.equal(carry.state, kept)
    assert_near(found, gradients(reference, rest, storage, carry))


def test_a_second_backward_gives_the_same() -> None:
    leaves = [x.clone().requires_grad_() for x in problem(2, 70, 3, 2)]
    y, _ = ops.diagonal_scan(*leaves)
    first = torch.autograd.grad(y.sum(), leaves, retain_graph=True)
    assert all(map(torch.equal, first, torch.autograd.grad(y.sum(), leaves)))


def test_what_needs_no_gradient_keeps_no_checkpoints(monkeypatch: pytest.MonkeyPatch) -> None:
    kept = []
    prepare = cpu.prepare

    def seen(*args: Any, keep: bool = False) -> Any:
        kept.append(keep)
        return prepare(*args, keep=keep)

    monkeypatch.setattr(cpu, "prepare", seen)
    p = problem(2, 20, 2, 3)
    y, _ = ops.diagonal_scan(*p)
    assert not y.requires_grad
    p[1].requires_grad_()
    y, carry = ops.diagonal_scan(*p)
    assert y.requires_grad
    assert not carry.state.requires_grad
    with torch.no_grad():
        ops.diagonal_scan(*p)
    assert kept == [False, True, False]


def test_a_state_that_needs_a_gradient_runs_on_the_reference() -> None:
    p = problem(2, 20, 2, 3)
    state = torch.zeros(2, 2, 3, 2, requires_grad=True)
    y, _ = ops.diagonal_scan(*p, None, Carry(state))
    y.sum().backward()
    assert state.grad is not None
    assert state.grad.abs().max() > 0


@pytest.mark.parametrize("size", [(2, 0, 2, 3), (0, 5, 2, 3)])
def test_nothing_has_a_gradient_of_zeros(size: tuple[int, ...]) -> None:
    for got, like in zip(gradients(ops.diagonal_scan, p := problem(*size)), p, strict=True):
        assert got.shape == like.shape
        assert not got.abs().sum()
