"""Sites and costs: jobs that need a model's outline, and neither its weights nor torch."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sensprobe.errors import UsageError
from sensprobe.jobs.held import held
from sensprobe.plans.cost import cost as price
from sensprobe.plans.plan import Plan
from sensprobe.plans.presets import PRESETS, Preset
from sensprobe.plans.scheme import Scheme
from sensprobe.plans.sites import Kind
from sensprobe.session.outline import Outline


def list_sites(model: Outline) -> list[dict[str, Any]]:
    """Every site of a model, as `Site.to_json` writes it, in the order of the forward pass, with
    `stored_dtype` and `stored_bytes`, as the model's file has it."""
    rows = []
    for site in model.sites.values():
        dtype, size = model.stored_as(site)
        rows.append({**site.to_json(), "stored_dtype": dtype, "stored_bytes": size})
    return rows


def cost(model: Outline, plan: Plan | Mapping[str, Scheme], batch: int = 1) -> dict[str, Any]:
    """Bytes, effective bits and bit operations of a plan (or of one that is resolved already).

    `state_bytes` are those of states as the plan packs them; `held_state_bytes` those that the
    streaming runtime holds between steps, and `held_why` says why they are more ("" where they are
    not).
    """
    sites = model.sites.values()
    resolved = plan.resolve(sites) if isinstance(plan, Plan) else plan
    found = price(sites, resolved, model.products, batch)
    held_bytes, why = held(model, resolved)
    return {**found.to_json(), "held_state_bytes": batch * held_bytes, "held_why": why}


def cost_and_stored(
    model: Outline, plan: Plan | Mapping[str, Scheme], batch: int = 1
) -> dict[str, Any]:
    """A plan's cost, and the bytes of the weights without it: `stored_weight_bytes` as the model's
    file has them (in `stored_dtype`), and `full_weight_bytes` in float32."""
    weights = (s for s in model.sites.values() if s.kind is Kind.WEIGHT)
    return {
        **cost(model, plan, batch),
        "stored_weight_bytes": model.stored_bytes,
        "stored_dtype": model.stored_dtype,
        "full_weight_bytes": sum(site.full_bytes for site in weights),
    }


def full_bytes(model: Outline, batch: int = 1) -> dict[str, int]:
    """Bytes of a model without a plan, as its user has it: `total`, `weight` (as the file stores
    them) and `state` (float32). A budget of 25% is a part of these."""
    states = (s for s in model.sites.values() if s.kind is Kind.STATE)
    weight, state = model.stored_bytes, batch * sum(s.full_bytes for s in states)
    return {"total": weight + state, "weight": weight, "state": state}


def list_presets(model: Outline | None = None, batch: int = 1) -> list[dict[str, Any]]:
    """Every preset with its source; for a model also its `cost`, or `why_not`."""
    rows = []
    for preset in PRESETS.values():
        schemes = {
            family: [list(entry) for entry in entries] for family, entries in preset.schemes.items()
        }
        row = {key: getattr(preset, key) for key in ("name", "about", "source", "differs")}
        priced = {} if model is None else _priced(model, preset, batch)
        rows.append({**row, "schemes": schemes, **priced})
    return rows


def _priced(model: Outline, preset: Preset, batch: int) -> dict[str, Any]:
    try:
        plan = preset.plan(model.family, model.sites.values())
    except UsageError as error:
        return {"why_not": str(error)}
    return {"cost": cost_and_stored(model, plan, batch)}
