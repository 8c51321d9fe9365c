"""Sites and costs: what needs a model's config and no run."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sensprobe.cost import cost as price
from sensprobe.loading import Source
from sensprobe.plan import Plan
from sensprobe.scheme import Scheme


def list_sites(source: Source) -> list[dict[str, Any]]:
    """Every site of a model, as `Site.to_json` writes it, in the order of the forward pass."""
    return [site.to_json() for site in source.model.sites.values()]


def cost(
    source: Source, plan: Plan | Mapping[str, Scheme], batch: int = 1
) -> dict[str, float | int]:
    """Bytes, effective bits and bit operations of a plan (or of one that is resolved already)."""
    sites = source.model.sites.values()
    resolved = plan.resolve(sites) if isinstance(plan, Plan) else plan
    return price(sites, resolved, source.model.products, batch).to_json()
