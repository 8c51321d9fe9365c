"""A plan put on a model: calibrate once, encode its weights, and run it under a rounding tap."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor

from sensprobe.calibrate import Observer, Statistics, given_range, range_of, weight_range
from sensprobe.errors import SchemeError
from sensprobe.models import Model, together
from sensprobe.rounding import Fields, decode, encode, scale_and_zero
from sensprobe.scheme import EXACT, Scheme
from sensprobe.sites import Kind, Part, Site
from sensprobe.taps import EXACT as EXACT_TAP
from sensprobe.taps import Recording, RoundingTap, StaticScale, Tap

CALIBRATION_BATCH = 256


def observe(model: Model, x: Tensor, histograms: bool = False) -> dict[str, Statistics]:
    """Statistics of every activation and state of the full-precision model over x (n, l, c)."""
    observer = Observer(histograms)
    tap: Tap = Recording(observer.observe)
    with torch.inference_mode():
        for batch in x.split(together(model, x.shape[1], CALIBRATION_BATCH)):
            model(batch, tap)
    return observer.seen


def encode_weight(model: Model, site: Site, scheme: Scheme) -> Fields:
    """Codes and scales of one weight under one scheme, computed in float64."""
    x = model.weights[site.name].detach()
    x = x if x.is_complex() else x.double()
    return encode(x, scheme, site, weight_range(x, scheme, site))


def static_scale(
    site: Site, scheme: Scheme, statistics: Mapping[str, Statistics]
) -> StaticScale | None:
    """Scale and zero point of a static activation or state; None where the scheme has none."""
    if site.kind is Kind.WEIGHT or not scheme.scaled or scheme.dynamic:
        return None
    if scheme.range == "given":
        low, high = given_range(scheme, site)
    elif site.name in statistics:
        low, high = range_of(statistics[site.name], scheme)
    else:
        raise SchemeError(
            f"{site.name} in {scheme} needs calibrated ranges and there are none. Give data to "
            "calibrate on, a range in the scheme (range50), or use dynamic."
        )
    scale, zero = scale_and_zero(scheme, low, high)
    return scale.float(), None if zero is None else zero.float()


@dataclass(slots=True)
class Applier:
    """Makes taps for one model; what one plan encoded, the next need not encode again.

    `statistics` come from `observe`; empty ones do for plans without static activations or states.
    """

    model: Model
    statistics: Mapping[str, Statistics] = field(default_factory=dict)
    _weights: dict[tuple[str, Scheme], Tensor] = field(default_factory=dict)
    _scales: dict[tuple[str, Scheme], StaticScale | None] = field(default_factory=dict)

    def tap(self, plan: Mapping[str, Scheme]) -> RoundingTap:
        """The tap that runs the model under a resolved plan."""
        weights, scales = {}, {}
        for name, scheme in plan.items():
            site, key = self.model.sites[name], (name, scheme)
            if site.kind is Kind.WEIGHT:
                if key not in self._weights:
                    self._weights[key] = decode(
                        encode_weight(self.model, site, scheme), scheme, site
                    )
                weights[name] = self._weights[key]
                continue
            if key not in self._scales:
                self._scales[key] = static_scale(site, scheme, self.statistics)
            if (scale := self._scales[key]) is not None:
                scales[name] = scale
        for name, site in self.model.sites.items():
            if site.kind is Kind.WEIGHT and name not in weights:
                weights[name] = self._exact(site)
        return RoundingTap(plan, weights, scales)

    def adopt(self, tap: RoundingTap) -> None:
        """Take over what a tap holds: an exported model's decoded weights and calibrated scales."""
        for name, scheme in tap.plan.items():
            if name in tap.weights:
                self._weights[name, scheme] = tap.weights[name]
            else:
                self._scales[name, scheme] = tap.scales.get(name)

    def calibrated(self, plan: Mapping[str, Scheme]) -> bool:
        """Whether every static range a resolved plan needs is known."""
        needed = {n: s for n, s in plan.items() if needs_calibration({n: s}, self.model.sites)}
        return all((n, s) in self._scales or n in self.statistics for n, s in needed.items())

    def spectral_radius(self, plan: Mapping[str, Scheme]) -> float:
        """The model's, with A as a resolved plan stores it; no calibration is needed for that."""
        stored = {n: s for n, s in plan.items() if self.model.sites[n].part is Part.A}
        return self.model.spectral_radius(self.tap(stored) if stored else EXACT_TAP)

    def forget_scales(self) -> None:
        """Drop what was derived from earlier statistics; call after replacing them."""
        self._scales.clear()

    def _exact(self, site: Site) -> Tensor:
        key = (site.name, EXACT)
        if key not in self._weights:
            self._weights[key] = decode(encode_weight(self.model, site, EXACT), EXACT, site)
        return self._weights[key]


def needs_calibration(plan: Mapping[str, Scheme], sites: Mapping[str, Site]) -> bool:
    """Whether a resolved plan has static activations or states whose range is not given."""
    return any(
        sites[name].kind is not Kind.WEIGHT
        and scheme.scaled
        and not scheme.dynamic
        and scheme.range != "given"
        for name, scheme in plan.items()
    )


def needs_histograms(schemes: Iterable[Scheme]) -> bool:
    """Whether any scheme asks for more of the calibration than extremes."""
    return any(s.range in ("percentile", "mse") for s in schemes)
