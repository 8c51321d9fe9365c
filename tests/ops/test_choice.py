"""Which implementation runs, that it leaves arguments alone, what it says when it is slow."""

from __future__ import annotations

import logging

import pytest
import torch
from recurrence import Problem, assert_same, problem, rounded
from sensprobe_kernels.ops.diagonal_scan import cpu

from sensprobe import ops
from sensprobe.numerics.storage import Carry, Custom, Watched
from sensprobe.ops import choice, describe, diagonal_scan
from sensprobe.ops.diagonal_scan import reference


@pytest.fixture(autouse=True)
def _unsaid(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(choice, "said", set())


@pytest.fixture
def kernel_calls(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    calls: list[int] = []
    scan = cpu.scan

    def counted(*args, **kwargs):
        calls.append(1)
        return scan(*args, **kwargs)

    monkeypatch.setattr(cpu, "scan", counted)
    return calls


@pytest.fixture
def p() -> Problem:
    return problem(3, 6, 2, 4)


def test_a_plain_call_runs_the_kernel_and_says_nothing(p, kernel_calls, caplog) -> None:
    with caplog.at_level(logging.INFO):
        assert_same(diagonal_scan(*p), reference(*p))
    assert kernel_calls
    assert not caplog.records


@pytest.mark.parametrize("needs_gradient", [0, 1, 2, 3])
def test_gradients_come_from_the_kernel_too(p, kernel_calls, caplog, needs_gradient) -> None:
    p[needs_gradient].requires_grad_()
    with caplog.at_level(logging.INFO):
        for _ in range(2):
            y, _ = diagonal_scan(*p)
            y.sum().backward()
    assert p[needs_gradient].grad is not None
    assert len(kernel_calls) == 2
    assert not caplog.records


def test_a_watched_state_is_shown_and_stays_exact(p, kernel_calls) -> None:
    seen, wanted = [], []

    def look(states, step):
        seen.extend((state, step + t) for t, state in enumerate(states))

    custom = Custom(lambda state, step: wanted.append((state, step)) or state)
    want = reference(*p, custom)
    assert_same(diagonal_scan(*p, Watched(look)), want)
    assert kernel_calls
    assert len(seen) == len(wanted)
    for (state, step), (exact, at) in zip(seen, wanted, strict=True):
        assert step == at
        assert torch.equal(state, exact)
    assert_same(reference(*p, Watched(lambda state, step: None)), want)


def test_without_gradients_the_kernel_takes_parameters_too(p, kernel_calls) -> None:
    p[1].requires_grad_()
    with torch.no_grad():
        assert_same(diagonal_scan(*p), reference(*p))
    assert kernel_calls


def test_a_function_of_the_state_runs_on_the_reference(p, kernel_calls, caplog) -> None:
    seen = []

    def record(state: torch.Tensor, step: int) -> torch.Tensor:
        seen.append(step)
        return state

    with caplog.at_level(logging.INFO):
        assert_same(diagonal_scan(*p, Custom(record)), reference(*p))
    assert seen == list(range(6))
    assert not kernel_calls
    assert "through a function" in caplog.text


def test_float64_runs_slowly_and_says_so_once(p, kernel_calls, caplog) -> None:
    for _ in range(2):
        y, _ = diagonal_scan(p[0].double(), *p[1:])
    assert y.dtype == torch.float64
    assert not kernel_calls
    assert [r.levelname for r in caplog.records] == ["WARNING"]
    assert "no kernel for the state space recurrence on torch.float64" in caplog.text


def test_a_residual_no_scheme_asks_for_is_added_as_in_the_reference(p, kernel_calls) -> None:
    storage = rounded("int8/head", 2, 4)
    memory = Carry(torch.zeros(3, 2, 4, 2), torch.full((3, 2, 4, 2), 0.25))
    assert_same(diagonal_scan(*p, storage, memory), reference(*p, storage, memory))
    assert not kernel_calls


def test_feedback_without_a_residual_is_nearest_as_in_the_reference(p, kernel_calls) -> None:
    storage, memory = rounded("int8/head/feedback", 2, 4), Carry(torch.ones(3, 2, 4, 2))
    assert_same(diagonal_scan(*p, storage, memory), reference(*p, storage, memory))
    assert kernel_calls


def test_a_static_state_without_scales_is_an_error(p) -> None:
    storage = rounded("int8/head/dynamic", 2, 4)
    static = type(storage)(rounded("int8/head", 2, 4).scheme, storage.site)
    with pytest.raises(AssertionError, match="needs calibrated scales"):
        diagonal_scan(*p, static)


def test_arguments_are_left_as_they_are(p) -> None:
    storage = rounded("int4/head/feedback", 2, 4)
    memory = Carry(torch.ones(3, 2, 4, 2), torch.ones(3, 2, 4, 2), 5)
    before = [x.clone() for x in (*p, memory.state, memory.residual)]
    _, after = diagonal_scan(*p, storage, memory)
    assert all(map(torch.equal, before, (*p, memory.state, memory.residual)))
    assert (memory.step, after.step) == (5, 11)


def test_views_are_read_as_they_look(p) -> None:
    u, A, B, C = p
    state = torch.rand(2, 4, 3, 2).permute(2, 0, 1, 3)
    assert not state.is_contiguous()
    views = (u.permute(2, 0, 1).contiguous().permute(1, 2, 0), A.conj(), B.mT.contiguous().mT, C)
    assert not views[0].is_contiguous()
    assert_same(diagonal_scan(*views, None, Carry(state)), reference(*views, None, Carry(state)))


def test_describe_names_the_kernel_first() -> None:
    rows = describe()
    assert [(r.operation, r.device) for r in rows] == [
        (operation, device) for operation in ops.OPERATIONS for device in ("cpu", "any")
    ]
    assert "1 thread" in rows[0].name
