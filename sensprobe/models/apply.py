"""A plan put on a model: calibrate once, encode its weights, and run it under a rounding tap."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from sensprobe import ops
from sensprobe.models import Model, together
from sensprobe.numerics.calibrate import (
    Observer,
    Statistics,
    Wanted,
    given_range,
    range_of,
    watched_as,
    weight_range,
)
from sensprobe.numerics.crossbar import Array
from sensprobe.numerics.gptq import compensated
from sensprobe.numerics.rounding import Fields, decode, encode, scale_and_zero
from sensprobe.numerics.taps import Recording, RoundingTap, StaticScale, Tap, not_calibrated
from sensprobe.plans.crossbar import Crossbar
from sensprobe.plans.fitting import reads_activation
from sensprobe.plans.scheme import EXACT, Rounding, Scheme
from sensprobe.plans.sites import Kind, Site

CALIBRATION_BATCH = 256


def observe(model: Model, x: Tensor, wanted: Wanted | None = None) -> dict[str, Statistics]:
    """Statistics of every activation and state of the full-precision model over x (n, l, c).

    `wanted` is what to watch beyond extremes: `wanted_by(plan, model)`.
    """
    observer = Observer(wanted or Wanted(), rotate=ops.rotate)
    tap: Tap = Recording(observer.observe)
    with torch.inference_mode():
        for batch in x.split(together(model, x.shape[1], CALIBRATION_BATCH)):
            model(batch, tap)
    return observer.seen


def encode_weight(model: Model, site: Site, scheme: Scheme, moment: Tensor | None = None) -> Fields:
    """Codes and scales of one weight under one scheme, computed in float64.

    `moment` is that of what a projection reads; `gptq` raises SchemeError without it.
    """
    x = model.weights[site.name].detach()
    x = x if x.is_complex() else x.double()
    range = weight_range(x, scheme, site)
    if scheme.rounding is Rounding.GPTQ:
        x = compensated(x, scheme, site, moment, range)
    return encode(x, scheme, site, range)


def inputs_of(model: Model) -> dict[str, str]:
    """Weight of a linear map -> the activation it reads, where that is one."""
    sites = model.sites
    return {
        weight: operand
        for weight, operand, _ in model.products
        if reads_activation(sites[weight]) and operand is not None
    }


def static_scale(
    site: Site, scheme: Scheme, statistics: Mapping[str, Statistics]
) -> StaticScale | None:
    """Scale and zero point of a static activation or state; None where the scheme has none."""
    if site.kind is Kind.WEIGHT or not scheme.scaled or scheme.dynamic:
        return None
    if scheme.range == "given":
        low, high = given_range(scheme, site)
    elif (watched := watched_as(site.name, scheme)) in statistics:
        low, high = range_of(statistics[watched], scheme)
    else:
        raise not_calibrated(site, scheme)
    scale, zero = scale_and_zero(scheme, low, high)
    return scale.float(), None if zero is None else zero.float()


@dataclass(slots=True)
class Applier:
    """Makes taps for one model; what one plan encoded, the next need not encode again.

    `statistics` come from `observe`; empty ones do for plans that need no calibration. `crossbar`
    is what the matrices of plans lie on, `arrays` those that are calibrated, by plan (see
    `models.crossbar`).
    """

    model: Model
    statistics: Mapping[str, Statistics] = field(default_factory=dict)
    crossbar: Crossbar | None = None
    arrays: dict[str, dict[str, Array]] = field(default_factory=dict)
    _weights: dict[tuple[str, Scheme], Tensor] = field(default_factory=dict)
    _scales: dict[tuple[str, Scheme], StaticScale | None] = field(default_factory=dict)
    _radius_sites: dict[int, list[str]] = field(default_factory=dict)  # layer -> sites it is of
    _radii: dict[tuple[int, tuple[Scheme | None, ...]], float] = field(default_factory=dict)
    _exact_radii: list[tuple[float, int]] = field(default_factory=list)  # the largest first

    def lay_on(self, crossbar: Crossbar | None) -> None:
        """Simulate the matrices of plans on a crossbar from now on; None: as linear maps."""
        self.crossbar = crossbar
        self.arrays.clear()

    def tap(self, plan: Mapping[str, Scheme]) -> RoundingTap:
        """The tap that runs the model under a resolved plan; it holds every weight."""
        tap = self.partial_tap(plan)
        exact = {
            name: self._weight(site, EXACT)
            for name, site in self.model.sites.items()
            if site.kind is Kind.WEIGHT and name not in tap.weights
        }
        return replace(tap, weights={**tap.weights, **exact})

    def partial_tap(self, plan: Mapping[str, Scheme]) -> RoundingTap:
        """The same tap without the weights that the plan leaves alone, which it takes from the
        model as they pass: making one costs what the plan names, however large the model is."""
        weights, scales = {}, {}
        for name, scheme in plan.items():
            site, key = self.model.sites[name], (name, scheme)
            if site.kind is Kind.WEIGHT:
                weights[name] = self._weight(site, scheme)
                continue
            if key not in self._scales:
                self._scales[key] = static_scale(site, scheme, self.statistics)
            if (scale := self._scales[key]) is not None:
                scales[name] = scale
        return RoundingTap(plan, weights, scales, round=ops.rounded)

    def encoded(self, site: Site, scheme: Scheme) -> Fields:
        """Codes and scales of one weight under one scheme."""
        return encode_weight(self.model, site, scheme, self._moment(site.name, scheme))

    def adopt(self, tap: RoundingTap) -> None:
        """Take over what a tap holds: an exported model's decoded weights and calibrated scales."""
        self._radii.clear()
        self._exact_radii.clear()
        for name, scheme in tap.plan.items():
            if name in tap.weights:
                self._weights[name, scheme] = tap.weights[name]
            else:
                self._scales[name, scheme] = tap.scales.get(name)

    def calibrated(self, plan: Mapping[str, Scheme]) -> bool:
        """True if everything that a resolved plan has to calibrate is known."""
        needed = {n: s for n, s in plan.items() if needs_calibration({n: s}, self.model.sites)}
        return all(
            (n, s) in self._scales
            or (n, s) in self._weights
            or watched_as(n, s) in self.statistics
            or self._moment(n, s) is not None
            for n, s in needed.items()
        )

    def spectral_radius(self, plan: Mapping[str, Scheme]) -> float:
        """The model's spectral radius with the sites that it is computed from (of a Mamba also the
        bias of dt) as a resolved plan stores them. It needs no calibration; each layer is computed
        once for what the plan makes of it."""
        if not self._radius_sites:
            for name, site in self.model.sites.items():
                if site.layer is not None and name.split(".", 2)[2] in self.model.radius_reads:
                    self._radius_sites.setdefault(site.layer, []).append(name)
        read = self._radius_sites
        touched = {i for i, names in read.items() if any(name in plan for name in names)}
        found = [self._radius(i, tuple(map(plan.get, read[i]))) for i in touched]
        if not self._exact_radii:
            exact = ((self._radius(i, (None,) * len(n)), i) for i, n in read.items())
            self._exact_radii = sorted(exact, reverse=True)
        found += next(([r] for r, i in self._exact_radii if i not in touched), [])
        return max(found)

    def _radius(self, layer: int, schemes: tuple[Scheme | None, ...]) -> float:
        """One layer's spectral radius, of its sites in the order of `_radius_sites`."""
        key = layer, schemes
        if key not in self._radii:
            pairs = zip(self._radius_sites[layer], schemes, strict=True)
            reads = {name: scheme or EXACT for name, scheme in pairs}
            weights = {n: self._weight(self.model.sites[n], scheme) for n, scheme in reads.items()}
            tap = RoundingTap(reads, weights, {})
            self._radii[key] = self.model.layer_radius(layer, tap)
        return self._radii[key]

    def forget_scales(self) -> None:
        """Drop what was derived from earlier statistics; call after replacing them."""
        self._scales.clear()
        self.arrays.clear()
        for key in [key for key in self._weights if key[1].rounding is Rounding.GPTQ]:
            del self._weights[key]

    def _moment(self, weight: str, scheme: Scheme) -> Tensor | None:
        """The second moment of what a projection reads, for `gptq`; None if it was not watched."""
        if scheme.rounding is not Rounding.GPTQ:
            return None
        seen = self.statistics.get(inputs_of(self.model).get(weight, ""))
        return None if seen is None else seen.moment

    def _weight(self, site: Site, scheme: Scheme) -> Tensor:
        """The values of a weight in a scheme, decoded once."""
        key = (site.name, scheme)
        if key not in self._weights:
            self._weights[key] = decode(self.encoded(site, scheme), scheme, site)
        return self._weights[key]


