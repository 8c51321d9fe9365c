"""The bytes of states in a search: as the streaming runtime holds them, or as a plan packs them.

Between the steps that round it (`everyK`), and under any scheme that no streaming kernel knows, the
runtime here holds a state in float32. A search for streaming must not count bytes that are not
saved, so it offers no scheme that makes it hold states so. A runtime that serves whole sequences,
in chunks that end where states are rounded, holds them packed: `--count-states packed`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from sensprobe.errors import UsageError
from sensprobe.packed import Holding, unpacked_bytes
from sensprobe.plans.cost import site_bytes
from sensprobe.plans.scheme import EXACT, Scheme
from sensprobe.plans.sites import Kind, Site

WAYS = ("held", "packed")


@dataclass
class Counting:
    """Prices of sites, and the options not offered because states would be held in float32."""

    way: str
    holding: Holding
    frozen: Mapping[str, Scheme] = field(default_factory=dict)
    dropped: dict[tuple[str, str], str] = field(default_factory=dict)  # (decision, scheme) -> why

    @property
    def full(self) -> str:
        """The reason that every state is counted in float32, whatever the plan; "" if none is."""
        return self.holding.why(self.frozen) if self.way == "held" else ""

    def price(self, site: Site, scheme: Scheme = EXACT) -> tuple[int, int]:
        """(bytes stored once, bytes a sequence) of one site."""
        return unpacked_bytes(site, scheme) if self.full else site_bytes(site, scheme)

    def state_bytes(self, sites: Iterable[Site], plan: Mapping[str, Scheme], batch: int) -> int:
        """Bytes of the states of `batch` sequences under a plan that may come from anywhere."""
        if self.way == "held":
            return batch * self.holding.state_bytes(plan)
        states = (s for s in sites if s.kind is Kind.STATE)
        return batch * sum(site_bytes(s, plan.get(s.name, EXACT))[1] for s in states)

    def why_not(self, decision: str, scheme: str, chosen: Mapping[str, Scheme]) -> str:
        """The reason that an option is not offered; "" if it is offered."""
        if self.way != "held":
            return ""
        if self.full:
            sites = self.holding.model.sites
            saves = [n for n, s in chosen.items() if sites[n].kind is Kind.STATE and not s.exact]
            why = self.full if saves else ""
        else:
            why = next(iter(self.holding.reasons(chosen).values()), "")
        if why:
            self.dropped[decision, scheme] = why
        return why

    def notes(self) -> list[str]:
        """Lines that tell the user how states are counted and what is not offered."""
        again = "; --count-states packed counts and offers them as a plan packs them"
        if self.full:
            return [f"states are counted in float32, as steps hold them here: {self.full}{again}"]
        if not self.dropped:
            return []
        named = [f"{decision} in {scheme}" for decision, scheme in self.dropped]
        more = f" and {len(named) - 3} more" if len(named) > 3 else ""
        first = next(iter(self.dropped.values())).partition(" (")[0]
        return [
            f"not offered, for steps would hold every state in float32: {', '.join(named[:3])}"
            f"{more} ({first}){again}"
        ]

    def to_json(self) -> list[dict[str, str]]:
        """Rows of decision, scheme and reason, of the options that were not offered."""
        return [{"decision": d, "scheme": s, "why": why} for (d, s), why in self.dropped.items()]


def counting(way: str | None, holding: Holding, target: str | None) -> Counting:
    """The counting asked for; a search for another runtime counts states as a plan packs them.

    Raises UsageError for a way there is not, and for `held` with another runtime.
    """
    if way not in (None, *WAYS):
        raise UsageError(f"--count-states {way}: choose held or packed.")
    if way == "held" and target is not None:
        raise UsageError(
            f"--count-states held is what steps hold here, and --target {target} is another "
            "runtime. Leave one of them out."
        )
    return Counting(way or ("packed" if target else "held"), holding)
