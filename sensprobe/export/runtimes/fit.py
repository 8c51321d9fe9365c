"""A plan put on a runtime: what of it the runtime keeps, and what becomes of the rest.

Nothing is dropped in silence: each scheme of the plan is either kept, or a row says what the tensor
becomes and why. Sites the plan left exact and the runtime keeps narrower have rows too.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from sensprobe.checkpoints.to_hf import HfTensor, hf_tensors
from sensprobe.errors import UnsupportedError, UsageError
from sensprobe.export.runtimes.profile import Judge, Layout, Runtime, stored
from sensprobe.models import Model
from sensprobe.plans.plan import Resolved
from sensprobe.plans.scheme import EXACT, Scheme, parse
from sensprobe.plans.sites import Kind, Part, group_pattern


@dataclass(frozen=True, slots=True)
class Change:
    """A site that does not become what the plan says. `asked` is exact where it said nothing."""

    site: str
    asked: Scheme
    becomes: str
    why: str

    @property
    def dropped(self) -> bool:
        """Whether something that the plan asked for is lost."""
        return not self.asked.exact


@dataclass(frozen=True)
class Fit:
    """A plan as a runtime keeps it. `plan` is that of what is written, every site by name."""

    runtime: Runtime
    model: Model
    asked: Resolved
    plan: Resolved
    changes: tuple[Change, ...]
    layouts: Mapping[str, Layout]  # tensor name -> its layout, where it is quantized

    @cached_property
    def tensors(self) -> list[HfTensor]:
        return hf_tensors(self.model)

    @property
    def dropped(self) -> list[Change]:
        return [change for change in self.changes if change.dropped]

    def scheme(self, tensor: HfTensor) -> Scheme:
        """What all of a tensor's rows are stored in."""
        site = self.model.sites[tensor.sites[0]]
        return stored(self.plan.get(site.name, EXACT), site.shape[-1])

    def state(self, part: Part) -> str:
        """The format of a kind of state, one for all layers."""
        names = (n for n, s in self.model.sites.items() if s.part is part)
        return str(self.plan.get(next(names), EXACT).format)

    def rounded_anew(self) -> list[str]:
        """Tensors whose codes are the runtime's own and not the plan's."""
        return [name for name, layout in self.layouts.items() if not layout.same]


def require_family(runtime: Runtime, model: Model) -> None:
    """UnsupportedError for a model that the runtime has no class for."""
    if model.family not in runtime.matrices:
        raise UnsupportedError(
            f"{runtime.name} knows {' and '.join(runtime.matrices)} models, and this one is "
            f"{model.family}. `sensprobe export` without --for writes every family."
        )


def fit(runtime: Runtime, model: Model, plan: Mapping[str, Scheme]) -> Fit:
    """Put a resolved plan on a runtime.

    Raises UsageError where nothing of the plan can be expressed.
    """
    judge = Judge(runtime, model)
    asked = {name: plan.get(name, EXACT) for name in model.sites}
    reasons = judge.reasons(asked)
    _require_some(runtime, plan, reasons)
    kept = dict(asked)
    for name in reasons:
        kept[name] = _becomes(judge, name, asked, reasons)
    changes = tuple(
        Change(name, asked[name], _words(judge, name, kept[name]), why)
        for name, why in reasons.items()
        if kept[name] != asked[name]
    )
    layouts = {
        tensor.name: layout
        for tensor in judge.tensors
        if (layout := judge.layout(tensor, kept)) is not None
    }
    known = {name: scheme for name, scheme in kept.items() if not scheme.exact}
    return Fit(runtime, model, dict(plan), known, changes, layouts)


def _becomes(
    judge: Judge, name: str, asked: Mapping[str, Scheme], reasons: Mapping[str, str]
) -> Scheme:
    """What the runtime keeps a site in when it cannot keep what was asked: of a state what those of
    other layers are in."""
    sites = judge.model.sites
    site = sites[name]
    if site.kind is Kind.ACTIVATION:
        return EXACT
    if site.kind is Kind.STATE:
        alike = (asked[n] for n, s in sites.items() if s.part is site.part and n not in reasons)
        return next(alike, parse(judge.runtime.floats(site)[0]))
    return parse(judge.runtime.floats(site)[0])


def _words(judge: Judge, name: str, becomes: Scheme) -> str:
    activation = judge.model.sites[name].kind is Kind.ACTIVATION
    return "the runtime's dtype" if activation else str(becomes)


def _require_some(runtime: Runtime, plan: Mapping[str, Scheme], reasons: Mapping[str, str]) -> None:
    if not plan or any(name not in reasons for name in plan):
        return
    listed = [f"{name} in {plan[name]}: {reasons[name]}" for name in list(plan)[:3]]
    raise UsageError(
        f"{runtime.name} can express nothing of this plan ({'; '.join(listed)}). Search under what "
        f"it can, `sensprobe search --target {runtime.name}`, or leave out --for."
    )


def grouped(model: Model, changes: Iterable[Change]) -> list[dict[str, Any]]:
    """Changes as rows of plain values, those of every layer's same site joined where they agree."""
    rows: dict[tuple[str, ...], list[Change]] = {}
    for change in changes:
        layer = change.site.split(".")[1] if change.site.startswith("layers.") else ""
        why = change.why.replace(f"layers.{layer}.", "layers.*.") if layer else change.why
        pattern = group_pattern(model.sites[change.site])
        key = (pattern, str(change.asked), change.becomes, why)
        rows.setdefault(key, []).append(change)
    return [
        {
            "sites": pattern if len(members) > 1 else members[0].site,
            "count": len(members),
            "asked": asked,
            "becomes": becomes,
            "why": why,
            "dropped": members[0].dropped,
        }
        for (pattern, asked, becomes, why), members in rows.items()
    ]
