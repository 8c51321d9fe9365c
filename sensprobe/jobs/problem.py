"""From sensitivities to a search problem, and from its answers back to plans.

A decision is a profiled group of sites whose bytes count (weights and states; activations pass
through). Its options are the profiled schemes and full precision. `--freeze` takes sites out, at a
scheme of the user's; `--tie` joins decisions into one; `--target` does both, and takes away
options.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from math import nan, sqrt
from typing import Any

from sensprobe.errors import DataError, PlanError, UsageError
from sensprobe.jobs.count_states import Counting
from sensprobe.jobs.runtime_limits import Limits
from sensprobe.plans.cost import site_bytes
from sensprobe.plans.formats import Float, Int, Log
from sensprobe.plans.plan import Plan, Resolved, adapted
from sensprobe.plans.scheme import EXACT, Scheme, parse
from sensprobe.plans.sites import EVERY_LAYER, Kind, Site, group_pattern, matching, nearest
from sensprobe.search import Assignment, Decision, Option, Problem

Chosen = dict[str, Scheme]
"""Site name -> scheme."""


@dataclass(frozen=True, slots=True)
class Space:
    """A problem together with what its options mean for the model's sites."""

    problem: Problem
    meaning: tuple[tuple[Chosen, ...], ...]  # decision, option -> site schemes
    asked: tuple[tuple[str, ...], ...]  # decision, option -> the scheme as the user wrote it
    frozen: Chosen
    sites: tuple[Site, ...]

    def resolved(self, assignment: Assignment) -> Resolved:
        """The site schemes of an assignment, frozen ones included, exact ones left out."""
        chosen = dict(self.frozen)
        for decision, option in enumerate(assignment):
            chosen |= self.meaning[decision][option]
        return {
            s.name: chosen[s.name]
            for s in self.sites
            if s.name in chosen and not chosen[s.name].exact
        }

    def options(self) -> list[Chosen]:
        """The site schemes of every option of every decision, and the frozen ones."""
        return [self.frozen, *(chosen for options in self.meaning for chosen in options)]

    def plan(self, assignment: Assignment, name: str) -> Plan:
        """The plan of an assignment, one entry a pattern where a whole group agrees."""
        return compressed(self.resolved(assignment), self.sites, name)

    def uniform(self) -> dict[str, Assignment]:
        """Scheme -> the assignment that puts every decision in it, where every decision with a
        choice can."""
        out: dict[str, Assignment] = {}
        for scheme in dict.fromkeys(text for options in self.asked for text in options):
            picks = [
                options.index(scheme) if scheme in options else (0 if len(options) == 1 else None)
                for options in self.asked
            ]
            if all(p is not None for p in picks):
                out[scheme] = tuple(p for p in picks if p is not None)
        return out


def compressed(resolved: Resolved, sites: Iterable[Site], name: str = "") -> Plan:
    """A plan with `layers.*.part` entries where every layer's site has the same scheme."""
    groups: dict[str, list[Site]] = {}
    for site in sites:
        groups.setdefault(group_pattern(site), []).append(site)
    entries: list[tuple[str, Scheme]] = []
    for pattern, members in groups.items():
        schemes = [resolved.get(s.name, EXACT) for s in members]
        if len(set(schemes)) == 1 and len(
            matching(pattern, [s for g in groups.values() for s in g])
        ) == len(members):
            entries += [] if schemes[0].exact else [(pattern, schemes[0])]
        else:
            entries += [(s.name, c) for s, c in zip(members, schemes, strict=True) if not c.exact]
    return Plan(tuple(entries), name)


