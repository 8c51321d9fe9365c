"""A plan put on a model whose tensors are perturbed: the tap of `Applier` under a draw of noise."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from sensprobe import ops
from sensprobe.models.apply import Applier
from sensprobe.numerics.calibrate import Statistics
from sensprobe.numerics.noise import NoiseTap, noisy_weight
from sensprobe.numerics.taps import RoundingTap
from sensprobe.plans.noise import Draw, Gaussian, Noise
from sensprobe.plans.scheme import Scheme
from sensprobe.plans.sites import Kind, Site


def ranged(noises: Mapping[str, Noise], sites: Mapping[str, Site]) -> list[str]:
    """The sites whose values must be watched to know how much their noise is."""
    return [name for name in noises if sites[name].kind is not Kind.WEIGHT]


def noisy_tap(applier: Applier, plan: Mapping[str, Scheme], draw: Draw) -> NoiseTap:
    """The tap that runs the applier's model under a resolved plan and a draw of noise.

    The applier has statistics of the activations and states that have noise.
    """
    sigmas = sigmas_of(draw.noises, applier.model.sites, applier.statistics)
    return NoiseTap(_device(applier, plan, draw), sigmas, draw, numbers=ops.normals)


def noisy_radius(applier: Applier, plan: Mapping[str, Scheme], draw: Draw) -> float:
    """The model's spectral radius as the device of a draw holds a resolved plan."""
    model = applier.model
    read = {n: one for n, one in draw.noises.items() if n.split(".", 2)[-1] in model.radius_reads}
    if not read:
        return applier.spectral_radius(plan)
    tap = _device(applier, plan, replace(draw, noises=read))
    return max(model.layer_radius(i, tap) for i in range(model.config.layers))


def _device(applier: Applier, plan: Mapping[str, Scheme], draw: Draw) -> RoundingTap:
    """The tap of a resolved plan with the weights of a device."""
    tap, sites = applier.tap(plan), applier.model.sites
    weights = {
        name: noisy_weight(tap.weights[name], noise, sites[name], draw, ops.normals)
        for name, noise in draw.noises.items()
        if sites[name].kind is Kind.WEIGHT
    }
    return replace(tap, weights={**tap.weights, **weights})


def sigmas_of(
    noises: Mapping[str, Noise], sites: Mapping[str, Site], statistics: Mapping[str, Statistics]
) -> dict[str, float]:
    """The standard deviation of the noise of every activation and state."""
    out = {}
    for name in ranged(noises, sites):
        noise, seen = noises[name], statistics[name]
        assert isinstance(noise, Gaussian)
        out[name] = noise.amount * max(seen.low.abs().max().item(), seen.high.abs().max().item())
    return out
