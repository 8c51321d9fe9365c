"""From sensitivities to a search problem, and from its answers back to plans.

A decision is a profiled target whose bytes count (weights and states; activations pass through).
Its options are the profiled schemes and full precision. `--freeze` takes sites out, at a scheme of
the user's; `--tie` joins decisions into one.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from math import nan, sqrt
from typing import Any

from sensprobe.cost import site_bytes
from sensprobe.errors import DataError, PlanError, UsageError
from sensprobe.formats import Float, Int, Log
from sensprobe.plan import Plan, Resolved, adapted
from sensprobe.scheme import EXACT, Scheme, parse
from sensprobe.search import Assignment, Decision, Option, Problem
from sensprobe.sites import Kind, Site, group_pattern, matching, nearest

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
        """What every option of every decision means, and what is frozen."""
        return [self.frozen, *(chosen for options in self.meaning for chosen in options)]

    def plan(self, assignment: Assignment, name: str) -> Plan:
        """The plan of an assignment, one entry a pattern where a whole group agrees."""
        return compressed(self.resolved(assignment), self.sites, name)

    def uniform(self) -> dict[str, Assignment]:
        """Scheme -> the assignment that puts every decision in it, where every decision can."""
        out: dict[str, Assignment] = {}
        for scheme in dict.fromkeys(text for options in self.asked for text in options):
            picks = [options.index(scheme) if scheme in options else None for options in self.asked]
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
) -> Space:
    """The search space a profile opens. `schemes` restricts the options to those named."""
    ordered = tuple(sites.values())
    frozen = dict(adapted(freeze, ordered).entries) if freeze else {}
    free = _free_targets(sites, sensitivity, set(frozen))
    if not free:
        raise UsageError("every profiled weight and state is frozen: nothing is left to search.")
    rows = _rows_by_target(sensitivity)
    allowed = {str(s) for s in schemes}
    if strange := sorted(allowed - set(sensitivity["schemes"])):
        raise UsageError(
            f"--scheme {', '.join(strange)}: not profiled in this run, which has "
            f"{', '.join(sensitivity['schemes'])}. Profile it first, or choose among these."
        )
    groups = _tied(free, tie, ordered)
    decisions, meaning, asked = [], [], []
    for name, members in groups.items():
        decision, chosen, words = _decision(
            name, members, free, rows, sites, sensitivity, batch, allowed
        )
        decisions.append(decision)
        meaning.append(chosen)
        asked.append(words)
    searched = {site for names in free.values() for site in names}
    rest = [s for s in ordered if s.name not in searched]
    stored = [site_bytes(s, frozen.get(s.name, EXACT)) for s in rest]
    problem = Problem(
        tuple(decisions), sum(once for once, _ in stored), batch * sum(each for _, each in stored)
    )
    return Space(problem, tuple(meaning), tuple(asked), frozen, ordered)


def _rows_by_target(sensitivity: Mapping[str, Any]) -> dict[str, list[dict[str, Any]]]:
    rows: dict[str, list[dict[str, Any]]] = {}
    for row in sensitivity["rows"]:
        rows.setdefault(row["target"], []).append(row)
    return rows


def _free_targets(
    sites: Mapping[str, Site], sensitivity: Mapping[str, Any], frozen: set[str]
) -> dict[str, list[str]]:
    """Target -> its sites that cost bytes and are not frozen."""
    out: dict[str, list[str]] = {}
    for row in sensitivity["rows"]:
        names = [
            n for n in row["sites"] if n not in frozen and sites[n].kind is not Kind.ACTIVATION
        ]
        if names:
            out[row["target"]] = names
    return out


def _tied(
    free: Mapping[str, list[str]], tie: Sequence[str], sites: Sequence[Site]
) -> dict[str, list[str]]:
    """Decision name -> targets it joins."""
    groups: dict[str, list[str]] = {}
    taken: set[str] = set()
    for pattern in tie:
        named = {s.name for s in matching(pattern, sites)}
        if not named:
            raise PlanError(
                f"--tie {pattern!r} matches no site. Nearest: {', '.join(nearest(pattern, sites))}."
            )
        members = [t for t, names in free.items() if t not in taken and named & set(names)]
        if members:
            groups[pattern] = members
            taken |= set(members)
    return groups | {t: [t] for t in free if t not in taken}


def _decision(
    name: str,
    members: list[str],
    free: Mapping[str, list[str]],
    rows: Mapping[str, list[dict[str, Any]]],
    sites: Mapping[str, Site],
    sensitivity: Mapping[str, Any],
    batch: int,
    allowed: set[str],
) -> tuple[Decision, tuple[Chosen, ...], tuple[str, ...]]:
    """One decision: the schemes every member was profiled in, and full precision."""
    every = [{row["scheme"]: row for row in rows[m]} for m in members]
    common = [s for s in every[0] if all(s in e for e in every) and (not allowed or s in allowed)]
    names = [n for m in members for n in free[m]]
    options, meaning, asked = [], [], []
    for scheme in common:
        found = [e[scheme] for e in every]
        chosen = dict(adapted([(n, parse(scheme)) for n in names], sites.values()).entries)
        losses = [row[sensitivity["additive"]] for row in found]
        _require_errors(losses, name)
        options.append(
            _option(
                scheme,
                chosen,
                sites,
                batch,
                sum(x["value"] for x in losses),
                sqrt(sum(x["stderr"] ** 2 for x in losses)),
                _drop(found, sensitivity["sign"]),
            )
        )
        meaning.append(chosen)
        asked.append(scheme)
    if not allowed or str(EXACT) in allowed or not options:
        chosen = dict.fromkeys(names, EXACT)
        options.append(_option(str(EXACT), chosen, sites, batch, 0.0, 0.0))
        meaning.append(chosen)
        asked.append(str(EXACT))
    site = sites[names[0]]
    depth = _depth(site, sites.values())
    return Decision(name, site.part.value, depth, tuple(options)), tuple(meaning), tuple(asked)


def _drop(found: Sequence[Mapping[str, Any]], sign: int) -> float:
    """What the score loses to one target alone; NaN for several joined, or where not measured."""
    measured = len(found) == 1 and "metric" in found[0]
    return 0.0 - sign * float(found[0]["metric"]["value"]) if measured else nan


def _require_errors(losses: Sequence[Mapping[str, Any]], name: str) -> None:
    """DataError for losses without a standard error."""
    if any(loss["stderr"] is None for loss in losses):
        raise DataError(
            f"what {name} loses was profiled on one group of samples, which gives no standard "
            "error, so plans cannot be compared. Profile in a new run on more groups: raise "
            "--limit or leave it out."
        )


def _option(
    scheme: str,
    chosen: Chosen,
    sites: Mapping[str, Site],
    batch: int,
    loss: float,
    stderr: float,
    drop: float = nan,
) -> Option:
    stored = [site_bytes(sites[name], s) for name, s in chosen.items()]
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
    """What `bits` orders: everything of the scheme but the number of bits."""
    if isinstance(scheme.format, Int | Log):
        kind = type(scheme.format).__name__
        return str(scheme).replace(str(scheme.format), kind, 1)
    return str(scheme) if isinstance(scheme.format, Float) else type(scheme.format).__name__


def _depth(site: Site, sites: Iterable[Site]) -> float:
    """0 in the first layer (and before), 1 in the last (and after); one half in the middle."""
    last = max((s.layer for s in sites if s.layer is not None), default=0)
    if site.layer is None:
        return 0.0 if site.name.startswith("encoder") else 1.0
    return site.layer / last if last else 0.5