def build_space(
    sites: Mapping[str, Site],
    sensitivity: Mapping[str, Any],
    *,
    batch: int = 1,
    schemes: Sequence[Scheme] = (),
    freeze: Sequence[tuple[str, Scheme]] = (),
    tie: Sequence[str] = (),
    limits: Limits | None = None,
    counts: Counting | None = None,
) -> Space:
    """The search space of a profile.

    `schemes` restricts the options to those named, `limits` to those that a runtime can express,
    `counts` to those that save bytes of states. Raises UsageError if nothing is left to search,
    PlanError for a tie that matches no site.
    """
    ordered = tuple(sites.values())
    frozen = dict(adapted(freeze, ordered).entries) if freeze else {}
    if limits is not None:
        limits.require(frozen)
        frozen = {**limits.freeze, **frozen}
    if counts is not None:
        counts.frozen = frozen
    price = site_bytes if counts is None else counts.price
    free = _free_groups(sites, sensitivity, set(frozen))
    if not free:
        raise UsageError("every profiled weight and state is frozen: nothing is left to search.")
    allowed = {str(s) for s in schemes}
    if strange := sorted(allowed - set(sensitivity["schemes"])):
        raise UsageError(
            f"--scheme {', '.join(strange)}: not profiled in this run, which has "
            f"{', '.join(sensitivity['schemes'])}. Profile it first, or choose among these."
        )
    groups = _tied(free, _ties(tie, ordered) + list(limits.groups if limits else ()))
    known = _Profiled(sites, sensitivity, free, batch, allowed, frozen, limits, counts)
    decisions, meaning, asked = [], [], []
    for name, members in groups.items():
        decision, chosen, words = _decision(name, members, known)
        decisions.append(decision)
        meaning.append(chosen)
        asked.append(words)
    searched = {site for names in free.values() for site in names}
    rest = [s for s in ordered if s.name not in searched]
    stored = [price(s, frozen.get(s.name, EXACT)) for s in rest]
    problem = Problem(
        tuple(decisions), sum(once for once, _ in stored), batch * sum(each for _, each in stored)
    )
    return Space(problem, tuple(meaning), tuple(asked), frozen, ordered)


def _free_groups(
    sites: Mapping[str, Site], sensitivity: Mapping[str, Any], frozen: set[str]
) -> dict[str, list[str]]:
    """Group -> its sites that cost bytes and are not frozen."""
    out: dict[str, list[str]] = {}
    for row in sensitivity["rows"]:
        names = [
            n for n in row["sites"] if n not in frozen and sites[n].kind is not Kind.ACTIVATION
        ]
        if names:
            out[row["target"]] = names
    return out


Group = tuple[str, frozenset[str]]
"""A name, and the sites that share one scheme under it."""


def _ties(tie: Sequence[str], sites: Sequence[Site]) -> list[Group]:
    """The sites each pattern of the user joins."""
    groups = []
    for pattern in tie:
        named = frozenset(s.name for s in matching(pattern, sites))
        if not named:
            raise PlanError(
                f"--tie {pattern!r} matches no site. Nearest: {', '.join(nearest(pattern, sites))}."
            )
        groups.append((pattern, named))
    return groups


def _tied(free: Mapping[str, list[str]], groups: Iterable[Group]) -> dict[str, list[str]]:
    """Decision name -> the profiled groups it joins. Ties that share a group become one."""
    joined: dict[str, list[str]] = {}
    for label, named in groups:
        members = [t for t, names in free.items() if named & set(names)]
        met = [other for other, joint in joined.items() if set(joint) & set(members)]
        for other in met:
            members = [*members, *joined.pop(other)]
        if members:
            label = re.sub(r"^layers\.\d+\.", EVERY_LAYER, met[0]) if met else label
            joined[label] = [t for t in free if t in members]
    taken = {t for joint in joined.values() for t in joint}
    return joined | {t: [t] for t in free if t not in taken}


@dataclass(frozen=True, slots=True)
class _Profiled:
    """The profile that decisions are made from: its groups of sites, their losses, and the
    limits."""

    sites: Mapping[str, Site]
    sensitivity: Mapping[str, Any]
    free: Mapping[str, list[str]]  # target -> its sites
    batch: int
    allowed: set[str]  # schemes; empty: all
    frozen: Chosen
    limits: Limits | None
    counts: Counting | None

    def price(self, site: str, scheme: Scheme) -> tuple[int, int]:
        """(bytes stored once, bytes a sequence) of one site."""
        count = site_bytes if self.counts is None else self.counts.price
        return count(self.sites[site], scheme)

    def rows(self, target: str) -> dict[str, dict[str, Any]]:
        """Scheme -> the row of a group in it; rows without a number are left out."""
        additive = self.sensitivity["additive"]
        rows = [row for row in self.sensitivity["rows"] if row["target"] == target]
        known = [row for row in rows if row[additive].get("value") is not None]
        return {row["scheme"]: row for row in known}

    def why_not(self, chosen: Chosen) -> dict[str, str]:
        """Site -> the reason that the runtime cannot express an option with the frozen sites."""
        return {} if self.limits is None else self.limits.why_not({**self.frozen, **chosen})


