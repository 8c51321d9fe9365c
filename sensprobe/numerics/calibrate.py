"""Ranges: from values seen to the scales a static scheme stores.

Weights are their own calibration. Activations and states are watched once, at full precision, on
samples kept apart for it: the extremes of every element, and what schemes ask for beyond that.
Percentile and mse ranges take histograms, of the tensor or a channel (states: a head and part),
whose bins are the upper 14 bits of a float32, 3 % wide, interpolated inside. What is rounded in
another basis (`hadamard`) is watched there. Of what a projection rounded by `gptq` reads the second
moment is summed.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import cache
from typing import NamedTuple

import torch
from torch import Tensor

from sensprobe.numerics.arithmetic import total
from sensprobe.numerics.rounding import (
    Range,
    blocks,
    min_max,
    quantize,
    real_view,
    reduced,
    rotated,
    scale_and_zero,
)
from sensprobe.numerics.transforms import rotate
from sensprobe.plans.formats import LogPolar, Polar
from sensprobe.plans.scheme import Rounding, Scheme, scale_shape
from sensprobe.plans.sites import Site

BINS = 2**14
_SHIFT = 18
SAMPLES = 4
"""Values taken to represent a bin when `mse` weighs errors."""
SHRINKS = torch.tensor([(50 - k) / 50 for k in range(41)], dtype=torch.float64)
"""Fractions of the full range that `mse` tries: 1 … 0.2. (A library's linspace may contract its
product and sum, and then its last bits differ between processors.)"""
ROTATED = " rotated"
"""Ends the name of a site's values in a Hadamard transform's basis."""


class Wanted(NamedTuple):
    """The statistics that calibration must keep beyond the extremes of every activation and state.

    Histograms are named as `watched_as` says. One a channel takes 128 KiB a channel.
    """

    whole: frozenset[str] = frozenset()  # a histogram of the whole tensor
    channels: frozenset[str] = frozenset()  # one an index of the first axis
    rotated: frozenset[str] = frozenset()  # activations rounded in a Hadamard transform's basis
    moments: frozenset[str] = frozenset()  # activations read by projections that `gptq` rounds

    def joined(self, other: Wanted) -> Wanted:
        """All that either wants."""
        return Wanted(*(one | more for one, more in zip(self, other, strict=True)))


@dataclass(slots=True)
class Statistics:
    """The statistics of one site. low, high: its real view's shape. counts: (channels, BINS), of a
    complex site those of each part; channels are 1 where the whole tensor has one histogram.

    moment: Σ x xᵀ over all that was seen, (n, n) float64 of n numbers a time step.
    """

    site: Site
    low: Tensor
    high: Tensor
    counts: Tensor | None = None
    moment: Tensor | None = None


def watched_as(name: str, scheme: Scheme) -> str:
    """The name under which the values that a scheme rounds at a site are watched."""
    return name + ROTATED if scheme.hadamard else name


@dataclass(slots=True)
class Observer:
    """Collects statistics; hand `observe` to a recording tap."""

    wanted: Wanted = field(default_factory=Wanted)
    seen: dict[str, Statistics] = field(default_factory=dict)
    rotate: Callable[[Tensor], Tensor] = rotate

    def observe(self, site: Site, x: Tensor) -> None:
        """x: the real view, any leading axes."""
        known = self._observe(site.name, site, x)
        if site.name in self.wanted.rotated:
            self._observe(site.name + ROTATED, site, self.rotate(x))
        if site.name in self.wanted.moments:
            rows = x.reshape(-1, site.reals).double()
            moment = rows.mT @ rows
            known.moment = moment if known.moment is None else known.moment + moment

    def _observe(self, name: str, site: Site, x: Tensor) -> Statistics:
        lead = x.ndim - len(site.shape) - site.is_complex
        axes = list(range(lead))
        low, high = x.amin(axes), x.amax(axes)
        if name in self.seen:
            known = self.seen[name]
            known.low, known.high = torch.minimum(known.low, low), torch.maximum(known.high, high)
        else:
            known = self.seen[name] = Statistics(site, low, high, self._no_counts(name, site))
        if known.counts is not None:
            _count(known.counts, x, site, lead)
        return known

    def _no_counts(self, name: str, site: Site) -> Tensor | None:
        parts = 2 if site.is_complex else 1
        if name in self.wanted.channels:
            return torch.zeros(site.shape[0] * parts, BINS, dtype=torch.int64)
        return torch.zeros(parts, BINS, dtype=torch.int64) if name in self.wanted.whole else None


def _count(counts: Tensor, x: Tensor, site: Site, lead: int) -> None:
    """Add x to the histograms in place: they are far larger than one step of a state."""
    parts = 2 if site.is_complex else 1
    keep = [lead] * (len(counts) == site.shape[0] * parts) + [x.ndim - 1] * site.is_complex
    rest = [a for a in range(x.ndim) if a not in keep]
    x = x.permute(*keep, *rest).reshape(len(counts), -1)
    bins = (x.contiguous().view(torch.int32) >> _SHIFT) & (BINS - 1)
    places = (bins + torch.arange(x.shape[0])[:, None] * BINS).flatten()
    counts.view(-1).index_add_(0, places, torch.ones_like(places))


@cache
def _bin_edges() -> tuple[Tensor, Tensor, Tensor]:
    """Bins in order of value: their codes, lower edges, upper edges (finite ones only)."""
    half = BINS // 2
    finite = 255 << 5  # exponents below the one of infinities
    edges = (torch.arange(finite + 1, dtype=torch.int32) << _SHIFT).view(torch.float32).double()
    edges[-1] = torch.finfo(torch.float32).max
    positive = torch.arange(finite)
    order = torch.cat([positive.flip(0) + half, positive])
    low = torch.cat([-edges[1:].flip(0), edges[:-1]])
    high = torch.cat([-edges[:-1].flip(0), edges[1:]])
    return order, low, high


def range_of(statistics: Statistics, scheme: Scheme) -> Range:
    """The range of a static scheme, float64, of the scheme's scale shape."""
    site = statistics.site
    if scheme.granularity == "decoupled":
        return _decoupled(statistics, scheme)
    bounds = torch.stack([statistics.low, statistics.high]).double()
    low, high = min_max(bounds, scheme, site)
    low, high = low.amin(0), high.amax(0)
    if scheme.range in ("percentile", "mse"):
        assert statistics.counts is not None, f"{site.name}: {scheme} needs histograms"
        counts = _merge(statistics.counts, scheme, site)
        if scheme.range == "percentile":
            low, high = _percentile(counts, scheme, low, high)
        else:
            low, high = _least_squares_histogram(counts, scheme, site, low, high)
    if scheme.clip is not None:
        low, high = low.clamp(-scheme.clip, scheme.clip), high.clamp(-scheme.clip, scheme.clip)
    return _override(scheme, low, high)


