"""Plans: which scheme each tensor gets. Plain data, no code.

A plan is an ordered list of (pattern, scheme); a later entry overrides an earlier one, and a site
no entry names stays exact. A pattern is the name of a site, a glob over names (`layers.*.A`, `*`),
or `weights`, `activations` or `states`, all of a kind. Where a glob or a kind names sites that its
scheme does not fit, they are passed over (`Plan.misfits` lists them); a site named in full is an
error then. The JSON form is versioned and described by `plan.schema.json`:

    {"sensprobe_plan": 1, "name": "mine", "schemes": [["layers.*.A", "int8/head/asym"], …]}
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sensprobe.documents import AbsentError, DocumentError, read_json, schema_of
from sensprobe.errors import PlanError, SchemeError
from sensprobe.plans.fitting import adapt, check, why_not
from sensprobe.plans.scheme import Scheme, parse
from sensprobe.plans.sites import Kind, Site, group_pattern, matching, nearest

VERSION = 1
NAME_DIGITS = 4
NAMED = 4
"""Groups of sites that a note names, at most."""

Resolved = dict[str, Scheme]
"""Site name -> scheme, exact sites left out, in the order of the model's sites."""


@dataclass(frozen=True, slots=True)
class Plan:
    """An ordered mapping pattern -> scheme."""

    entries: tuple[tuple[str, Scheme], ...] = ()
    name: str = ""

    def resolve(self, sites: Iterable[Site]) -> Resolved:
        """The scheme of every site that is not exact.

        Raises PlanError for a pattern that matches nothing (with the nearest names) and
        SchemeError for a scheme that makes no sense on a site that is named in full, or on any of
        those a pattern names.
        """
        sites = list(sites)
        chosen: dict[str, Scheme] = {}
        for pattern, scheme in self.entries:
            fits, _ = _fitting(pattern, scheme, sites)
            chosen |= dict.fromkeys((site.name for site in fits), scheme)
        return {
            s.name: chosen[s.name] for s in sites if s.name in chosen and not chosen[s.name].exact
        }

    def misfits(self, sites: Iterable[Site]) -> list[str]:
        """A sentence for each pattern that passes over sites which its scheme does not fit."""
        sites = list(sites)
        notes = []
        for pattern, scheme in self.entries:
            fits, misfits = _fitting(pattern, scheme, sites)
            if misfits:
                named = list(dict.fromkeys(group_pattern(site) for site in misfits))
                more = f" and {len(named) - NAMED} more" if len(named) > NAMED else ""
                notes.append(
                    f"{pattern}={scheme} passes over {len(misfits)} of {len(fits) + len(misfits)} "
                    f"sites it does not fit: {', '.join(named[:NAMED])}{more} "
                    f"({misfits[0].name}: {why_not(scheme, misfits[0])})"
                )
        return notes

    def to_json(self) -> dict[str, Any]:
        return {
            "sensprobe_plan": VERSION,
            "name": self.name,
            "schemes": [[pattern, str(scheme)] for pattern, scheme in self.entries],
        }


EXACT_PLAN = Plan(name="exact")


def _fitting(pattern: str, scheme: Scheme, sites: Sequence[Site]) -> tuple[list[Site], list[Site]]:
    """The sites a pattern names, those its scheme fits and the others; PlanError where it names
    none, SchemeError where it fits none or not the one that is named in full."""
    found = matching(pattern, sites)
    if not found:
        raise no_match(pattern, sites)
    fits = [site for site in found if why_not(scheme, site) is None]
    if not fits or any(site.name == pattern for site in found):
        check(scheme, next((site for site in found if site not in fits), found[0]))
    return fits, [site for site in found if site not in fits]


def no_match(pattern: str, sites: Sequence[Site], what: str = "the plan") -> PlanError:
    """The error for a pattern of `what` that names no site."""
    layers = [site.layer for site in sites if site.layer is not None]
    has = f"layers 0-{max(layers)}" if layers else "no layers"
    return PlanError(
        f"{what} names {pattern!r}, which matches no site of this model. Nearest: "
        f"{', '.join(nearest(pattern, sites))}. It has {has}; list its sites with `sensprobe "
        "sites MODEL`."
    )


