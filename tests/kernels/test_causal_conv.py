"""The convolution kernel against the reference, bit for bit, for every way to keep its window."""

from __future__ import annotations

from math import inf, nan
from typing import Any

import pytest
import torch
from builders import vector
from examples import examples
from hypothesis import given
from hypothesis import strategies as st
from recurrence import assert_same
from scans import kept
from schemes import schemes_for
from sensprobe_kernels.ops.causal_conv import cpu
from torch import Tensor

from sensprobe.numerics.storage import Carry, Custom, Rounded, Watched, fresh, store
from sensprobe.ops import causal_conv as fast
from sensprobe.ops.causal_conv import reference
from sensprobe.plans.fitting import why_not
from sensprobe.plans.sites import Axis, Kind, Part, Site

Problem = tuple[Tensor, Tensor, Tensor | None]

STATIC = ["int8", "int4/asym", "int8/channel", "int8/channel/asym", "int8/group2", "e4m3", "log4"]
DYNAMIC = [
    *("int8/dynamic", "int4/asym/dynamic", "int8/channel/dynamic", "int8/group2/asym/dynamic"),
    *("int8/dynamic/pow2", "e4m3/channel/dynamic"),
]
OPTIONS = [
    *("bf16", "fp16/truncate", "int8/clip0.8", "int8/stochastic3", "int6/dynamic/stochastic"),
    *("int8/every3", "int8/dynamic/every2", "bf16/stochastic/every2", "int4/clip0.9/every3"),
]


def problem(
    batch: int = 2, length: int = 9, channels: int = 21, window: int = 4, bias: bool = True
) -> Problem:
    x = vector(batch, length, channels, seed=1, dtype=torch.float32)
    weight = vector(channels, window, seed=2, dtype=torch.float32)
    return x, weight, vector(channels, seed=3, dtype=torch.float32) if bias else None


def site(p: Problem) -> Site:
    channels, window = p[1].shape
    axes = (Axis.CHANNEL, Axis.LAG)
    return Site("layers.0.conv_state", Part.CONV_STATE, Kind.STATE, (channels, window - 1), axes)


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    found: list[int] = []
    convolve = cpu.convolve

    def counted(*args: Any) -> Any:
        found.append(1)
        return convolve(*args)

    monkeypatch.setattr(cpu, "convolve", counted)
    return found


@pytest.mark.parametrize("scheme", [None, *STATIC, *DYNAMIC, *OPTIONS])
def test_every_window_equals_the_reference(scheme: str | None, calls) -> None:
    p = problem()
    storage = kept(scheme, site(p), 1.0)
    before = [x.clone() for x in p if x is not None]
    assert_same(fast(*p, storage), reference(*p, storage))
    assert all(map(torch.equal, before, p))  # type: ignore[arg-type]
    assert calls
    assert fast(*p, storage)[0].is_contiguous()  # what comes after has bits of its own on strides


@pytest.mark.parametrize("scheme", [None, "int8/channel/dynamic", "int4/asym/dynamic", "int8"])
@pytest.mark.parametrize(
    "size", [(1, 1, 1, 3), (1, 30, 16, 2), (3, 2, 150, 5), (2, 0, 3, 4), (0, 3, 3, 4)]
)
def test_odd_sizes(size: tuple[int, ...], scheme: str | None) -> None:
    if size[-1] == 2 and scheme and "channel" in scheme:
        scheme = "int8/dynamic"  # else a scale for each value
    p = problem(*size, bias=False)
    storage = kept(scheme, site(p), 1.0)
    assert_same(fast(*p, storage), reference(*p, storage))


@examples(40)
@given(data=st.data())
def test_any_scheme_that_makes_sense_equals_the_reference(data: st.DataObject) -> None:
    p = problem(1, 5, 5, 4)
    sensible = schemes_for(site(p)).filter(lambda scheme: why_not(scheme, site(p)) is None)
    storage = kept(data.draw(sensible), site(p), 1.0, data.draw(st.integers(0, 4)))
    assert_same(fast(*p, storage), reference(*p, storage))


@pytest.mark.parametrize(
    "scheme", [None, "int8/channel/asym/dynamic", "int4/stochastic/dynamic/every3"]
)
def test_it_goes_on_where_it_was(scheme: str | None) -> None:
    p = problem()
    storage = kept(scheme, site(p), 1.0)
    memory, pieces = fresh(2, site(p).shape, storage), []
    for steps in (slice(0, 1), slice(1, 3), slice(3, 3), slice(3, 9)):
        out, memory = fast(p[0][:, steps], *p[1:], storage, memory)
        pieces.append(out)
    assert_same((torch.cat(pieces, dim=1), memory), fast(*p, storage))


