"""Static ranges that are learned, and integers that start with more bits.

A learned step size (LSQ, Esser et al. 2020, arXiv 1902.08153) is a scale that is trained with the
weights. What is trained here is the logarithm of the range, as of the thresholds of TQT (Jain et
al. 2020, arXiv 1903.08066): an optimizer that takes steps of one size changes every range by the
same share. It starts at the range that the plan's scheme has at the start, and a zero point keeps
its place in it. In training and in the tuned plan it is a range like any that a user gives
(`range3.25`), so both store the same scale. A scheme states one range, so ranges a head, channel,
group or part are not learned; nor are those of polar formats, which keep their own, and of states
with error feedback.

Rounding is f(x, s) = s · q(x / s), so that  df/dlog s = f - x · df/dx:  f - x inside the range of
the codes and f outside, as LSQ has it. The gradient in x goes straight through, as everywhere.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from sensprobe.models.apply import Applier
from sensprobe.numerics.calibrate import given_range, range_of, watched_as, weight_range
from sensprobe.numerics.rounding import real_view, rotated, rotated_back, scale_and_zero
from sensprobe.numerics.storage import Carry, Custom, Storage, passed, store, within
from sensprobe.numerics.taps import RoundingTap, StaticScale, single
from sensprobe.plans.formats import Int, LogPolar, Polar
from sensprobe.plans.plan import Resolved
from sensprobe.plans.scheme import TINIEST, Rounding, Scheme
from sensprobe.plans.sites import Kind, Part, Site

RANGES = ("watched", "learned")
WIDTH, LOW = "range width.", "range low."
"""Begin the names of a learned range's parameters: the logarithm of its width, which is trained,
and the share of the width that lies below 0."""
PROGRESSIVE_BITS = 8
INSIDE = (Part.STATE, Part.DECAY)
"""Parts that a recurrence computes and rounds in every step."""
Params = Mapping[str, Tensor]


def is_range(parameter: str) -> bool:
    """True if a parameter in training is of a learned range, and not of the model."""
    return parameter.startswith((WIDTH, LOW))


def learnable(scheme: Scheme) -> bool:
    """True if the one range that a scheme states can be learned."""
    return (
        scheme.scaled
        and not scheme.dynamic
        and scheme.granularity == "tensor"
        and not scheme.parts
        and not isinstance(scheme.format, Polar | LogPolar)
        and scheme.rounding not in (Rounding.FEEDBACK, Rounding.GPTQ)
    )


def told(plan: Resolved, sites: Mapping[str, Site]) -> str:
    """The sentence that names the ranges of a plan that are learned, before they are."""
    names = [name for name, scheme in plan.items() if learnable(scheme)]
    inside = [name for name in names if sites[name].part in INSIDE]
    slow = f"; the recurrence of {', '.join(inside[:4])} runs on the reference loop, slowly"
    return f"{len(names)} range(s) are learned{slow if inside else ''}"


def first_ranges(applier: Applier, plan: Resolved) -> dict[str, Tensor]:
    """The parameters of every learned range at the start: those that the plan has on a calibrated
    applier's model. Ranges of nothing, or of numbers too small for one, are not learned."""
    found = {}
    for name, scheme in plan.items():
        if not learnable(scheme):
            continue
        low, high = (end.item() for end in _range(applier, applier.model.sites[name], scheme))
        if not scheme.asym:
            high = max(abs(low), abs(high))
            low = -high
        if high - low > TINIEST:
            found[WIDTH + name] = torch.tensor(math.log(high - low))
            found[LOW + name] = torch.tensor(low / (high - low))
    return found


def _range(applier: Applier, site: Site, scheme: Scheme) -> tuple[Tensor, Tensor]:
    if scheme.range == "given":
        return given_range(scheme, site)
    if site.kind is not Kind.WEIGHT:
        return range_of(applier.statistics[watched_as(site.name, scheme)], scheme)
    x = applier.model.weights[site.name].detach()
    found = weight_range(x if x.is_complex() else x.double(), scheme, site)
    assert found is not None
    return found


