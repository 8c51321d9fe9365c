"""The gradient kernel against autograd through the reference loop."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from scans import MAMBA, MAMBA2, REFERENCES, Problem, kept, problem, sites
from sensprobe_kernels.ops.selective_scan import cpu
from torch import Tensor

from sensprobe import ops
from sensprobe.numerics.storage import Carry, Custom, Rounded, passed, store

both = pytest.mark.parametrize("name", [MAMBA, MAMBA2])

SIZES = {
    MAMBA: [(2, 23, 21, 5), (1, 1, 3, 2), (3, 16, 32, 4), (1, 50, 70, 3)],
    MAMBA2: [(2, 23, 4, 21, 2, 5), (1, 1, 1, 1, 1, 2), (3, 16, 2, 16, 1, 4), (1, 50, 6, 5, 3, 3)],
}
CASES = [(name, size) for name, sizes in SIZES.items() for size in sizes]


def gradients(scan: Any, p: Problem, *storages: Any) -> list[Tensor]:
    """Of a weighted sum of y, in x, dt, A, B and C."""
    leaves = [x.clone().requires_grad_() for x in p]
    y, _ = scan(*leaves, *storages)
    weights = torch.randn(y.shape, generator=torch.Generator().manual_seed(1))
    (y * weights).sum().backward()
    return [x.grad for x in leaves]  # type: ignore[misc]


def assert_near(got: list[Tensor], wanted: list[Tensor]) -> None:
    """Equal to a millionth of the largest: sums of some hundred float32 terms in another order."""
    for a, b in zip(got, wanted, strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=2e-6 * b.abs().max().item())


def straight(rounded: Rounded | None, decay: bool) -> Custom | None:
    """The same rounding for the reference loop, passing gradients straight through."""

    def through(x: Tensor, step: int) -> Tensor:
        exact = x.detach()
        if decay:
            return x + (passed(exact, rounded, step) - exact)
        return x + (store(Carry(exact, None, step), exact, rounded).state - exact)

    return None if rounded is None else Custom(through)


@pytest.mark.parametrize(("name", "size"), CASES)
def test_it_is_the_gradient_of_the_reference(name: str, size: tuple[int, ...]) -> None:
    p = problem(name, *size)
    assert_near(gradients(getattr(ops, name), p), gradients(REFERENCES[name], p))


@both
@pytest.mark.parametrize(
    ("decay", "state"),
    [
        ("int8/tensor", "int8/head"),
        (None, "int4/channel/dynamic"),
        ("int8/stochastic2", None),
        ("int6/dynamic", "int8/dynamic"),
    ],
)
def test_rounding_passes_gradients_straight_through(
    name: str, decay: str | None, state: str | None
) -> None:
    p = problem(name, *SIZES[name][0])
    of_state, of_decay = sites(name, p)
    passing, storage = kept(decay, of_decay, 0.7), kept(state, of_state, 2.0)
    wanted = gradients(REFERENCES[name], p, straight(passing, True), straight(storage, False))
    assert_near(gradients(getattr(ops, name), p, passing, storage), wanted)


@both
@pytest.mark.parametrize("scheme", ["int8/head/feedback", "int4/head/every3", "fp32/clip0.5"])
def test_the_stretches_between_checkpoints_are_computed_as_they_were(
    name: str, scheme: str
) -> None:
    """One checkpoint for the whole sequence, or one for each step: the gradient is the same."""
    p = problem(name, *SIZES[name][0])
    storage = kept(scheme, sites(name, p)[0], 2.0)
    found, prepare = [], cpu.prepare
    for steps in (1, 7, 23):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(
                cpu, "prepare", lambda *args, interval=0, i=steps: prepare(*args, interval=i)
            )
            found.append(gradients(getattr(ops, name), p, None, storage))
    for other in found[1:]:
        assert all(map(torch.equal, found[0], other))


@both
def test_a_second_backward_gives_the_same(name: str) -> None:
    leaves = [x.clone().requires_grad_() for x in problem(name, *SIZES[name][0])]
    y, _ = getattr(ops, name)(*leaves)
    first = torch.autograd.grad(y.sum(), leaves, retain_graph=True)
    assert all(map(torch.equal, first, torch.autograd.grad(y.sum(), leaves)))


@both
def test_what_needs_no_gradient_gets_none_and_no_checkpoints(name: str, monkeypatch) -> None:
    intervals = []
    prepare = cpu.prepare

    def seen(*args: Any, interval: int = 0) -> Any:
        intervals.append(interval)
        return prepare(*args, interval=interval)

    monkeypatch.setattr(cpu, "prepare", seen)
    p = problem(name, *SIZES[name][0])
    y, _ = getattr(ops, name)(*p)
    assert not y.requires_grad
    p[3].requires_grad_()
    y, memory = getattr(ops, name)(*p)
    assert y.requires_grad
    assert not memory.state.requires_grad
    with torch.no_grad():
        getattr(ops, name)(*p)
    assert [bool(mark) for mark in intervals] == [False, True, False]


@both
def test_a_state_that_needs_a_gradient_runs_on_the_reference(name: str) -> None:
    p = problem(name, *SIZES[name][0])
    state = torch.zeros(2, *sites(name, p)[0].shape, requires_grad=True)
    y, _ = getattr(ops, name)(*p, None, None, Carry(state))
    y.sum().backward()
    assert state.grad is not None
    assert state.grad.abs().max() > 0
