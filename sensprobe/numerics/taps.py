"""Taps: the one seam between a model and whatever looks at or changes its tensors.

A model passes every named tensor through `tap(site, tensor)`, and asks `tap.storage(site)` how an
operation stores the tensors inside it. Recording, rounding and noise (see `noise`) are all taps.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Protocol

import torch
from torch import Tensor

from sensprobe.errors import SchemeError
from sensprobe.numerics.philox import key_of, noise_like
from sensprobe.numerics.rounding import (
    min_max,
    quantize,
    rotated,
    rotated_back,
    scale_and_zero,
    straight,
)
from sensprobe.numerics.storage import Rounded, Storage, Watched
from sensprobe.plans.scheme import Rounding, Scheme
from sensprobe.plans.sites import Kind, Site

StaticScale = tuple[Tensor, Tensor | None]
"""Scale and zero point of a static scheme, float32, of the scheme's scale shape."""


class Tap(Protocol):
    """A tap is called with each named tensor once per use, and returns the tensor that the model
    goes on with.

    Weights arrive in the model's own precision (float64 where it was discretised) and leave in
    float32 or complex64.
    """

    def __call__(self, site: Site, x: Tensor) -> Tensor: ...

    def storage(self, site: Site) -> Storage:
        """The way to store the tensor of a site inside an operation; None keeps it exact."""


def single(x: Tensor) -> Tensor:
    """x in float32 or complex64."""
    return x.to(torch.complex64 if x.is_complex() else torch.float32)


class Exact:
    """The tap of full precision, which changes nothing."""

    def __call__(self, site: Site, x: Tensor) -> Tensor:
        return single(x)

    def storage(self, site: Site) -> Storage:
        return None


EXACT = Exact()


@dataclass(slots=True)
class Recording:
    """Calls `observe(site, tensor)` with every activation and every stored state, complex states as
    pairs of real numbers."""

    observe: Callable[[Site, Tensor], None]
    seen: dict[str, Site] = field(default_factory=dict)

    def __call__(self, site: Site, x: Tensor) -> Tensor:
        self.seen[site.name] = site
        if site.kind is Kind.ACTIVATION:
            self.observe(site, x)
        return single(x)

    def storage(self, site: Site) -> Storage:
        self.seen[site.name] = site

        return Watched(lambda states, step: self.observe(site, states))


def not_calibrated(site: Site, scheme: Scheme) -> SchemeError:
    """The error for a static scheme of a tensor whose range was not watched."""
    return SchemeError(
        f"{site.name} in {scheme} needs calibrated ranges and there are none. Give data to "
        "calibrate on, a range in the scheme (range50), or use dynamic."
    )


Rounder = Callable[[Tensor, Scheme, Site, StaticScale | None, Tensor | None], Tensor]


def rounded(
    x: Tensor, scheme: Scheme, site: Site, static: StaticScale | None, noise: Tensor | None
) -> Tensor:
    """An activation x (…, *site.shape) rounded by its scheme: the reference.

    `static` is the scale and zero point of a static scheme, `noise` the uniform noise of a
    stochastic one, shaped as x; None for other schemes.
    """
    x, scale, zero = rotated(x, scheme), None, None
    if scheme.scaled:
        scale, zero = static or scale_and_zero(scheme, *min_max(x, scheme, site))
    return rotated_back(quantize(x, scheme, site, scale, zero, noise), scheme)


@dataclass(frozen=True, slots=True)
class RoundingTap:
    """The tap that runs a model under a plan: it gives weights as they decode, and rounds
    activations and states as they pass. Rounding passes gradients straight through.

    `weights` holds the decoded tensors of the plan's weight sites; `scales` those of its static
    activations and states. `first` is the position of the batch's first sequence (see `Rounded`);
    `round` is `rounded` or what computes the same. `products` of a matrix by name multiply inputs
    (…, inputs) by it in place of a linear map, as a crossbar does.
    """

    plan: Mapping[str, Scheme]
    weights: Mapping[str, Tensor]
    scales: Mapping[str, StaticScale]
    first: int = 0
    step: int = 0  # steps taken before the first one of the sequences shown
    round: Rounder = rounded
    products: Mapping[str, Callable[[Tensor], Tensor]] = field(default_factory=dict)

    def __call__(self, site: Site, x: Tensor) -> Tensor:
        if site.kind is Kind.WEIGHT:
            return self.weights[site.name] if site.name in self.weights else single(x)
        scheme = self.plan.get(site.name)
        if scheme is None:
            return x
        static = self._static(site, scheme) if scheme.scaled and not scheme.dynamic else None
        noise = None
        if scheme.rounding is Rounding.STOCHASTIC:
            noise = noise_like(x, key_of(scheme.seed, site.name), self.first, self.step)
        return straight(x, self.round(x.detach(), scheme, site, static, noise))

    def _static(self, site: Site, scheme: Scheme) -> StaticScale:
        if site.name not in self.scales:
            raise not_calibrated(site, scheme)
        return self.scales[site.name]

    def storage(self, site: Site) -> Storage:
        scheme = self.plan.get(site.name)
        if scheme is None:
            return None
        scale, zero = (None, None)
        if scheme.scaled and not scheme.dynamic:
            scale, zero = self._static(site, scheme)
        return Rounded(scheme, site, scale, zero, self.first)

    def at(self, first: int) -> RoundingTap:
        """The same tap for a batch that starts at another position."""
        return replace(self, first=first)

    def after(self, steps: int) -> RoundingTap:
        """The same tap for sequences of which `steps` steps are over."""
        return replace(self, step=steps)
