"""study.toml as plans: every row of the study with its name and its schemes."""

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
STATE = "layers.*.state"
WHOLE = "whole model"


@dataclass(frozen=True, slots=True)
class Row:
    """One plan of the study: which section, what is rounded, how, in how many bits."""

    section: str
    thing: str
    how: str
    bits: int
    entries: tuple[tuple[str, str], ...]

    def resolve(self, sites: Iterable[Site]) -> Resolved:
        """The plan on a model; schemes are fitted to sites that have no heads."""
        sites = list(sites)
        chosen = adapted([(pattern, parse(text)) for pattern, text in self.entries], sites)
        return chosen.resolve(sites)


def rows(size: str) -> list[Row]:
    """Every row measured on the small or the large model."""
    if size == "large":
        return list(_alone(STUDY["alone"]["large_bits"]))
    return [*_alone(STUDY["alone"]["bits"]), *_choices(), *_extras()]


def _alone(widths: Iterable[int]) -> Iterator[Row]:
    for thing, bits in product(STUDY["alone"]["things"], widths):
        text = STUDY["quantizer"][thing.get("time", "static")].format(bits=bits)
        yield Row("alone", thing["name"], "", bits, _entries(thing["sites"], text))


def _entries(patterns: Iterable[str], text: str) -> tuple[tuple[str, str], ...]:
    """A scheme on patterns, the state's clipped as the paper clips it."""
    clipped = f"{text}/{STUDY['quantizer']['state']}"
    return tuple((p, clipped if p == STATE else text) for p in patterns)


def _choices() -> Iterator[Row]:
    """The usual quantizer, and each that differs from it in one choice."""
    choices = STUDY["choices"]
    everything = {name: None for t in STUDY["alone"]["things"] for name in t["sites"]}
    targets: Mapping[str, Any] = {WHOLE: everything, "A": ["layers.*.A"], "state": [STATE]}
    usual = (choices["granularity"][1], choices["symmetry"][1], choices["time"][0])
    for thing, patterns in targets.items():
        widths = choices["whole_bits" if thing == WHOLE else "bits"]
        for place, name in enumerate(("", "granularity", "symmetry", "time")):
            other = [v for v in choices[name] if v not in usual] if name else [""]
            kind = list(usual)
            if name:
                kind[place - 1] = other[0]
            if kind[2] == "dynamic" and thing == "A":
                continue
            for bits in widths:
                yield Row("choices", thing, " ".join(kind), bits, _chosen(patterns, kind, bits))


def _chosen(patterns: Iterable[str], kind: list[str], bits: int) -> tuple[tuple[str, str], ...]:
    """A kind of quantizer on patterns; weights, which do not change, keep their percentile."""
    granularity, symmetry, time = kind
    static = f"int{bits}/{granularity}/{symmetry}/p99.999"
    live = f"int{bits}/{granularity}/{symmetry}/dynamic" if time == "dynamic" else static
    return tuple(
        entry
        for pattern in patterns
        for entry in _entries([pattern], static if _is_weight(pattern) else live)
    )


def _is_weight(pattern: str) -> bool:
    """Whether a pattern of the study names weights."""
    return pattern in {
        name
        for thing in STUDY["alone"]["things"]
        if thing["name"] in ("A", "B", "C", "D", "other weights")
        for name in thing["sites"]
    }


def _extras() -> Iterator[Row]:
    extras = STUDY["extras"]
    for part, bits in product(("A", "state"), extras["bits"]):
        for how, text in extras[part]:
            scheme = text.format(bits=bits, rest=2 * bits - 1)
            yield Row("extras", part, how, bits, ((f"layers.*.{part}", scheme),))
