"""Hadamard transforms by the kernel against the reference, bit for bit."""

from __future__ import annotations

from math import inf, nan

import pytest
import torch
from builders import vector
from sensprobe_kernels.ops.rotate import cpu
from torch import Tensor

from sensprobe import ops
from sensprobe.numerics import transforms
from sensprobe.numerics.taps import rounded as reference
from sensprobe.plans.scheme import parse
from sensprobe.plans.sites import Axis, Kind, Part, Site

SIZES = [2, 4, 6, 12, 14, 20, 24, 40, 48, 64, 80, 96, 192, 384, 1536]
both = pytest.mark.parametrize("name", ["rotate", "rotate_back"])


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How often the kernel ran."""
    found: list[int] = []
    rotated = cpu.rotated
    monkeypatch.setattr(cpu, "rotated", lambda *a: found.append(1) or rotated(*a))
    return found


def assert_same(got: Tensor, want: Tensor) -> None:
    assert (got.dtype, got.shape) == (want.dtype, want.shape)
    assert torch.equal(got.nan_to_num(7e37), want.nan_to_num(7e37))
    assert torch.equal(got.isnan(), want.isnan())


@both
@pytest.mark.parametrize("size", SIZES)
def test_every_order(name: str, size: int, calls: list[int]) -> None:
    x = vector(3, 5, size, seed=size, dtype=torch.float32)
    before = x.clone()
    assert_same(getattr(ops, name)(x), getattr(transforms, name)(x))
    assert calls
    assert torch.equal(x, before)


@both
def test_many_rows_on_several_threads(name: str) -> None:
    x = vector(999, 384, seed=1, dtype=torch.float32)
    assert_same(getattr(ops, name)(x), getattr(transforms, name)(x))


@both
@pytest.mark.parametrize("bad", [inf, -inf, nan, 3e38, 1e-42])
def test_numbers_at_the_edge(name: str, bad: float) -> None:
    x = vector(4, 24, seed=2, dtype=torch.float32)
    x[1, 7] = bad
    assert_same(getattr(ops, name)(x), getattr(transforms, name)(x))


@both
def test_layouts_and_emptiness(name: str) -> None:
    x = vector(24, 7, seed=3, dtype=torch.float32).mT
    assert not x.is_contiguous()
    assert_same(getattr(ops, name)(x), getattr(transforms, name)(x))
    assert getattr(ops, name)(torch.zeros(0, 24)).shape == (0, 24)


def test_gradients_and_other_types_take_the_reference(calls: list[int]) -> None:
    x = vector(2, 8, seed=4, dtype=torch.float32).requires_grad_()
    ops.rotate(x).square().sum().backward()
    torch.testing.assert_close(x.grad, 2 * x.detach())
    assert ops.rotate(x.detach().double()).dtype == torch.float64
    assert not calls


def test_an_odd_axis_is_refused() -> None:
    with pytest.raises(ValueError, match="its size is odd"):
        ops.rotate(torch.zeros(2, 7))


@pytest.mark.parametrize("text", ["int8/hadamard", "int4/hadamard/dynamic", "fp16/hadamard"])
def test_a_rotated_rounding(text: str, calls: list[int]) -> None:
    site = Site("layers.0.out_proj_in", Part.OUT_PROJ_IN, Kind.ACTIVATION, (96,), (Axis.CHANNEL,))
    x, scheme = vector(100, 96, seed=5, dtype=torch.float32), parse(text)
    static = (torch.tensor([0.03]), None) if text == "int8/hadamard" else None
    assert_same(
        ops.rounded(x, scheme, site, static, None), reference(x, scheme, site, static, None)
    )
    assert len(calls) == 2
