"""The network under a plan, on parameters in training.

In every step the parameters are deployed as a loader would deploy them, encoded and decoded by the
plan, and run under its tap: the network in training is the one that an evaluation of the checkpoint
under the plan runs, to the bit. Ranges of static activations and states are watched anew on the
calibration split before every leg, at full precision, as an evaluation does, or learned (see
`ranges`). Noise is drawn anew in every step, of weights for the batch and of activations and states
for every sequence, and passes gradients straight through (Joshi et al. 2020, arXiv 1906.03138,
train with noise on weights so).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from sensprobe import ops
from sensprobe.checkpoints.own import build
from sensprobe.errors import SchemeError
from sensprobe.models import Model, forward
from sensprobe.models.apply import Applier, encode_weight, needs_calibration, observe, wanted_by
from sensprobe.models.forward import Layer, one_layer
from sensprobe.models.noisy import ranged, sigmas_of
from sensprobe.numerics.noise import NoiseTap, noisy_weight
from sensprobe.numerics.rounding import decode, straight
from sensprobe.numerics.taps import RoundingTap, StaticScale, Tap, single
from sensprobe.plans.noise import Draw
from sensprobe.plans.plan import Resolved
from sensprobe.plans.scheme import Rounding
from sensprobe.plans.sites import Kind
from sensprobe.train.method import Method
from sensprobe.train.parametrization import Params, deployed, stabilised
from sensprobe.train.ranges import LearningTap, first_ranges, widened, widths_of, with_ranges

NO_NOISE = Draw({})
TRAINING = 1 << 40
"""The first index of the draws of training: devices that are evaluated on have smaller ones."""


def require_trainable(plan: Resolved) -> None:
    """SchemeError for a plan with a scheme that nothing can be trained under."""
    if named := [n for n, s in plan.items() if s.rounding is Rounding.GPTQ]:
        raise SchemeError(
            f"{named[0]} in {plan[named[0]]} cannot be tuned: gptq chooses codes for a model that "
            f"is finished, by what its layers read, and tuning changes that in every step. Leave "
            f"/gptq out of the plan ({len(named)} site(s)): tuning does what it is for."
        )


@dataclass
class UnderPlan:
    """The network of a config with parameters in training, under a resolved plan.

    `calibration` has the sequences on which ranges of static activations and states, and of noise
    on them, are watched; None where nothing needs any.
    """

    plan: Resolved
    config: Any
    calibration: Tensor | None = None
    noise: Draw = NO_NOISE  # what is perturbed, and the seed
    method: Method = field(default_factory=Method)
    layer: Layer = one_layer  # how a layer is run: see `train.ram`
    _scales: Mapping[str, StaticScale] | None = field(default=None, repr=False)
    _sigmas: Mapping[str, float] = field(default_factory=dict, repr=False)
    _now: Resolved | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        require_trainable(self.plan)
        self.method.require_use(self.plan, self.config)

    @torch.no_grad()
    def stabilise(self, params: Params, plan: Resolved) -> None:
        """Move every A that a plan stores above 1, or noise would move there, inward, in place.
        Does nothing without `stable`."""
        if self.method.stable:
            for name, p in stabilised(params, self.config, plan, self.noise.noises).items():
                if p is not params[name]:
                    params[name].copy_(p)

    def outputs(self, params: Params, x: Tensor, first: int = 0) -> Tensor:
        """The outputs of the network under the plan and its noise. `first` is the position that
        stochastic rounding and noise take for the first sequence of x, another in every step."""
        model: Any = deployed(params, self.config)
        plan = self.now(params)
        passing = {n: s for n, s in plan.items() if model.sites[n].kind is not Kind.WEIGHT}
        widths = widths_of(plan, params)
        if self._scales is None:
            watched = {n: s for n, s in passing.items() if n not in widths}
            applier = self._calibrated(model, watched, self.noise)
            self._scales = applier.partial_tap(watched).scales
            self._sigmas = sigmas_of(self.noise.noises, model.sites, applier.statistics)
        learning = {n: s for n, s in passing.items() if n in widths}
        scales = {**self._scales, **Applier(model).partial_tap(learning).scales}
        draw = replace(self.noise, index=TRAINING + first)
        rounding = self._tap(model, plan, scales, draw, first)
        tap: Tap = LearningTap(rounding, widths) if widths else rounding
        if self._sigmas:
            tap = NoiseTap(tap, self._sigmas, draw, first, numbers=ops.normals)
        return forward.outputs(model, x, tap, self.layer)

    def begin(self, share: float = 0.0) -> None:
        """Have the ranges watched anew before the next step, and go on with a share of the bits
        that integers lack to eight."""
        self._scales, self._now = None, widened(self.plan, share)

    def now(self, params: Params) -> Resolved:
        """The plan that the parameters are trained under at this time."""
        return with_ranges(self.plan if self._now is None else self._now, params)

    def tuned(self, params: Params) -> Resolved:
        """The plan that a checkpoint of these parameters is for."""
        return with_ranges(self.plan, params)

    def first_ranges(self, params: Params) -> dict[str, Tensor]:
        """The parameters of the ranges that are learned, at the start."""
        if self.method.ranges == "watched":
            return {}
        return first_ranges(self._calibrated(deployed(params, self.config), self.plan), self.plan)

    def applier(self, checkpoint: Params, plan: Resolved) -> Applier:
        """The applier that evaluates a checkpoint under a plan."""
        return self._calibrated(build(checkpoint, self.config, Path("in training")), plan)

    def _calibrated(self, model: Model, plan: Resolved, noise: Draw = NO_NOISE) -> Applier:
        needed = needs_calibration(plan, model.sites) or ranged(noise.noises, model.sites)
        if self.calibration is None or not needed:
            return Applier(model)
        return Applier(model, observe(model, self.calibration, wanted_by(plan, model)))

    def _tap(
        self,
        model: Model,
        plan: Resolved,
        scales: Mapping[str, StaticScale],
        draw: Draw,
        first: int,
    ) -> RoundingTap:
        """The tap that an applier makes of the model's weights, to the bit, with gradients, and
        with the noise of a draw."""
        weights = {}
        for name, scheme in plan.items():
            site = model.sites[name]
            if site.kind is Kind.WEIGHT:
                with torch.no_grad():
                    rounded = decode(encode_weight(model, site, scheme), scheme, site)
                weights[name] = straight(single(model.weights[name]), rounded)
        for name, noise in draw.noises.items():
            site = model.sites[name]
            if site.kind is Kind.WEIGHT:
                w = weights[name] if name in weights else single(model.weights[name])
                weights[name] = noisy_weight(w, noise, site, draw, ops.normals)
        return RoundingTap(plan, weights, scales, first, round=ops.rounded)