def fingerprint(resolved: Mapping[str, Scheme]) -> str:
    """The identity of a resolved plan, 16 hex digits: equal for plans that resolve to the same
    schemes."""
    text = json.dumps(sorted((name, str(scheme)) for name, scheme in resolved.items()))
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def short_names(fingerprints: Iterable[str]) -> dict[str, str]:
    """Fingerprint -> `p` and its first digits, as many as tell all apart: a name a plan keeps."""
    marks, digits = set(fingerprints), NAME_DIGITS
    while len({mark[:digits] for mark in marks}) < len(marks):
        digits += 1
    return {mark: f"p{mark[:digits]}" for mark in marks}


def uniform(scheme: Scheme, sites: Iterable[Site], name: str = "") -> Plan:
    """Every weight and state in one scheme, adapted to each site (activations stay exact)."""
    return adapted(
        [("*", scheme)], [s for s in sites if s.kind is not Kind.ACTIVATION], name or str(scheme)
    )


def adapted(entries: Iterable[tuple[str, Scheme]], sites: Iterable[Site], name: str = "") -> Plan:
    """A plan in which each pattern's scheme is fitted to every site it names, as `fitting.adapt`
    does; PlanError for a pattern that names none."""
    sites = list(sites)
    chosen: dict[str, Scheme] = {}
    for pattern, scheme in entries:
        found = matching(pattern, sites)
        if not found:
            raise no_match(pattern, sites)
        chosen |= {site.name: adapt(scheme, site) for site in found}
    return Plan(tuple(chosen.items()), name)


def parse_setting(text: str) -> tuple[str, Scheme]:
    """One `PATTERN=SCHEME` as the command line takes it."""
    pattern, equals, scheme = text.partition("=")
    if not (equals and pattern and scheme):
        raise PlanError(f"{text!r} is not PATTERN=SCHEME, as in 'layers.*.A=int8/head/asym'.")
    return pattern, parse(scheme)


def schema() -> dict[str, Any]:
    """The JSON Schema of the plan file."""
    return schema_of("sensprobe.plans", "plan").document


def from_json(document: Any, source: str = "plan") -> Plan:
    """The plan a JSON document describes; PlanError says what is malformed and where."""
    if isinstance(document, dict):
        version = document.get("sensprobe_plan")
        if isinstance(version, int) and version > VERSION:
            raise PlanError(
                f"{source}: plan version {version} is newer than this sensprobe reads "
                f"({VERSION}); upgrade it."
            )
    try:
        schema_of("sensprobe.plans", "plan").require(document)
    except DocumentError as error:
        raise PlanError(f"{source} is not a plan: {error}.") from None
    try:
        entries = tuple((pattern, parse(scheme)) for pattern, scheme in document["schemes"])
    except SchemeError as error:
        raise SchemeError(f"{source}: {error}") from None
    return Plan(entries, document.get("name", ""))


def read(path: Path) -> Plan:
    """The plan in a JSON file."""
    try:
        document = read_json(path)
    except AbsentError:
        raise PlanError(
            f"no plan file at {path}. A plan is a JSON file; `sensprobe search` writes each plan "
            "it chooses to RUN/plans."
        ) from None
    except DocumentError as error:
        raise PlanError(f"{path} cannot be read as a plan: {error}.") from None
    return from_json(document, str(path))


def diff(one: Mapping[str, Scheme], other: Mapping[str, Scheme]) -> dict[str, tuple[str, str]]:
    """Sites whose scheme differs between two resolved plans, with both schemes as text."""
    names = dict.fromkeys([*one, *other])
    pairs = {n: (str(one.get(n, "fp32")), str(other.get(n, "fp32"))) for n in names}
    return {name: pair for name, pair in pairs.items() if pair[0] != pair[1]}
