"""study.toml as plans, and the list of everything to measure."""

from __future__ import annotations

import tomllib
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from sensprobe.plans.plan import Plan, Resolved
from sensprobe.plans.scheme import parse
from sensprobe.plans.sites import Site

HERE = Path(__file__).resolve().parent
STUDY: dict[str, Any] = tomllib.loads((HERE / "study.toml").read_text(encoding="utf-8"))
FEW: int = STUDY["samples"]["published"]
ALL: int = STUDY["samples"]["all"]
ROWS: dict[str, dict[str, Any]] = {
    row["name"]: row | {"table": table["title"]}
    for table in STUDY["tables"]
    for row in table["rows"]
}


class Stored(NamedTuple):
    """How A and the state are stored, and every scale: s16 or s32."""

    A: str
    state: str  # "exact" where it is not rounded
    scales: str = "s32"

    def resolve(self, sites: Iterable[Site]) -> Resolved:
        """The plan: the study's B, C and D, with this A and state."""
        named = STUDY["base"] | {"layers.*.A": self.A}
        if self.state != "exact":
            named |= {"layers.*.state": self.state}
        entries = ((p, parse(f"{text}/{self.scales}")) for p, text in named.items())
        return Plan(tuple(entries)).resolve(sites)


def stored(row: Mapping[str, Any], scales: str = "s32") -> Stored:
    """A row of study.toml: its state is a number of bits, a scheme, or left out (exact)."""
    state = row.get("state", 0)
    if isinstance(state, int):
        state = STUDY["state"]["scheme"].format(bits=state) if state else "exact"
    return Stored(row["A"], state, scales)


def bar(how: Stored) -> float:
    """Points that ours may lie from the published figure."""
    return STUDY["bars"].get(how.state.split("/")[0], STUDY["bars"]["exact"])


def remedies() -> Iterator[tuple[str, str, Stored]]:
    """(row that fails, remedy, how it stores)."""
    for failure in STUDY["failures"]:
        for remedy in failure["remedies"]:
            yield failure["row"], remedy["name"], stored(ROWS[failure["row"]] | remedy)


def grid() -> Iterator[tuple[str, int, Stored]]:
    """(form of A, bits of the state, how it stores)."""
    for name, A in STUDY["grid"]["A"]:
        for bits in STUDY["grid"]["state_bits"]:
            yield name, bits, stored({"A": A, "state": bits})


def pieces() -> list[tuple[Stored | None, int, int]]:
    """Every (plan, first image, last) to measure, each once; None is full precision.

    The first thousand images come first, for all plans.
    """
    few = [stored(row, scales) for scales in ("s32", "s16") for row in ROWS.values()]
    few += [how for *_, how in grid()]
    every = [stored(row) for row in ROWS.values()] + [how for *_, how in remedies()]
    work = [(how, 0, FEW) for how in [None, *few, *every]]
    return list(dict.fromkeys([*work, *((how, FEW, ALL) for how in [None, *every])]))
