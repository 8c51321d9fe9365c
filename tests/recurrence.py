"""Recurrences and storages that the tests of the reference, the kernel and the runtime share."""

from __future__ import annotations

import torch
from builders import vector
from torch import Tensor

from sensprobe.numerics.rounding import scale_and_zero
from sensprobe.numerics.storage import Carry, Rounded
from sensprobe.plans.fitting import check
from sensprobe.plans.scheme import Scheme, parse, scale_shape
from sensprobe.plans.sites import Axis, Kind, Part, Site

Problem = tuple[Tensor, Tensor, Tensor, Tensor]


def state_site(heads: int, n: int) -> Site:
    return Site("layers.0.state", Part.STATE, Kind.STATE, (heads, n), (Axis.HEAD, Axis.N), True)


def problem(batch: int, length: int, heads: int, n: int, seed: int = 0) -> Problem:
    """u, A, B, C of a stable recurrence whose slowest mode forgets over a few hundred steps."""
    u = vector(batch, length, heads, seed=seed, dtype=torch.float32)
    decay = 0.7 + 0.299 * torch.rand(heads, n, generator=torch.Generator().manual_seed(seed))
    A = torch.polar(decay, 3 * vector(heads, n, seed=seed + 1, dtype=torch.float32))
    B, C = (vector(heads, n, seed=seed + k, dtype=torch.complex64) for k in (2, 3))
    return u, A, B, C


def rounded(
    scheme: str | Scheme, heads: int, n: int, reach: float = 4.0, first: int = 0
) -> Rounded:
    """A storage; static scales differ from place to place around `reach`, zero points too."""
    scheme = parse(scheme) if isinstance(scheme, str) else scheme
    site = state_site(heads, n)
    check(scheme, site)
    if not scheme.scaled or scheme.dynamic:
        return Rounded(scheme, site, first=first)
    generator = torch.Generator().manual_seed(7)
    low, high = (
        side * reach * (0.5 + torch.rand(scale_shape(scheme, site), generator=generator))
        for side in (-1.0, 1.0)
    )
    return Rounded(scheme, site, *scale_and_zero(scheme, low, high), first=first)


def assert_same(got: tuple[Tensor, Carry], wanted: tuple[Tensor, Carry]) -> None:
    """Every number of two results equal, NaN where the other has NaN."""
    (y, memory), (y_wanted, memory_wanted) = got, wanted
    assert memory.step == memory_wanted.step
    assert (memory.residual is None) == (memory_wanted.residual is None)
    pairs = [(y, y_wanted), (memory.state, memory_wanted.state)]
    if memory.residual is not None and memory_wanted.residual is not None:
        pairs.append((memory.residual, memory_wanted.residual))
    for a, b in pairs:
        torch.testing.assert_close(a, b, rtol=0, atol=0, equal_nan=True)