@pytest.mark.parametrize("scheme", [None, "int8", "int8/asym/dynamic"])
@pytest.mark.parametrize("bad", [nan, inf, 3e38])
def test_numbers_beyond_the_finite_do_as_in_the_reference(scheme: str | None, bad: float) -> None:
    p = problem()
    p[0][0, 3, 4] = bad
    storage = kept(scheme, site(p), 1.0)
    assert_same(fast(*p, storage), reference(*p, storage))


def shown(to: list[tuple[Tensor, int]]) -> Watched:
    return Watched(lambda states, step: to.extend((s, step + t) for t, s in enumerate(states)))


@pytest.mark.parametrize("at_once", [1, 2**24])
def test_a_watched_window_is_shown_and_stays_exact(
    at_once: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sensprobe.numerics.storage.SHOWN_BYTES", at_once)
    p = problem()
    start = Carry(vector(2, 21, 3, seed=7, dtype=torch.float32), None, 5)
    seen: list[tuple[Tensor, int]] = []
    wanted: list[tuple[Tensor, int]] = []
    got = fast(*p, shown(seen), start)
    assert_same(got, reference(*p, shown(wanted), start))
    assert_same(got, reference(*p, None, start))
    assert [step for _, step in seen] == [step for _, step in wanted]
    assert all(torch.equal(a, b) for (a, _), (b, _) in zip(seen, wanted, strict=True))


# -- gradients ------------------------------------------------------------------------------------


def gradients(convolve: Any, p: Problem, storage: Any) -> list[Tensor]:
    """Of a weighted sum of y, in x, the filters and, where there is one, the bias."""
    leaves = [x.clone().requires_grad_() for x in p if x is not None]
    y, _ = convolve(*leaves, *([None] if p[2] is None else []), storage)
    (y * vector(*y.shape, seed=4, dtype=torch.float32)).sum().backward()
    return [x.grad for x in leaves]  # type: ignore[misc]


def straight(rounded: Rounded) -> Custom:
    """The same rounding for the reference loop, passing gradients straight through."""

    def through(x: Tensor, step: int) -> Tensor:
        exact = x.detach()
        return x + (store(Carry(exact, None, step), exact, rounded).state - exact)

    return Custom(through)


def far_off(got: list[Tensor], wanted: list[Tensor]) -> float:
    """The largest difference, in parts of the largest number of its tensor."""
    pairs = zip(got, wanted, strict=True)
    return max(float((a - b).abs().max() / b.abs().max()) for a, b in pairs)


NEAR = 2e-6
"""Sums of some dozen float32 terms, in another order."""


@pytest.mark.parametrize("scheme", ["int4", "int3/channel/asym/dynamic", "int8/clip0.5/every3",
                                    "int6/dynamic", "int8/stochastic3", None])  # fmt: skip
@pytest.mark.parametrize("size", [(2, 9, 21, 4), (1, 1, 1, 3), (3, 2, 40, 5), (1, 30, 16, 3)])
def test_it_is_the_gradient_of_the_reference(
    size: tuple[int, ...], scheme: str | None, calls
) -> None:
    p = problem(*size, bias=size[0] > 1)
    storage = kept(scheme, site(p), 1.0, first=3)
    wanted = gradients(reference, p, storage and straight(storage))
    assert far_off(gradients(fast, p, storage), wanted) < NEAR
    assert calls


def test_its_bound_catches_filters_that_meet_the_exact_window() -> None:
    p = problem()
    storage = kept("int6/dynamic", site(p), 1.0)
    assert far_off(gradients(fast, p, storage), gradients(reference, p, None)) > 100 * NEAR


def test_a_window_that_needs_a_gradient_runs_on_the_reference() -> None:
    p = problem()
    start = torch.zeros(2, 21, 3, requires_grad=True)
    y, _ = fast(*p, kept("int8/dynamic", site(p), 1.0), Carry(start))
    y.sum().backward()
    assert start.grad is not None
    assert start.grad.abs().max() > 0


def test_it_goes_back_from_where_it_was() -> None:
    """A window that was carried over is what the first filters meet."""
    p, storage = problem(), kept("int4/channel/dynamic", site(problem()), 1.0)
    middle = Carry(vector(2, 21, 3, seed=7, dtype=torch.float32), None, 5)

    def after(convolve: Any) -> Any:
        return lambda *args: convolve(*args, middle)

    wanted = gradients(after(reference), p, straight(storage))  # type: ignore[arg-type]
    assert far_off(gradients(after(fast), p, storage), wanted) < NEAR
