"""Selective recurrences, and storages of their states and decays, that several tests share."""

from __future__ import annotations

import torch
from builders import vector
from torch import Tensor

from sensprobe.numerics.rounding import scale_and_zero
from sensprobe.numerics.storage import Rounded
from sensprobe.ops.head_scan import reference as head_scan
from sensprobe.ops.selective_scan import reference as selective_scan
from sensprobe.plans.fitting import check
from sensprobe.plans.scheme import Scheme, parse, scale_shape
from sensprobe.plans.sites import Axis, Kind, Part, Site

MAMBA, MAMBA2 = "selective_scan", "head_scan"
REFERENCES = {MAMBA: selective_scan, MAMBA2: head_scan}
Problem = tuple[Tensor, ...]


def problem(name: str, *size: int, seed: int = 0) -> Problem:
    """x, dt, A, B, C of a recurrence that forgets over some ten steps.

    size: batch, length, channels, n, or batch, length, heads, p, groups, n.
    """

    def normal(*shape: int, k: int) -> Tensor:
        return vector(*shape, seed=10 * seed + k, dtype=torch.float32)

    batch, length, *inner, n = size
    if name == MAMBA:
        rows, A, shared = tuple(inner), (inner[0], n), (n,)
        steps = rows
    else:
        heads, p, groups = inner
        rows, A, shared, steps = (heads, p), (heads,), (groups, n), (heads,)
    return (
        normal(batch, length, *rows, k=0),
        normal(batch, length, *steps, k=1).exp() / 10,
        -normal(*A, k=2).exp(),
        normal(batch, length, *shared, k=3),
        normal(batch, length, *shared, k=4),
    )


def sites(name: str, p: Problem) -> tuple[Site, Site]:
    """Of the state and the decay."""
    n = p[3].shape[-1]
    if name == MAMBA:
        shape = (p[0].shape[2], n)
        state = Site("layers.0.state", Part.STATE, Kind.STATE, shape, (Axis.HEAD, Axis.N))
        decay = Site("layers.0.decay", Part.DECAY, Kind.ACTIVATION, shape, (Axis.HEAD, Axis.N))
        return state, decay
    heads, width = p[0].shape[2:]
    axes = (Axis.HEAD, Axis.CHANNEL, Axis.N)
    return (
        Site("layers.0.state", Part.STATE, Kind.STATE, (heads, width, n), axes),
        Site("layers.0.decay", Part.DECAY, Kind.ACTIVATION, (heads,), (Axis.HEAD,)),
    )


def kept(scheme: str | Scheme | None, site: Site, reach: float, first: int = 0) -> Rounded | None:
    """A storage; static scales differ from place to place around `reach`, zero points too."""
    if scheme is None:
        return None
    scheme = parse(scheme) if isinstance(scheme, str) else scheme
    check(scheme, site)
    if not scheme.scaled or scheme.dynamic:
        return Rounded(scheme, site, first=first)
    generator = torch.Generator().manual_seed(7)
    low, high = (
        side * reach * (0.5 + torch.rand(scale_shape(scheme, site), generator=generator))
        for side in (-1.0, 1.0)
    )
    return Rounded(scheme, site, *scale_and_zero(scheme, low, high), first=first)
