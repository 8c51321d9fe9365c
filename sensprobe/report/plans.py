"""Plans taken apart: the schemes of groups of sites, and the bytes of each part."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from sensprobe.plans.cost import site_bytes
from sensprobe.plans.plan import Resolved
from sensprobe.plans.scheme import parse
from sensprobe.plans.sites import Kind, Part, Site, matching
from sensprobe.report.results import Entries

EXACT_TEXT = "fp32"
EXACT_BITS = 32
OUTSIDE = "outside"
"""The name that stands in the place of a layer for sites that are in none."""


@dataclass(frozen=True, slots=True)
class PartBytes:
    """Bytes of one part of a model under a plan. `stored` once, `carried` as state at the batch."""

    part: str
    stored: int
    carried: int

    @property
    def total(self) -> int:
        return self.stored + self.carried


def resolved(entries: Entries, sites: Iterable[Site]) -> Resolved:
    """Site -> scheme; patterns that match nothing are passed over. SchemeError if one is odd."""
    sites = list(sites)
    named = {site.name: [site] for site in sites}
    return {
        site.name: parse(text)
        for pattern, text in entries
        for site in named.get(pattern) or matching(pattern, sites)
    }


def bits_by_part(entries: Entries, sites: Sequence[Site]) -> dict[str, float]:
    """Bits of codes that a value of each part has on average, full precision's 32 included."""
    schemes = resolved(entries, sites)
    spent: dict[str, tuple[float, int]] = {}
    for site in sites:
        bits = schemes[site.name].bits_per_real if site.name in schemes else EXACT_BITS
        so_far, count = spent.get(site.part.value, (0.0, 0))
        spent[site.part.value] = so_far + bits * site.reals, count + site.reals
    return {part: bits / max(count, 1) for part, (bits, count) in spent.items()}


def bytes_by_part(entries: Entries, sites: Sequence[Site], batch: int = 1) -> list[PartBytes]:
    """Bytes of every part that has any, in the order of the forward pass; they sum to the cost."""
    schemes = resolved(entries, sites)
    spent = {part: [0, 0] for part in Part}
    for site in sites:
        prices = site_bytes(site, schemes[site.name]) if site.name in schemes else site_bytes(site)
        spent[site.part][0] += prices[0]
        spent[site.part][1] += batch * prices[1]
    return [PartBytes(part.value, *both) for part, both in spent.items() if any(both)]


def place_of(site: str) -> tuple[str, str]:
    """("3", "out_proj") of `layers.3.out_proj`; what is in no layer is `OUTSIDE`."""
    head, _, rest = site.partition(".")
    layer, dot, inner = rest.partition(".")
    return (layer, inner) if head == "layers" and layer.isdecimal() and dot else (OUTSIDE, site)


def group_of(name: str) -> str:
    """`layers.3.out_proj.bias` -> `layers.*.out_proj.bias`; other names as they are."""
    layer, inner = place_of(name)
    return name if layer == OUTSIDE else f"layers.*.{inner}"


def schemes_by_group(entries: Entries, names: Sequence[str] = ()) -> dict[str, str]:
    """Group of sites -> its scheme, or the schemes of its layers in order: "int8, int4 ×3".

    `names` are the model's sites: a pattern is spread over those it names, and sites no pattern
    names are full precision. Without them the patterns stand for themselves.
    """
    chosen = {pattern: text for pattern, text in entries}
    if names:
        blank = [Site(name, Part.BIAS, Kind.WEIGHT, (), ()) for name in names]
        chosen = {site.name: EXACT_TEXT for site in blank}
        for pattern, text in entries:
            chosen |= {site.name: text for site in matching(pattern, blank)}
    groups: dict[str, list[str]] = {}
    for name, text in chosen.items():
        groups.setdefault(group_of(name), []).append(text)
    return {group: _counted(texts) for group, texts in groups.items()}


def _counted(texts: list[str]) -> str:
    counts = Counter(texts)
    if len(counts) == 1:
        return texts[0]
    return ", ".join(f"{text} ×{count}" if count > 1 else text for text, count in counts.items())