def _decision(
    name: str, members: list[str], known: _Profiled
) -> tuple[Decision, tuple[Chosen, ...], tuple[str, ...]]:
    """One decision: the schemes every member was profiled in, and full precision."""
    every = [known.rows(m) for m in members]
    sites, allowed = known.sites, known.allowed
    common = [s for s in every[0] if all(s in e for e in every) and (not allowed or s in allowed)]
    names = [n for m in members for n in known.free[m]]
    offers: dict[str, tuple[Option, Chosen]] = {}
    for scheme in common:
        found = [e[scheme] for e in every]
        chosen = dict(adapted([(n, parse(scheme)) for n in names], sites.values()).entries)
        offers[scheme] = _offer(name, scheme, chosen, found, known), chosen
    if not allowed or str(EXACT) in allowed or not offers:
        chosen = dict.fromkeys(names, EXACT)
        option = _option(str(EXACT), chosen, known, 0.0, 0.0)
        offers.setdefault(str(EXACT), (option, chosen))
    tried = {scheme: known.why_not(chosen) for scheme, (_, chosen) in offers.items()}
    kept = {scheme: offer for scheme, offer in offers.items() if not tried[scheme]}
    if not kept and known.limits is not None:
        raise known.limits.no_option(name, tried)
    if known.counts is not None:
        kept = _counted(name, kept, known.counts)
    site = sites[names[0]]
    options, meaning = zip(*kept.values(), strict=True)
    depth = _depth(site, sites.values())
    return Decision(name, site.part.value, depth, options), meaning, tuple(kept)


def _counted(
    name: str, offers: Mapping[str, tuple[Option, Chosen]], counts: Counting
) -> dict[str, tuple[Option, Chosen]]:
    """The options under which states are held as they are counted; UsageError where none is."""
    why = {scheme: counts.why_not(name, scheme, chosen) for scheme, (_, chosen) in offers.items()}
    if all(why.values()):
        raise UsageError(
            f"no scheme allowed for {name} lets steps run from packed states here: "
            f"{next(iter(why.values()))}. Allow another, or count states as a plan packs them: "
            "--count-states packed."
        )
    return {scheme: offer for scheme, offer in offers.items() if not why[scheme]}


def _offer(
    name: str, scheme: str, chosen: Chosen, found: Sequence[Mapping[str, Any]], known: _Profiled
) -> Option:
    """The option of a scheme that every member was profiled in."""
    losses = [row[known.sensitivity["additive"]] for row in found]
    _require_errors(losses, name)
    return _option(
        scheme,
        chosen,
        known,
        sum(x["value"] for x in losses),
        sqrt(sum(x["stderr"] ** 2 for x in losses)),
        _drop(found, known.sensitivity["sign"]),
    )


def _drop(found: Sequence[Mapping[str, Any]], sign: int) -> float:
    """The loss of score of one group alone; NaN for several joined ones, or if not measured."""
    metric = found[0].get("metric") if len(found) == 1 else None
    value = metric.get("value") if metric else None
    return nan if value is None else 0.0 - sign * float(value)


def _require_errors(losses: Sequence[Mapping[str, Any]], name: str) -> None:
    """Raise DataError for losses without a standard error."""
    if any(loss.get("stderr") is None for loss in losses):
        raise DataError(
            f"what {name} loses was profiled on one group of samples, which gives no standard "
            "error, so plans cannot be compared. Profile in a new run on more groups: raise "
            "--limit or leave it out."
        )


def _option(
    scheme: str,
    chosen: Chosen,
    known: _Profiled,
    loss: float,
    stderr: float,
    drop: float = nan,
) -> Option:
    sites, batch = known.sites, known.batch
    stored = [known.price(name, s) for name, s in chosen.items()]
    bits = sum(s.bits_per_real * sites[n].reals for n, s in chosen.items())
    return Option(
        scheme,
        sum(once for once, _ in stored),
        batch * sum(each for _, each in stored),
        loss,
        stderr,
        bits / sum(sites[n].reals for n in chosen),
        _family(parse(scheme)),
        drop,
    )


def _family(scheme: Scheme) -> str:
    """The scheme without its number of bits: options of one family are ordered by bits."""
    if isinstance(scheme.format, Int | Log):
        kind = type(scheme.format).__name__
        return str(scheme).replace(str(scheme.format), kind, 1)
    return str(scheme) if isinstance(scheme.format, Float) else type(scheme.format).__name__


def _depth(site: Site, sites: Iterable[Site]) -> float:
    """0 in the first layer (and before), 1 in the last (and after); one half in the middle."""
    last = max((s.layer for s in sites if s.layer is not None), default=0)
    if site.layer is None:
        return 0.0 if site.name.startswith(("input", "encoder")) else 1.0
    return site.layer / last if last else 0.5
