"""study.toml as plans: what is rounded alone, and how."""

from __future__ import annotations

import tomllib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

from sensprobe.plans.plan import Resolved, adapted
from sensprobe.plans.scheme import parse
from sensprobe.plans.sites import Site

HERE = Path(__file__).resolve().parent
STUDY: dict[str, Any] = tomllib.loads((HERE / "study.toml").read_text(encoding="utf-8"))


@dataclass(frozen=True, slots=True)
class Row:
    """One plan of the study: every site of one part in one scheme."""

    section: str
    part: str
    how: str
    bits: int
    scheme: str

    def resolve(self, sites: Iterable[Site]) -> Resolved:
        """The plan on a model; the scheme is fitted to each site."""
        sites = list(sites)
        wanted = [(s.name, parse(self.scheme)) for s in sites if s.part.value == self.part]
        return adapted(wanted, sites).resolve(sites)


def rows(sites: Mapping[str, Site]) -> list[Row]:
    """Every row measured on a model."""
    return [*_alone(sites), *_ways("rotation"), *_ways("state")]


def _alone(sites: Mapping[str, Site]) -> Iterator[Row]:
    parts = dict.fromkeys(site.part.value for site in sites.values())
    for part, bits in product(parts, STUDY["alone"]["bits"]):
        yield Row("alone", part, "", bits, STUDY["alone"]["scheme"].format(bits=bits))


def _ways(section: str) -> Iterator[Row]:
    asked = STUDY[section]
    for (how, text), bits in product(asked["ways"], asked["bits"]):
        yield Row(section, asked["part"], how, bits, text.format(bits=bits))
