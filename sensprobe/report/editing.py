"""A plan as a grid to read and to change, and what a change would lose.

The loss is a prediction: what each group was found to lose alone, added up. Errors are added as if
independent. What no profile priced is named, never guessed.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from math import isfinite, sqrt

from sensprobe.errors import SensprobeError
from sensprobe.plans.fitting import adapt, check
from sensprobe.plans.scheme import Scheme, parse
from sensprobe.plans.sites import Site, matching
from sensprobe.report.plans import EXACT_TEXT, OUTSIDE, place_of, resolved
from sensprobe.report.results import Entries, Row, Sensitivity
from sensprobe.report.values import UNKNOWN, Measured


@dataclass(frozen=True, slots=True)
class Prediction:
    """The sum of what was found alone; `unpriced` are groups whose schemes no profile has: the
    scheme that would price each, None where its sites are in several, or no group has it."""

    loss: Measured
    priced: int
    unpriced: Mapping[str, str | None]


def grid(entries: Entries, sites: Sequence[Site]) -> dict[str, dict[str, str]]:
    """Layer -> name within it -> scheme as text, `fp32` where nothing is rounded."""
    chosen = resolved(entries, sites)
    out: dict[str, dict[str, str]] = {}
    for site in sites:
        layer, inner = place_of(site.name)
        out.setdefault(layer, {})[inner] = str(chosen.get(site.name, EXACT_TEXT))
    return out


def cells_of(
    entries: Entries, sites: Sequence[Site]
) -> tuple[list[str], list[str], list[list[str | None]]]:
    """The grid as a table: layers (what is in none first), names across, schemes or None."""
    found = grid(entries, sites)
    layers = sorted(found, key=lambda layer: -1 if layer == OUTSIDE else int(layer))
    across = list(dict.fromkeys(name for layer in layers for name in found[layer]))
    return layers, across, [[found[layer].get(name) for name in across] for layer in layers]


def site_name(layer: str, inner: str) -> str:
    """The inverse of `place_of`."""
    return inner if layer == OUTSIDE else f"layers.{layer}.{inner}"


def edited(entries: Entries, changes: Mapping[str, str], sites: Sequence[Site]) -> Entries:
    """The plan with sites put in other schemes, by site; SchemeError or PlanError says which of
    them makes no sense, and why. Schemes are fitted to their sites as profiles do."""
    chosen = resolved(entries, sites)
    known = {site.name: site for site in sites}
    for name, text in changes.items():
        if text == EXACT_TEXT:
            chosen.pop(name, None)
        else:
            scheme = adapt(parse(text), known[name])
            check(scheme, known[name])
            chosen[name] = scheme
    return tuple((name, str(scheme)) for name, scheme in chosen.items())


def predicted(entries: Entries, sites: Sequence[Site], found: Sensitivity) -> Prediction:
    """Loss of a plan by what each group of a profile lost alone, in its additive unit."""
    chosen = {name: str(scheme) for name, scheme in resolved(entries, sites).items()}
    rows: dict[str, list[Row]] = {}
    for row in found.rows:
        rows.setdefault(row.group, []).append(row)
    value = variance = 0.0
    priced, missing, reached = 0, dict[str, str | None](), set[str]()
    for group, mine in rows.items():
        members = members_of(mine[0], sites)
        reached |= {site.name for site in members}
        schemes = {site.name: chosen[site.name] for site in members if site.name in chosen}
        if not schemes:
            continue
        price = next((r.additive for r in mine if _is_applied(r.scheme, members, schemes)), UNKNOWN)
        if not isfinite(price.value):
            texts = dict.fromkeys(schemes.values())
            missing[group] = next((t for t in texts if _is_applied(t, members, schemes)), None)
            continue
        priced += 1
        value += price.value
        variance += price.stderr**2 if isfinite(price.stderr) else 0.0
    missing |= dict.fromkeys(name for name in chosen if name not in reached)
    return Prediction(Measured(value, sqrt(variance), found.n), priced, missing)


def options(found: Iterable[Sensitivity], entries: Entries, sites: Sequence[Site]) -> list[str]:
    """Schemes worth offering: full precision, what was profiled, what the plan holds."""
    offered = {EXACT_TEXT: None}
    for profile in found:
        for row in profile.rows:
            offered |= dict.fromkeys(row.applied or (row.scheme,))
    offered |= dict.fromkeys(text for _, text in entries)
    offered |= dict.fromkeys(str(s) for s in resolved(entries, sites).values())
    return list(offered)


def priced_schemes(found: Sensitivity, sites: Sequence[Site]) -> dict[str, frozenset[str]]:
    """Site -> the schemes in which a profile priced its group, as they are fitted to the site."""
    out: dict[str, set[str]] = {site.name: {EXACT_TEXT} for site in sites}
    for row in found.rows:
        if isfinite(row.additive.value):
            for site in members_of(row, sites):
                out[site.name].add(_fitted(row.scheme, site))
    return {name: frozenset(texts) for name, texts in out.items()}


def bits_of(text: str) -> float:
    """Bits a real number takes in a scheme, without scales."""
    return 32.0 if text == EXACT_TEXT else float(parse(text).bits_per_real)


def members_of(row: Row, sites: Sequence[Site]) -> Sequence[Site]:
    """The sites of a row's group."""
    named = set(row.sites)
    return [s for s in sites if s.name in named] if named else matching(row.group, sites)


def _is_applied(scheme: str, members: Sequence[Site], schemes: Mapping[str, str]) -> bool:
    """Return whether a plan puts the sites of a group in just what a scheme is fitted to there."""
    return {name: text for name, text in applied(scheme, members).items() if text} == dict(schemes)


def applied(scheme: str, members: Sequence[Site]) -> dict[str, str]:
    """Site -> a scheme fitted to it, as text; "" where it makes no sense there."""
    return {site.name: _fitted(scheme, site) for site in members}


def set_many(layer: str, column: str, scheme: str, sites: Sequence[Site]) -> dict[str, str]:
    """The changes that put a row and a column of the grid in a scheme: site -> scheme as fitted to
    it. "" is every row; a column may also be all of a kind ("states"), or "" for all. What a scheme
    does not fit is passed over."""
    places = {site.name: place_of(site.name) for site in sites}
    asked = [
        site
        for site in sites
        if layer in ("", places[site.name][0])
        and column in ("", f"{site.kind}s", places[site.name][1])
    ]
    if scheme == EXACT_TEXT:
        return dict.fromkeys((site.name for site in asked), scheme)
    return {name: text for name, text in applied(scheme, asked).items() if text}


@lru_cache(maxsize=65536)
def _fitted(text: str, site: Site) -> str:
    """The scheme fitted to a site, as text; "" where it makes no sense there."""
    try:
        scheme: Scheme = adapt(parse(text), site)
        check(scheme, site)
    except SensprobeError:
        return ""
    return str(scheme)
