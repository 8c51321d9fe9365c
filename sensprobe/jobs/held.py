"""The state bytes that the streaming runtime holds under a plan, answered without torch if it can.

`packed.Holding` knows for every plan, by building the program of a step. Here a plan is told by its
shapes if all its schemes are of those that kernels surely stream; for any other Holding is asked.
"""

from __future__ import annotations

from collections.abc import Mapping
from math import prod

from sensprobe.models import FAMILIES
from sensprobe.plans.cost import site_bytes
from sensprobe.plans.formats import BF16, FP16, FP32, Int
from sensprobe.plans.scheme import EXACT, Rounding, Scheme, scale_shape
from sensprobe.plans.sites import Kind, Site
from sensprobe.session.outline import Outline

ROWS = 16
"""Rows of a real state that kernels take together (`sensprobe_kernels.simd.vector.LANES`)."""
STATE_BITS = 8
"""Bits of the widest codes that a state is packed in."""
PLAIN = (FP16, BF16, FP32)


def held(model: Outline, plan: Mapping[str, Scheme]) -> tuple[int, str]:
    """Bytes that hold one sequence's states between steps under a resolved plan, and the reason if
    they are more than the plan packs ("" if they are not)."""
    sites, family = model.sites, FAMILIES[model.family]
    streams = family.lower is not None and all(map(_rows_fit, sites.values()))
    if streams and all(_runs(sites[name], scheme) for name, scheme in plan.items()):
        states = (site for site in sites.values() if site.kind is Kind.STATE)
        return sum(site_bytes(site, plan.get(site.name, EXACT))[1] for site in states), ""
    from sensprobe.packed import Holding

    weights = dict.fromkeys(n for n, s in sites.items() if s.kind is Kind.WEIGHT)
    holding = Holding(family.model(model.config, weights))
    return holding.state_bytes(plan), holding.why(plan)


def _rows_fit(site: Site) -> bool:
    return site.kind is not Kind.STATE or site.is_complex or site.shape[-2] % ROWS == 0


def _runs(site: Site, scheme: Scheme) -> bool:
    """True if a kernel surely streams a site in a scheme; False also if that is not known here."""
    if scheme.hadamard or scheme.rounding is not Rounding.NEAREST or scheme.every != 1:
        return False
    if scheme.format in PLAIN:
        return True
    if not isinstance(scheme.format, Int) or scheme.granularity not in ("tensor", "channel"):
        return False
    if site.kind is Kind.WEIGHT:
        rows = site.shape[:-1]
        return prod(scale_shape(scheme, site)[: len(rows)]) in (1, prod(rows))
    return scheme.granularity == "tensor" and (
        site.kind is not Kind.STATE or scheme.format.bits <= STATE_BITS
    )
