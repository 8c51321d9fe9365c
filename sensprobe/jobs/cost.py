"""Sites and costs: what needs a model's config and no run."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sensprobe.errors import UsageError
from sensprobe.packed import Holding
from sensprobe.plans.cost import cost as price
from sensprobe.plans.plan import Plan
from sensprobe.plans.presets import PRESETS, Preset
from sensprobe.plans.scheme import Scheme
from sensprobe.plans.sites import Kind
from sensprobe.session.source import Source


def list_sites(source: Source) -> list[dict[str, Any]]:
    """Every site of a model, as `Site.to_json` writes it, in the order of the forward pass; of
    each also `stored_dtype` and `stored_bytes`, as the model's file has it."""
    rows = []
    for site in source.model.sites.values():
        dtype, size = source.stored_as(site)
        rows.append({**site.to_json(), "stored_dtype": dtype, "stored_bytes": size})
    return rows


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


def cost_beside_stored(
    source: Source, plan: Plan | Mapping[str, Scheme], batch: int = 1
) -> dict[str, Any]:
    """A plan's cost, and what the weights take without it: `stored_weight_bytes` as the model's
    file has them (in `stored_dtype`), and `full_weight_bytes` in float32."""
    weights = (s for s in source.model.sites.values() if s.kind is Kind.WEIGHT)
    return {
        **cost(source, plan, batch),
        "stored_weight_bytes": source.stored_bytes,
        "stored_dtype": source.stored_dtype,
        "full_weight_bytes": sum(site.full_bytes for site in weights),
    }


def full_bytes(source: Source, batch: int = 1) -> dict[str, int]:
    """Bytes of a model without a plan, as its user has it: `total`, `weight` (as the file stores
    them) and `state` (float32). A budget of 25% is a part of these."""
    states = (s for s in source.model.sites.values() if s.kind is Kind.STATE)
    weight, state = source.stored_bytes, batch * sum(s.full_bytes for s in states)
    return {"total": weight + state, "weight": weight, "state": state}


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
    return {"cost": cost_beside_stored(source, plan, batch)}
