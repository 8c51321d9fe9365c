"""Groups of sites that a profile perturbs together: one site, or every site of a part."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from sensprobe.errors import SchemeError
from sensprobe.plans.fitting import adapt
from sensprobe.plans.plan import Plan
from sensprobe.plans.scheme import Scheme
from sensprobe.plans.sites import Kind, Part, Site, group_pattern

ACROSS = {Part.HEAD: "head.*[0-9]", Part.HEAD_IN: "head*_in"}
"""Patterns of parts whose sites, where there are several, do not end in the part's name."""


@dataclass(frozen=True, slots=True)
class Group:
    """Sites that are put in one scheme together; `name` is a pattern that names just them."""

    name: str
    part: Part
    kind: Kind
    layer: int | None
    sites: tuple[Site, ...]

    def fitted(self, scheme: Scheme) -> dict[str, Scheme] | None:
        """The scheme each site gets, fitted to it; None where it makes no sense for some site.

        One number a step under its own dynamic scale is not rounded, whatever the bits (a sensor
        of one channel as `input`): to price that would say that it needs none.
        """
        try:
            fitted = {site.name: adapt(scheme, site) for site in self.sites}
        except SchemeError:
            return None
        alone = all(s.kind is Kind.ACTIVATION and s.reals == 1 for s in self.sites)
        return None if alone and any(s.dynamic for s in fitted.values()) else fitted

    def plan(self, scheme: Scheme) -> Plan | None:
        """The plan that perturbs this group alone."""
        fitted = self.fitted(scheme)
        return None if fitted is None else Plan(tuple(fitted.items()), f"{self.name}={scheme}")


def groups_of(sites: Iterable[Site], by: str) -> list[Group]:
    """The groups of a profile: `by` is "part" (all layers together) or "site"."""
    if by == "site":
        return [Group(s.name, s.part, s.kind, s.layer, (s,)) for s in sites]
    grouped: dict[Part, list[Site]] = {}
    for site in sites:
        grouped.setdefault(site.part, []).append(site)
    out = []
    for part, members in grouped.items():
        patterns = list(dict.fromkeys(group_pattern(s) for s in members))
        name = patterns[0] if len(patterns) == 1 else ACROSS.get(part, f"*.{part}")
        out.append(Group(name, part, members[0].kind, None, tuple(members)))
    return out
