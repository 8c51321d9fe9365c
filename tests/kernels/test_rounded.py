"""Rounding of activations by the kernel against the reference, bit for bit."""

from __future__ import annotations

from importlib import import_module
from math import inf, nan
from typing import Any

import pytest
import torch
from builders import vector
from hypothesis import given
from hypothesis import strategies as st
from schemes import schemes_for
from sensprobe_kernels.ops.rounded import cpu
from torch import Tensor

from sensprobe import ops
from sensprobe.numerics.rounding import scale_and_zero
from sensprobe.numerics.taps import StaticScale
from sensprobe.numerics.taps import rounded as reference
from sensprobe.plans.scheme import Scheme, parse, scale_shape
from sensprobe.plans.sites import Axis, Kind, Part, Site

FLAT = Site("layers.0.x", Part.X, Kind.ACTIVATION, (37,), (Axis.HEAD,))
HEADS = Site("layers.0.y", Part.Y, Kind.ACTIVATION, (3, 20), (Axis.HEAD, Axis.CHANNEL))
SHARED = Site("layers.0.B", Part.B, Kind.ACTIVATION, (2, 12), (Axis.GROUP, Axis.N))
SITES = [FLAT, HEADS, SHARED]
SCHEMES = [
    *("int8", "int8/asym", "int3", "int8/s32", "int8/pow2", "e4m3", "e2m1", "log4", "bf16", "fp16"),
    *("int8/dynamic", "int8/asym/dynamic", "int4/asym/dynamic/pow2", "e5m2/dynamic"),
    *("int8/dynamic/s32", "log3/dynamic", "int8/truncate", "int6/dynamic/truncate"),
]
SPREAD = ["int8/channel", "int8/group5/asym", "int8/group4/dynamic", "int4/group4/asym/dynamic"]


@pytest.fixture(autouse=True)
def _small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(import_module("sensprobe.ops.rounded"), "SMALL", 0)


def static(scheme: Scheme, site: Site) -> StaticScale | None:
    if not scheme.scaled or scheme.dynamic:
        return None
    generator = torch.Generator().manual_seed(3)
    low, high = (
        side * (0.5 + torch.rand(scale_shape(scheme, site), generator=generator))
        for side in (-1.0, 1.0)
    )
    return scale_and_zero(scheme, low, high)


def assert_same(x: Tensor, scheme: Scheme, site: Site) -> None:
    scales = static(scheme, site)
    noise = torch.rand(x.shape, generator=torch.Generator().manual_seed(1))
    before = x.clone()
    got = ops.rounded(x, scheme, site, scales, noise)
    wanted = reference(x, scheme, site, scales, noise)
    torch.testing.assert_close(got, wanted, rtol=0, atol=0, equal_nan=True)
    torch.testing.assert_close(x, before, rtol=0, atol=0, equal_nan=True)


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    found: list[int] = []
    fast = cpu.rounded

    def counted(*args: Any) -> Any:
        found.append(1)
        return fast(*args)

    monkeypatch.setattr(cpu, "rounded", counted)
    return found


def numbers(site: Site, *lead: int, seed: int = 0) -> Tensor:
    return 2 * vector(*lead, *site.shape, seed=seed, dtype=torch.float32)


@pytest.mark.parametrize("site", SITES, ids=lambda site: site.name)
@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("lead", [(2, 5), (1, 1), (0, 3), (7,)])
def test_it_equals_the_reference(site: Site, scheme: str, lead: tuple[int, ...], calls) -> None:
    assert_same(numbers(site, *lead), parse(scheme), site)
    assert calls or 0 in lead


@pytest.mark.parametrize("scheme", SPREAD)
@pytest.mark.parametrize("site", SITES, ids=lambda site: site.name)
def test_scales_of_columns_and_of_runs(site: Site, scheme: str, calls) -> None:
    assert_same(numbers(site, 3, 4), parse(scheme), site)
    assert calls


@pytest.mark.parametrize("width", [1, 2, 15, 16, 17, 31, 32, 33, 100])
@pytest.mark.parametrize("scheme", ["int8", "int8/asym/dynamic", "int8/group7/dynamic"])
def test_any_width(width: int, scheme: str) -> None:
    site = Site("layers.0.x", Part.X, Kind.ACTIVATION, (width,), (Axis.CHANNEL,))
    assert_same(numbers(site, 5, 3), parse(scheme), site)


@given(data=st.data())
def test_any_scheme_that_makes_sense(data: st.DataObject) -> None:
    site = data.draw(st.sampled_from(SITES))
    assert_same(numbers(site, 2, 3), data.draw(schemes_for(site)), site)


@pytest.mark.parametrize("bad", [nan, inf, -inf, 3e38, 1e-42, 0.0])
@pytest.mark.parametrize("scheme", ["int8", "int8/asym/dynamic", "int8/dynamic", "e4m3/dynamic"])
def test_numbers_beyond_the_usual(bad: float, scheme: str) -> None:
    x = numbers(FLAT, 2, 3)
    x[0, 1, 4] = bad
    x[1, 0] = bad
    assert_same(x, parse(scheme), FLAT)


def test_many_numbers_go_to_several_threads_and_leave_none_out(calls) -> None:
    threads = torch.get_num_threads()
    site = Site("layers.0.x", Part.X, Kind.ACTIVATION, (1009,), (Axis.CHANNEL,))
    try:
        torch.set_num_threads(3)
        for scheme in ("int8", "int8/dynamic", "int8/group100/asym/dynamic"):
            assert_same(numbers(site, 211), parse(scheme), site)
    finally:
        torch.set_num_threads(threads)
    assert len(calls) == 3


def test_scales_that_neighbours_do_not_share_are_left_to_the_reference(calls) -> None:
    """Groups of 5 along an axis of 12 end inside the next row of 12."""
    assert_same(numbers(SHARED, 2, 3), parse("int8/group5/dynamic"), SHARED)
    assert not calls


def test_what_needs_a_gradient_is_left_to_the_reference(calls) -> None:
    x = numbers(FLAT, 2, 3).requires_grad_()
    assert ops.rounded(x, parse("int8/dynamic"), FLAT, None, None).requires_grad
    assert not calls


def test_views_are_read_as_they_look() -> None:
    x = numbers(FLAT, 6, 4).transpose(0, 1)
    assert_same(x, parse("int8/dynamic"), FLAT)