def _decoupled(statistics: Statistics, scheme: Scheme) -> Range:
    """Ends such that their scales are a channel's extreme over the format's peak, and the largest
    share of its channel's extreme that a state variable reaches in any channel."""
    size = statistics.site.shape[-1]
    peaks = torch.maximum(statistics.low.abs(), statistics.high.abs()).double().view(-1, size)
    if scheme.clip is not None:
        peaks = peaks.clamp(max=scheme.clip)
    channels = peaks.amax(1)
    shares = (peaks / channels.clamp(min=torch.finfo(torch.float64).tiny)[:, None]).amax(0)
    ends = torch.cat([channels, shares * scheme.format.peak])  # type: ignore[union-attr]
    return -ends, ends


def _override(scheme: Scheme, low: Tensor, high: Tensor) -> Range:
    if scheme.range == "given":
        return torch.full_like(low, scheme.given[0]), torch.full_like(high, scheme.given[1])
    return low, high


def given_range(scheme: Scheme, site: Site) -> Range:
    """The range a scheme states itself; needs no calibration."""
    shape = torch.zeros(scale_shape(scheme, site), dtype=torch.float64)
    return _override(scheme, shape, shape)


def _merge(counts: Tensor, scheme: Scheme, site: Site) -> Tensor:
    """Histograms summed over what shares a scale: (*scale shape, BINS)."""
    shape = scale_shape(scheme, site)
    if site.is_complex:
        counts = counts.view(-1, 2, BINS)
        counts = counts if scheme.parts else counts.sum(1, keepdim=True)
        if shape[0] == 1:
            counts = counts.sum(0, keepdim=True)
        return counts.view(*shape, BINS)
    if scheme.granularity == "group":
        size = scheme.group
        counts = torch.stack([c.sum(0) for c in counts.split(size)])
    elif shape[0] == 1:
        counts = counts.sum(0, keepdim=True)
    return counts.view(*shape, BINS)


def _percentile(counts: Tensor, scheme: Scheme, low: Tensor, high: Tensor) -> Range:
    order, left, right = _bin_edges()
    ordered = counts[..., order].double()
    share = scheme.percent / 100
    if scheme.asym:
        return (
            _quantile(ordered, left, right, 1 - share).clamp(low, high),
            _quantile(ordered, left, right, share).clamp(low, high),
        )
    half = len(left) // 2
    folded = ordered[..., half:] + ordered[..., :half].flip(-1)
    peak = _quantile(folded, left[half:], right[half:], share)
    peak = torch.minimum(peak, torch.maximum(low.abs(), high.abs()))
    return -peak, peak


def _quantile(counts: Tensor, left: Tensor, right: Tensor, share: float) -> Tensor:
    total = counts.cumsum(-1)
    target = (total[..., -1:] * share).clamp(min=1e-9)
    index = torch.searchsorted(total, target).clamp(max=counts.shape[-1] - 1)
    inside = (target - (total - counts).gather(-1, index)) / counts.gather(-1, index).clamp(min=1)
    return (left[index] + inside.clamp(0, 1) * (right[index] - left[index])).squeeze(-1)


