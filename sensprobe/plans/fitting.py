"""Fitting schemes to sites: whether one makes sense, why not, and the nearest one that does."""

from __future__ import annotations

from dataclasses import replace
from math import prod

from sensprobe.errors import SchemeError
from sensprobe.plans.formats import LogPolar, Polar
from sensprobe.plans.scheme import Rounding, Scheme, scale_count, scale_shape
from sensprobe.plans.sites import Axis, Kind, Part, Site


def hadamard_order(size: int) -> int:
    """The largest 2^k, 12·2^k or 20·2^k that divides a size: there is a Hadamard matrix of each.

    A longer axis is rotated in blocks of it. 1, which rotates nothing, for odd sizes.
    """
    two = size & -size
    if two < 4:
        return two
    return two * (5 if size % 5 == 0 else 3 if size % 3 == 0 else 1)


def _no_hadamard(site: Site) -> str | None:
    """Why a site cannot be rotated; None if it can."""
    if site.is_complex:
        return "hadamard is for real numbers, and its are complex"
    if site.kind is Kind.STATE or site.part is Part.DECAY:
        return "hadamard is for weights and for what is read once; this lives inside an operation"
    if hadamard_order(site.shape[-1]) == 1:
        return (
            f"its last axis holds {site.shape[-1]} value(s), and no Hadamard matrix has an odd "
            "order above 1: leave out hadamard"
        )
    return None


def reads_activation(site: Site) -> bool:
    """True if a site is the weight of a linear map of an activation: what `gptq` is for.

    B of S5 is one, but no parameter: training could not start from what gptq makes of it.
    """
    return (
        site.kind is Kind.WEIGHT
        and site.axes == (Axis.OUT, Axis.IN)
        and site.part not in (Part.ENCODER, Part.EMBEDDING, Part.B)
    )


def why_not(scheme: Scheme, site: Site) -> str | None:
    """Why a scheme makes no sense for a site; None if it does."""
    weight, state = site.kind is Kind.WEIGHT, site.kind is Kind.STATE
    is_polar = isinstance(scheme.format, Polar | LogPolar)
    if scheme.granularity == "head" and Axis.HEAD not in site.axes:
        return "it has no heads; use tensor, channel or groupK"
    if (scheme.parts or is_polar) and not site.is_complex:
        return "its numbers are real: parts, polar and logpolar are for complex tensors"
    if isinstance(scheme.format, LogPolar) and site.part is not Part.A:
        return (
            "logpolar stores log(1 - magnitude), and only A stays inside the unit circle; use polar"
        )
    if is_polar and not weight:
        return "polar formats are for weights: a state is rewritten every step, as two parts"
    if scheme.dynamic and weight:
        return "a weight does not change: its range is known; leave out dynamic"
    for_states = (
        scheme.rounding is Rounding.FEEDBACK or scheme.clip is not None or scheme.every != 1
    )
    if for_states and not state:
        return "feedback, clip and every are for states, which are rounded again and again"
    if scheme.rounding is Rounding.GPTQ and not reads_activation(site):
        return (
            "gptq is for projections of an activation, whose values it is calibrated on; use "
            "nearest"
        )
    if scheme.granularity == "decoupled" and (not state or site.is_complex or len(site.shape) < 2):
        return "decoupled scales are for real states: one a channel times one a state variable"
    if scheme.hadamard and (reason := _no_hadamard(site)):
        return reason
    if site.part is Part.CONV_STATE and scheme.rounding is Rounding.FEEDBACK:
        return (
            "what a convolution remembers moves on by one place a step, so an error cannot be "
            "added back where it was made; use nearest or stochastic"
        )
    if scheme.range in ("percentile", "mse") and not weight and not _watched(scheme, site):
        watched = "a head at a time" if Axis.HEAD in site.axes else "along their first axis"
        use = "head or tensor" if Axis.HEAD in site.axes else "tensor"
        return f"percentile and mse ranges of {_THESE[site.kind]} are watched {watched}; use {use}"
    if scheme.scaled:
        one_each = scale_count(scheme, site) * (2 if site.is_complex and not scheme.parts else 1)
        if one_each >= site.reals and (weight or scheme.dynamic) and prod(site.shape) > 1:
            return "it would store a scale for each value; use a coarser granularity"
    return None


_THESE = {Kind.STATE: "a state", Kind.ACTIVATION: "an activation of several axes"}


def _watched(scheme: Scheme, site: Site) -> bool:
    """True if the histograms calibration keeps, one an index of the first axis, tell the range."""
    if len(site.shape) == 1 and site.kind is Kind.ACTIVATION:
        return True
    beyond = scale_shape(scheme, site)[1 : len(site.shape)]
    return scheme.granularity != "group" and prod(beyond) == 1


def check(scheme: Scheme, site: Site) -> None:
    """Raise SchemeError if the scheme makes no sense for the site, saying why."""
    if reason := why_not(scheme, site):
        raise SchemeError(
            f"scheme {str(scheme)!r} makes no sense for {site.name} ({site.kind}): {reason}."
        )


def adapt(scheme: Scheme, site: Site) -> Scheme:
    """The nearest scheme that makes sense for a site: what `--scheme` means over a whole model.

    Drops what the site cannot have (parts on real numbers, dynamic on a weight, state options
    elsewhere, gptq off projections, hadamard inside operations and on odd sizes) and coarsens
    granularity head -> channel -> tensor. A plan's own entries are never adapted: they are checked.
    """
    changes: dict[str, object] = {}
    if not site.is_complex:
        changes["parts"] = False
    if site.kind is Kind.WEIGHT:
        changes["dynamic"] = False
    if site.kind is not Kind.STATE:
        changes |= {"clip": None, "every": 1}
    if scheme.rounding is Rounding.FEEDBACK and (
        site.kind is not Kind.STATE or site.part is Part.CONV_STATE
    ):
        changes["rounding"] = Rounding.NEAREST
    if scheme.rounding is Rounding.GPTQ and not reads_activation(site):
        changes["rounding"] = Rounding.NEAREST
    if scheme.hadamard and _no_hadamard(site):
        changes["hadamard"] = False
    fitted = replace(scheme, **changes)  # type: ignore[arg-type]
    for granularity in ("channel", "tensor"):
        if why_not(fitted, site) is None:
            break
        if fitted.granularity != granularity:
            fitted = replace(fitted, granularity=granularity, group=0)
    check(fitted, site)
    return fitted
