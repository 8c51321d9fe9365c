"""The plans a user may name, and what they mean for a model's sites."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, TypeAlias

from sensprobe.documents.files import named_path
from sensprobe.errors import PlanError, UsageError
from sensprobe.plans.plan import EXACT_PLAN, Plan, Resolved
from sensprobe.plans.plan import read as read_plan
from sensprobe.plans.presets import PRESETS, unknown
from sensprobe.plans.scheme import Scheme, parse
from sensprobe.plans.sites import Site

OnePlan: TypeAlias = Plan | str | Path | Mapping[str, str | Scheme]
PlanLike: TypeAlias = OnePlan | Sequence[OnePlan]
"""A plan, the name of a preset, the path of a plan.json, or pattern -> scheme; or several of them,
a later one's entries overriding. A preset's name comes first: a file of that name is `./w8a8`, or a
`pathlib.Path`."""

if TYPE_CHECKING:
    from sensprobe.session.outline import Outline

logger = logging.getLogger("sensprobe.plans.plan")


class Sited(Protocol):
    """A model, or its outline."""

    @property
    def family(self) -> str: ...

    @property
    def sites(self) -> Mapping[str, Site]: ...


def as_plan(plan: PlanLike, model: Sited) -> Plan:
    """The plan that was meant for a model; PlanError or SchemeError where it cannot be read."""
    if isinstance(plan, Plan):
        return plan
    if isinstance(plan, str | Path):
        return _named_plan(plan, model)
    if isinstance(plan, list | tuple):
        parts = [as_plan(part, model) for part in plan]
        entries = tuple(entry for part in parts for entry in part.entries)
        return Plan(entries, next((part.name for part in parts if part.name), ""))
    if not isinstance(plan, Mapping):
        raise PlanError(
            "a plan is a Plan, the name of a preset, the path of a plan.json or {pattern: scheme}, "
            f"not {plan!r}."
        )
    wrong = [item for item in plan.items() if not (_text(item[0]) and _text(item[1], Scheme))]
    if wrong:
        raise PlanError(f"a plan maps patterns to schemes, both text; {wrong[0]!r} is neither.")
    return Plan(tuple((p, s if isinstance(s, Scheme) else parse(s)) for p, s in plan.items()))


def resolve(plan: Plan, model: Sited) -> Resolved:
    """`plan.resolve` for a model; what its patterns pass over is said to the user."""
    sites = model.sites.values()
    resolved = plan.resolve(sites)
    for note in plan.misfits(sites):
        logger.warning("%s", note)
    return resolved


def schemes_of(plan: PlanLike | None, model: Outline) -> Resolved:
    """Site -> scheme of a plan, of full precision where it is None.

    An exported model runs its own plan and takes no other (UsageError).
    """
    if model.plan is None:
        return resolve(EXACT_PLAN if plan is None else as_plan(plan, model), model)
    if plan is not None:
        raise UsageError(
            f"{model.name} is an exported model and runs its own plan; give a plan with the "
            "full-precision model it was made from."
        )
    return dict(model.plan)


def _named_plan(name: str | Path, model: Sited) -> Plan:
    if isinstance(name, str) and name in PRESETS:
        return PRESETS[name].plan(model.family, model.sites.values())
    path = named_path(name)
    if isinstance(name, str) and not path.suffix and path.name == name and not path.exists():
        raise PlanError(unknown(name))
    plan = read_plan(path)
    return plan if plan.name else Plan(plan.entries, path.stem)


def _text(value: object, *others: type) -> bool:
    return isinstance(value, (str, *others))