def needs_calibration(plan: Mapping[str, Scheme], sites: Mapping[str, Site]) -> bool:
    """True if a resolved plan has static activations or states whose range is not given, or
    weights that `gptq` rounds."""
    return any(
        scheme.rounding is Rounding.GPTQ or _needs_range(sites[name], scheme)
        for name, scheme in plan.items()
    )


def _needs_range(site: Site, scheme: Scheme) -> bool:
    """True if a site's values must be watched to find the range of its scheme."""
    unmeasured = scheme.dynamic or scheme.range == "given"
    return site.kind is not Kind.WEIGHT and scheme.scaled and not unmeasured


def wanted_by(plan: Mapping[str, Scheme], model: Model) -> Wanted:
    """The statistics that calibration must watch for a resolved plan; an argument of `observe`."""
    ranged = {n: s for n, s in plan.items() if _needs_range(model.sites[n], s)}
    counted = {watched_as(n, s): s for n, s in ranged.items() if s.range in ("percentile", "mse")}
    rounded_by_gptq = [n for n, s in plan.items() if s.rounding is Rounding.GPTQ]
    reads = inputs_of(model) if rounded_by_gptq else {}
    return Wanted(
        frozenset(n for n, s in counted.items() if s.granularity == "tensor"),
        frozenset(n for n, s in counted.items() if s.granularity != "tensor"),
        frozenset(n for n, s in ranged.items() if s.hadamard),
        frozenset(reads[n] for n in rounded_by_gptq),
    )
