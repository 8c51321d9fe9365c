"""A plan's matrices laid on a crossbar, for evaluations and exports."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sensprobe.errors import UsageError
from sensprobe.models.crossbar import placement_of
from sensprobe.plans.crossbar import Crossbar, counted
from sensprobe.plans.scheme import Scheme
from sensprobe.session.session import Session


def laid_on(
    session: Session, plan: Mapping[str, Scheme], crossbar: Crossbar | None
) -> dict[str, Any] | None:
    """Have a session's evaluations run on a crossbar, or on none; what a resolved plan takes there.

    UsageError for an exported model, and where the plan puts no matrix on it.
    """
    if crossbar is not None and session.source.artefact is not None:
        raise UsageError(
            f"{session.source.name} is an exported model: how large its inputs are at full "
            "precision is not known here. Evaluate the model it was made from: --plan "
            f"{session.source.path}/plan.json --crossbar {crossbar}."
        )
    session.applier.lay_on(crossbar)
    if crossbar is None:
        return None
    placement = placement_of(session.applier, plan)
    placement.require_some()
    model = session.source.model
    entered = {name: getattr(crossbar, name) for name in ("adc_pj", "dac_pj")}
    return {"sizes": str(crossbar), **entered, **counted(placement, model.sites, model.products)}
