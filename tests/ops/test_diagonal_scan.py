"""The reference recurrence against what defines it: a sum over the past, and memory in the loop."""

from __future__ import annotations

import pytest
import torch
from recurrence import assert_same, problem, rounded
from torch import Tensor

from sensprobe.numerics.storage import Carry, Custom, fresh, store
from sensprobe.ops.diagonal_scan import diagonal_step
from sensprobe.ops.diagonal_scan import reference as diagonal_scan


def by_definition(u: Tensor, A: Tensor, B: Tensor, C: Tensor) -> Tensor:
    """y_t = sum over j <= t of 2 Re(sum_n C A^(t-j) B) u_j, in float64."""
    length = u.shape[1]
    A, B, C = (x.to(torch.complex128) for x in (A, B, C))
    kernel = torch.stack([2 * (C * A**k * B).sum(-1).real for k in range(length)])  # (l, h)
    y = torch.zeros(u.shape, dtype=torch.float64)
    for t in range(length):
        y[:, t] = sum(kernel[t - j] * u[:, j].double() for j in range(t + 1))
    return y


def test_an_exact_state_gives_the_convolution_with_the_kernel() -> None:
    p = problem(3, 20, 2, 4)
    y, _ = diagonal_scan(*p)
    torch.testing.assert_close(y.double(), by_definition(*p), rtol=0, atol=1e-4)


def test_another_decay_is_another_convolution() -> None:
    u, A, B, C = problem(3, 20, 2, 4)
    y, _ = diagonal_scan(u, A.roll(1, dims=1), B, C)
    assert (y.double() - by_definition(u, A, B, C)).abs().max() > 1e-1


def test_the_state_is_stored_inside_the_loop_and_y_reads_what_is_stored() -> None:
    u, A, B, C = problem(2, 5, 2, 3)
    y, memory = diagonal_scan(u, A, B, C, Custom(lambda state, step: state.round()))
    h = torch.zeros(2, 2, 3, dtype=torch.complex64)
    for t in range(5):
        h = torch.view_as_complex(torch.view_as_real(A * h + B * u[:, t, :, None]).round())
        torch.testing.assert_close(y[:, t], 2 * (C * h).sum(-1).real)
    assert torch.equal(torch.view_as_complex(memory.state), h)


def test_the_arithmetic_is_the_one_written_down() -> None:
    """Each operation of the docstring on Python's numbers, rounded to float32 one by one."""
    u, A, B, C = problem(1, 3, 1, 2)
    y, memory = diagonal_scan(u, A, B, C)

    def f(x: float) -> float:
        return torch.tensor(x, dtype=torch.float32).item()

    h = [(0.0, 0.0)] * 2
    for t in range(3):
        drive, total = u[0, t, 0].item(), 0.0
        for n in range(2):
            a, b, c = (x[0, n].item() for x in (A, B, C))
            re, im = h[n]
            new_re = f(f(f(a.real * re) - f(a.imag * im)) + f(b.real * drive))
            new_im = f(f(f(a.real * im) + f(a.imag * re)) + f(b.imag * drive))
            h[n] = new_re, new_im
            total = f(total + f(f(c.real * new_re) - f(c.imag * new_im)))
        assert y[0, t, 0].item() == 2 * total
    assert memory.state[0, 0].tolist() == [list(pair) for pair in h]


@pytest.mark.parametrize("scheme", [None, "int8/head", "int4/dynamic", "int4/head/feedback"])
def test_steps_one_by_one_equal_the_run(scheme: str | None) -> None:
    u, A, B, C = problem(2, 6, 2, 3)
    storage = scheme and rounded(scheme, 2, 3)
    memory = fresh(2, (2, 3, 2), storage)
    outs = []
    for t in range(6):
        y, memory = diagonal_step(u[:, t], A, B, C, storage, memory)
        outs.append(y)
    assert_same((torch.stack(outs, dim=1), memory), diagonal_scan(u, A, B, C, storage))


def test_a_rounded_state_holds_codes_times_the_scale() -> None:
    u, A, B, C = problem(2, 9, 2, 3)
    storage = rounded("int4/head", 2, 3)
    _, memory = diagonal_scan(u, A, B, C, storage)
    codes = memory.state / storage.scale
    assert torch.equal(codes, codes.round())
    assert codes.abs().max() <= 7


def test_memory_is_what_store_returns() -> None:
    u, A, B, C = problem(2, 1, 2, 3)
    storage = rounded("int4/head/feedback", 2, 3)
    before = Carry(torch.zeros(2, 2, 3, 2), torch.full((2, 2, 3, 2), 0.1), 4)
    _, after = diagonal_scan(u, A, B, C, storage, before)
    new = torch.view_as_real(B * u[:, 0, :, None])
    wanted = store(before, new, storage)
    assert torch.equal(after.state, wanted.state)
    assert torch.equal(after.residual, wanted.residual)
    assert after.step == 5


def test_no_steps_leave_the_memory_alone() -> None:
    u, A, B, C = problem(2, 0, 2, 3)
    memory = Carry(torch.rand(2, 2, 3, 2), None, 7)
    y, after = diagonal_scan(u, A, B, C, None, memory)
    assert y.shape == (2, 0, 2)
    assert after is memory
