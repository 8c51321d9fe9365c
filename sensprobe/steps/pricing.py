"""Sites and costs: what needs a model's config and no run."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sensprobe.cost import cost as price
from sensprobe.errors import UsageError
from sensprobe.loading import Source
from sensprobe.packed import Holding
from sensprobe.plan import Plan
from sensprobe.presets import PRESETS, Preset
from sensprobe.scheme import Scheme


def list_sites(source: Source) -> list[dict[str, Any]]:
    """Every site of a model, as `Site.to_json` writes it, in the order of the forward pass."""
    return [site.to_json() for site in source.model.sites.values()]


def cost(source: Source, plan: Plan | Mapping[str, Scheme], batch: int = 1) -> dict[str, Any]:
    """Bytes, effective bits and bit operations of a plan (or of one that is resolved already).

    `state_bytes` are those of states as the plan packs them; beside them `held_state_bytes` are
    those that the streaming runtime holds between steps, and `held_why` says why they are more
    ("" where they are not).
    """
    sites = source.model.sites.values()
    resolved = plan.resolve(sites) if isinstance(plan, Plan) else plan
    holding = Holding(source.model)
    return {
        **price(sites, resolved, source.model.products, batch).to_json(),
        "held_state_bytes": batch * holding.state_bytes(resolved),
        "held_why": holding.why(resolved),
    }


def full_bytes(source: Source, batch: int = 1) -> dict[str, int]:
    """Bytes of a model without a plan, as its user has it: `total`, `weight` and `state`. A budget
    of 25% is a part of these."""
    full = price(source.model.sites.values(), {}, batch=batch)
    return {"total": full.total_bytes, "weight": full.weight_bytes, "state": full.state_bytes}


def list_presets(source: Source | None = None, batch: int = 1) -> list[dict[str, Any]]:
    """Every preset: what it is and from where; of a model also its `cost`, or `why_not`."""
    rows = []
    for preset in PRESETS.values():
        schemes = {
            family: [list(entry) for entry in entries] for family, entries in preset.schemes.items()
        }
        row = {key: getattr(preset, key) for key in ("name", "about", "source", "differs")}
        priced = {} if source is None else _priced(source, preset, batch)
        rows.append({**row, "schemes": schemes, **priced})
    return rows


def _priced(source: Source, preset: Preset, batch: int) -> dict[str, Any]:
    try:
        plan = preset.plan(source.model.family, source.model.sites.values())
    except UsageError as error:
        return {"why_not": str(error)}
    return {"cost": cost(source, plan, batch)}