def with_ranges(plan: Resolved, params: Params) -> Resolved:
    """The plan with the learned ranges stated, to six digits."""
    out = dict(plan)
    for name in plan:
        if WIDTH + name in params:
            width = math.exp(params[WIDTH + name].item())
            share = params[LOW + name].item()
            ends = (float(f"{end * width:.6g}") for end in (share, 1 + share))
            low, high = (end + 0.0 for end in ends)  # -0 + 0 is 0, as a plan is read
            high = high if plan[name].asym else -low
            out[name] = replace(plan[name], range="given", percent=100.0, given=(low, high))
    return out


def widths_of(plan: Resolved, params: Params) -> dict[str, Tensor]:
    """The width of every learned range, by site."""
    return {name: params[WIDTH + name] for name in plan if WIDTH + name in params}


def widened(plan: Resolved, share: float) -> Resolved:
    """The plan with a share, from 0 to 1, of the bits that every integer lacks to eight."""

    def wide(scheme: Scheme) -> Scheme:
        if not isinstance(scheme.format, Int):
            return scheme
        more = math.ceil(share * max(0, PROGRESSIVE_BITS - scheme.format.bits))
        return replace(scheme, format=Int(scheme.format.bits + more))

    return {name: wide(scheme) for name, scheme in plan.items()}


# -- gradients -------------------------------------------------------------------------------------


class _Learned(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, x: Tensor, width: Tensor, rounded: Tensor, slope: Tensor, share: float
    ) -> Tensor:
        ctx.save_for_backward(slope)
        ctx.share = share
        return rounded.view_as(rounded)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        (slope,) = ctx.saved_tensors
        width = torch.dot(real_view(gradient).flatten(), slope.flatten()) * ctx.share
        return gradient, width, None, None, None


def learned(x: Tensor, rounded: Tensor, width: Tensor, scheme: Scheme, site: Site,
            static: StaticScale) -> Tensor:  # fmt: skip
    """`rounded`, with its gradient passed straight through to x, which it was made of, and that of
    the range to `width`, by LSQ's 1 / sqrt(numbers · peak)."""
    if not torch.is_grad_enabled():
        return rounded
    with torch.no_grad():
        basis, to = (rotated(real_view(single(t.detach())), scheme) for t in (x, rounded))
        outside = within(basis, scheme, site, *static).ne_(basis)  # 0 or 1
        slope = rotated_back((to - basis).add_(outside.mul_(basis)), scheme)
        share = 1 / math.sqrt(site.reals * scheme.format.peak)  # type: ignore[union-attr]
    return _Learned.apply(x, width, rounded, slope, share)


@dataclass(frozen=True, slots=True)
class LearningTap:
    """A rounding tap whose learned ranges get gradients. Recurrences whose states have one run on
    the reference loop."""

    inner: RoundingTap
    widths: Mapping[str, Tensor]  # by site

    def __call__(self, site: Site, x: Tensor) -> Tensor:
        rounded = self.inner(site, x)
        if site.name not in self.widths:
            return rounded
        scheme = self.inner.plan[site.name]
        static = self._static(site, scheme)
        return learned(single(x), rounded.detach(), self.widths[site.name], scheme, site, static)

    def _static(self, site: Site, scheme: Scheme) -> StaticScale:
        scale, zero = scale_and_zero(scheme, *given_range(scheme, site))
        return scale.float(), None if zero is None else zero.float()

    def storage(self, site: Site) -> Storage:
        storage = self.inner.storage(site)
        if site.name not in self.widths:
            return storage
        scheme, width = self.inner.plan[site.name], self.widths[site.name]
        static = self._static(site, scheme)

        def function(x: Tensor, step: int) -> Tensor:
            if site.kind is Kind.STATE and (step + 1) % scheme.every:
                return x
            with torch.no_grad():
                kept = (
                    store(Carry(x, None, step), x, storage).state
                    if site.kind is Kind.STATE
                    else passed(x, storage, step)
                )
            return learned(x, kept, width, scheme, site, static)

        return Custom(function)