def _least_squares_histogram(
    counts: Tensor, scheme: Scheme, site: Site, low: Tensor, high: Tensor
) -> Range:
    order, left, right = _bin_edges()
    used = counts.reshape(-1, BINS).sum(0)[order] > 0
    # A bin may be wider than a step: one value would stand for many that round differently.
    inside = (torch.arange(SAMPLES) + 0.5) / SAMPLES
    left, width = left[used, None], (right - left)[used, None]
    centers = (left + inside * width).flatten()  # (k,)
    weight = counts[..., order][..., used].double().repeat_interleave(SAMPLES, -1)
    plain = _elementwise(scheme)

    def error(lo: Tensor, hi: Tensor) -> Tensor:
        scale, zero = scale_and_zero(scheme, lo, hi)
        column = None if zero is None else zero[..., None]
        rounded = quantize(centers.expand_as(weight), plain, site, scale[..., None], column)
        return total((rounded - centers) ** 2 * weight, [-1]).squeeze(-1)

    return _best(error, low, high)


def _elementwise(scheme: Scheme) -> Scheme:
    """The scheme's rounding without its granularity (nearest), for scales given as they are."""
    return Scheme(scheme.format, asym=scheme.asym, scales=scheme.scales)


def _best(error: Callable[[Tensor, Tensor], Tensor], low: Tensor, high: Tensor) -> Range:
    """The shrunken range with the least error, each scale on its own."""
    best_error, best_low, best_high = None, low, high
    for shrink in SHRINKS:
        lo, hi = low * shrink, high * shrink
        now = error(lo, hi)
        if best_error is None:
            best_error = now
            continue
        better = now < best_error
        best_error = torch.where(better, now, best_error)
        best_low, best_high = torch.where(better, lo, best_low), torch.where(better, hi, best_high)
    return best_low, best_high


def weight_range(x: Tensor, scheme: Scheme, site: Site) -> Range | None:
    """The range of a weight, in the basis its scheme rounds in; None where its format keeps its
    own (polar, unscaled)."""
    if not scheme.scaled or isinstance(scheme.format, Polar | LogPolar):
        return None
    x = rotated(real_view(x), scheme)
    low, high = min_max(x, scheme, site)
    if scheme.range == "percentile":
        low, high = _weight_percentile(x, scheme, site)
    elif scheme.range == "mse":
        low, high = _least_squares(x, scheme, site, low, high)
    return _override(scheme, low, high)


def _whole_groups(x: Tensor, scheme: Scheme, site: Site, fill: float) -> Tensor:
    """x (real view) with its last group filled up, so that its values do not count twice."""
    if scheme.granularity != "group":
        return x
    axis = len(site.shape) - 1
    count = -x.shape[axis] % min(scheme.group, x.shape[axis])
    filled = x.new_full((*x.shape[:axis], count, *x.shape[axis + 1 :]), fill)
    return torch.cat([x, filled], dim=axis)


def _weight_percentile(x: Tensor, scheme: Scheme, site: Site) -> Range:
    view, axes = blocks(_whole_groups(x, scheme, site, torch.nan), scheme, site)
    order = [a for a in range(view.ndim) if a not in axes] + axes
    flat = view.permute(order).reshape(*[view.shape[a] for a in order[: view.ndim - len(axes)]], -1)
    share = scheme.percent / 100
    if not scheme.asym:
        peak = reduced(_sorted_quantile(flat.abs(), share), scheme, site, 0)
        return -peak, peak
    ends = _sorted_quantile(flat, 1 - share), _sorted_quantile(flat, share)
    return reduced(ends[0], scheme, site, 0), reduced(ends[1], scheme, site, 0)


def _sorted_quantile(x: Tensor, share: float) -> Tensor:
    """The quantile of x (…, n) along its last axis, between its two neighbours in proportion; NaN
    does not count. (A library may contract the interpolation, and then its last bit differs.)"""
    ordered = x.sort(dim=-1).values  # NaN last
    rank = (ordered.isnan().logical_not().sum(-1, keepdim=True) - 1).double() * share
    below = rank.floor()
    low, high = (ordered.gather(-1, r.long()) for r in (below, rank.ceil()))
    return (low + (high - low) * (rank - below)).squeeze(-1)


def _least_squares(x: Tensor, scheme: Scheme, site: Site, low: Tensor, high: Tensor) -> Range:
    def error(lo: Tensor, hi: Tensor) -> Tensor:
        nearest = replace(scheme, rounding=Rounding.NEAREST)
        rounded = quantize(x, nearest, site, *scale_and_zero(scheme, lo, hi))
        squares = _whole_groups((rounded - x) ** 2, scheme, site, 0.0)
        view, axes = blocks(squares, scheme, site)
        return reduced(total(view, axes), scheme, site, 0)

    return _best(error, low, high)
