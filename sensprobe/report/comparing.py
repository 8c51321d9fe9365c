"""Searches of several runs beside each other, over unlike metrics and models too.

What unlike metrics have in common is the loss relative to full precision: a plan's change for the
worse, paired, over the magnitude of full precision's score.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import isfinite, nan

from sensprobe.plans.sites import Site
from sensprobe.report.dataframes import pd
from sensprobe.report.fronts import FrontView, best_within, smallest_unharmed
from sensprobe.report.names import told
from sensprobe.report.plans import resolved, schemes_by_group
from sensprobe.report.results import Candidate, Compared, Confirmation, Entries, Search
from sensprobe.report.values import (
    MISSING,
    UNKNOWN,
    Measured,
    digits,
    flagged,
    in_bytes,
    plus_minus,
)

RELATIVE = "loss relative to full precision (%)"
SHORT = "relative loss (%)"


@dataclass(frozen=True, slots=True)
class Placed:
    """A plan with the model that it is of: `names` are those of its sites, `sites` themselves may
    not be known."""

    entries: Entries
    names: tuple[str, ...]
    sites: tuple[Site, ...] = ()


def alike(searches: Mapping[str, Search]) -> bool:
    """Return whether scores of these searches can stand on one axis."""
    return len({search.quantity.heading for search in searches.values()}) < 2


def relative_loss(plan: Candidate | Compared, search: Search) -> Measured:
    """Per cent of full precision's score that a plan loses; UNKNOWN where that score is 0."""
    full = abs(search.full.value)
    if not isfinite(full) or not full:
        return UNKNOWN
    return plan.change.times(-100 * search.quantity.sign / full)


def share(total_bytes: int, search: Search) -> float:
    """Bytes as per cent of full precision's."""
    return 100 * total_bytes / search.full_bytes if search.full_bytes else nan


def about_runs(
    searches: Mapping[str, Search], confirmed: Mapping[str, Confirmation | None]
) -> list[str]:
    """Which run lost least, and which has the smallest plan without a difference to full precision,
    where it was searched and where it was confirmed."""
    anything = FrontView()
    plans = {name: best_within(search, anything) for name, search in searches.items()}
    small = {
        name: smallest_unharmed(search, anything, confirmed.get(name))
        for name, search in searches.items()
    }
    best = {name: plan for name, plan in plans.items() if plan is not None}
    kept = {name: plan for name, plan in small.items() if plan is not None}
    lines = []
    if best and alike(searches):
        q = next(iter(searches.values())).quantity
        first = max(best, key=lambda n: (q.sign * best[n].metric.value, -best[n].total_bytes))
        level = f"{q.level(best[first].metric)} {q.unit or q.name}"
        lines.append(f"Best measured: {first}, {level} in {in_bytes(best[first].total_bytes)}.")
    elif best:
        told = (
            "These runs measure different things, so each is held against its own full precision."
        )
        lost = {name: relative_loss(plan, searches[name]) for name, plan in best.items()}
        if known := [name for name in best if lost[name].known]:
            first = min(known, key=lambda n: lost[n].value)
            noise = "" if lost[first].differs else ", within the error,"
            told += (
                f" Least lost: {first}, {plus_minus(lost[first])} %{noise} in "
                f"{in_bytes(best[first].total_bytes)}."
            )
        lines.append(told)
    if kept:
        first = min(kept, key=lambda n: share(kept[n].total_bytes, searches[n]))
        part = digits(share(kept[first].total_bytes, searches[first]), 2)
        lines.append(
            f"Smallest without a difference to full precision: {first}, "
            f"{in_bytes(kept[first].total_bytes)}, {part} % of full precision's bytes."
        )
    return lines


def chosen_rows(run: str, search: Search, confirmed: Confirmation | None) -> list[dict[str, str]]:
    """A row for each plan that a run chose, what it was confirmed at before what it was searched
    at; and one for full precision."""
    q, rows = search.quantity, []
    for one in search.chosen:
        plan = search.candidate(one.candidate)
        if plan is None:
            continue
        again = None if confirmed is None else confirmed.of(plan.name)
        lost = relative_loss(plan, search)
        rows.append({
            "run": run,
            "budget": one.budget,
            "plan": told(plan, search),
            "bytes": in_bytes(plan.total_bytes),
            "of full precision's (%)": digits(share(plan.total_bytes, search), 3),
            "confirmed": MISSING if again is None else q.level(again.metric),
            "searched": q.level(plan.metric),
            "metric": q.heading,
            "change": f"{q.change(plan.change)} {q.change_unit}".rstrip(),
            SHORT: flagged(plus_minus(lost), lost),
        })  # fmt: skip
    if rows:
        base = MISSING if confirmed is None else q.level(confirmed.baseline)
        rows.append({
            "run": run, "budget": "", "plan": "full precision",
            "bytes": in_bytes(search.full_bytes), "of full precision's (%)": "100",
            "confirmed": base, "searched": q.level(search.full), "metric": q.heading,
            "change": "", SHORT: "",
        })  # fmt: skip
    return rows


def plan_difference(plans: Mapping[str, Placed]) -> pd.DataFrame:
    """The groups of sites that plans treat differently, with the scheme of each; "–" where a model
    has no such group."""
    spread = {name: schemes_by_group(_spread(p), p.names) for name, p in plans.items()}
    groups = dict.fromkeys(group for schemes in spread.values() for group in schemes)
    rows = {g: [schemes.get(g, MISSING) for schemes in spread.values()] for g in groups}
    told = {group: texts for group, texts in rows.items() if len({*texts}) > 1}
    index = pd.Index(list(told), name="sites", dtype=object)
    return pd.DataFrame(list(told.values()), index=index, columns=list(spread), dtype=object)


def _spread(plan: Placed) -> Entries:
    """The plan site by site, where those are known: then patterns of a kind name them too."""
    if not plan.sites:
        return plan.entries
    return tuple((site, str(scheme)) for site, scheme in resolved(plan.entries, plan.sites).items())
