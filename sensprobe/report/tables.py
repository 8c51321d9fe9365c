"""Results as pandas tables for people; headings carry the units.

They hold text, for reading: a value to the digits its error bar bears, noise behind a dot, an
unstable recurrence behind a triangle. The same results as numbers are in `rows`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from math import isnan

from sensprobe.plans.sites import Site
from sensprobe.report.dataframes import pd
from sensprobe.report.plans import EXACT_TEXT, bytes_by_part, schemes_by_group
from sensprobe.report.results import (
    Candidate,
    Compared,
    Confirmation,
    Confirmed,
    Entries,
    Rival,
    Row,
    Search,
    Sensitivity,
)
from sensprobe.report.values import (
    KIB,
    MISSING,
    UNSTABLE,
    byte_unit,
    digits,
    flagged,
    number,
)

FULL = "full precision"
BY_HAND = "by hand"
DOMINATED, FRONT, UNIFORM, CHOSEN = "·", "●", "◇", "★"
MOST_DOMINATED = 400  # marks on a figure; more would say nothing and make a page slow
MARKS = {CHOSEN: "chosen", FRONT: "front", UNIFORM: "uniform", DOMINATED: "dominated"}


def sensitivity(found: Sensitivity, of: str = "metric", *, bars: bool = True) -> pd.DataFrame:
    """Groups down, schemes across; `of` is "metric" (change to full precision) or "additive".
    Without `bars` values stand alone, to the digits that their errors support."""
    grid = found.grid
    cells = {
        scheme: [cell(found, grid.get((group, scheme)), of, bars=bars) for group in found.groups]
        for scheme in found.schemes
    }
    index = pd.Index(found.groups, name=found.heading(of), dtype=object)
    return pd.DataFrame(cells, index=index, dtype=object)


def cell(found: Sensitivity, row: Row | None, of: str = "metric", *, bars: bool = True) -> str:
    """One observation as text; "–" where it was not made."""
    if row is None:
        return MISSING
    shown = found.shown(row, of)
    text = flagged(found.text(row, of, bars=bars), shown)
    return f"{UNSTABLE} {text}" if row.unstable and shown.known else text


def ranked(found: Sensitivity, of: str = "metric", scheme: str | None = None) -> list[Row]:
    """Known observations, worst first; all schemes, or one."""
    harms = [(_harm(found, row, of), row) for row in found.rows if scheme in (None, row.scheme)]
    known = [pair for pair in harms if not isnan(pair[0])]
    return [row for _, row in sorted(known, key=lambda pair: pair[0], reverse=True)]


def _harm(found: Sensitivity, row: Row, of: str) -> float:
    return -found.quantity(of).sign * found.shown(row, of).value


def worst_first(found: Sensitivity, of: str = "metric") -> list[str]:
    """Groups of which something is known, by the worst they do in any scheme; of equals by the next
    worst, and so on."""
    harms: dict[str, list[float]] = {}
    for row in ranked(found, of):
        harms.setdefault(row.group, []).append(_harm(found, row, of))
    return sorted(harms, key=lambda group: harms[group], reverse=True)


def worst(
    found: Sensitivity, of: str = "metric", most: int = 60, *, every: bool = False
) -> tuple[Sensitivity, str]:
    """Everything where that is no more than `most` groups; else so many of what a search changes,
    or of `every` group, the worst first, with words for that."""
    if len(found.groups) <= most:
        return found, ""
    among = found if every else found.searched
    kept = {group: k for k, group in enumerate(worst_first(among, of)[:most])}
    rows = sorted((r for r in among.rows if r.group in kept), key=lambda row: kept[row.group])
    left = replace(found, rows=tuple(rows))
    return left, f"the {len(kept)} worst of {len(among.groups)} {among.kinds}"


def ranking(found: Sensitivity, of: str = "metric", scheme: str | None = None) -> pd.DataFrame:
    """Observations, worst first. One that its error bar does not tell from zero has no rank."""
    heading = found.heading(of)
    rows = [
        {
            "rank": str(place) if found.shown(row, of).differs else MISSING,
            "target": row.group,
            "scheme": row.scheme,
            heading: cell(found, row, of),
        }
        for place, row in enumerate(ranked(found, of, scheme), 1)
    ]
    return pd.DataFrame(rows, columns=["rank", "target", "scheme", heading])


# -- the search ---------------------------------------------------------------------------------


def mark_of(candidate: Candidate, search: Search) -> str:
    """Words for a plan's place in the search: "chosen for 12KiB, front"."""
    words = [f"chosen for {budget}" for budget in search.picks.get(candidate.name, ())]
    words += ["uniform"] if candidate.uniform is not None else []
    words += ["front"] if candidate.on_front else []
    words += [f"stopped after {candidate.n} samples"] if candidate.stopped_early else []
    return ", ".join(words)


def symbol(candidate: Candidate, search: Search) -> str:
    """One character for the most telling thing a plan is."""
    if candidate.name in search.picks:
        return CHOSEN
    if candidate.uniform is not None:
        return UNIFORM
    return FRONT if candidate.on_front else DOMINATED


def thinned(candidates: list[Candidate]) -> list[Candidate]:
    """At most MOST_DOMINATED of them, spread evenly over their bytes."""
    if len(candidates) <= MOST_DOMINATED:
        return candidates
    ordered = sorted(candidates, key=lambda c: (c.total_bytes, c.metric.value))
    step = (len(ordered) - 1) / (MOST_DOMINATED - 1)
    return [ordered[round(k * step)] for k in range(MOST_DOMINATED)]


def notable(search: Search) -> list[Candidate]:
    """The front, the uniform plans and the chosen ones, in growing bytes."""
    picks = search.picks
    kept = [c for c in search.candidates if c.on_front or c.uniform is not None or c.name in picks]
    return sorted(kept, key=lambda c: (c.total_bytes, -search.quantity.sign * c.metric.value))


def frontier(search: Search, confirmed: Confirmation | None = None) -> pd.DataFrame:
    """Front, uniform and chosen plans in growing bytes, full precision last, in float32 and, where
    that is other, as the model's file stores it. What a plan was confirmed at stands first."""
    kept = {FULL: search.full_bytes}
    if search.stored_bytes not in (0, search.full_bytes):
        kept = {
            f"{FULL}, {search.stored_dtype}": search.stored_bytes,
            f"{FULL}, float32": search.full_bytes,
        }
    rows = [
        {
            "": symbol(c, search),
            "plan": c.uniform or c.name,
            **_confirmed(c.name, confirmed),
            **_size("total", c.total_bytes, search),
            **_size("weights", c.weight_bytes, search),
            **_size("state", c.state_bytes, search),
            "effective bits": digits(c.effective_bits, 3),
            **_plan(c, search),
            "note": f"for {', '.join(search.picks[c.name])}" if c.name in search.picks else "",
        }
        for c in notable(search)
    ]
    level = {search.quantity.heading: search.quantity.level(search.full)}
    if confirmed is not None:
        level |= {_confirmed_heading(confirmed): confirmed.quantity.level(confirmed.baseline)}
    for name, total in kept.items() if rows else ():
        rows.append({"": "", "plan": name, **_size("total", total, search), **level, "note": ""})
    return pd.DataFrame(rows).fillna(MISSING)


def _confirmed(candidate: str, found: Confirmation | None) -> dict[str, str]:
    """The score on samples that nothing had seen before, in a column of its own."""
    if found is None:
        return {}
    plan = found.of(candidate)
    return {
        _confirmed_heading(found): MISSING if plan is None else found.quantity.level(plan.metric)
    }


def _confirmed_heading(found: Confirmation) -> str:
    return f"confirmed {found.quantity.heading}"


def chosen(search: Search) -> pd.DataFrame:
    """For each budget the chosen plan, and below it the best uniform plan and the best one made by
    hand that fit as well.

    `times smaller` is against the model as its file stores it.
    """
    rows = []
    for choice in search.chosen:
        for name, what in ((choice.candidate, "chosen"), (choice.uniform, "best uniform")):
            found = search.candidate(name)
            if found is None:
                rows.append({"budget": choice.budget, "plan": f"{what}: none fits"})
            else:
                rows.append(_choice_row(choice.budget, found, search))
        by_hand = search.plan(choice.hand)
        if by_hand is not None:
            row = _choice_row(choice.budget, by_hand, search)
            rows.append(row | {"plan": f"{BY_HAND}: {choice.hand_about}"})
    columns = ["budget", "plan", *_headings(search)]
    columns.insert(3, "times smaller")
    return pd.DataFrame(rows, columns=columns, dtype=object).fillna(MISSING)


def _choice_row(budget: str, c: Candidate | Compared, search: Search) -> dict[str, str]:
    return {
        "budget": budget,
        "plan": c.title if isinstance(c, Candidate) else c.name,
        "times smaller": digits(search.times_smaller(c.total_bytes), 3),
        **_plan(c, search),
    }


def confirmation(found: Confirmation) -> pd.DataFrame:
    """Chosen plans on unseen data, each with the uniform plan and the one made by hand that it
    stands against."""
    q = found.quantity
    rows: list[dict[str, str]] = []
    for plan in found.plans:
        row = {"budget": plan.budget, "plan": plan.name, **_plan(plan, found)}
        rows.append(row)
        for what, rival in (("uniform", plan.uniform), (BY_HAND, plan.hand)):
            against = f"against {what.removeprefix('by ')}"
            row[against] = MISSING if rival is None else q.change(rival.difference)
            if rival is not None:
                name = f"{what}{' ' if what == 'uniform' else ': '}{rival.name}"
                rows.append({"budget": plan.budget, "plan": name, **_plan(rival, found)})
    if rows:
        rows.append({"plan": FULL, q.heading: q.level(found.baseline)})
    rivals = ["against uniform", *["against hand"] * any(p.hand for p in found.plans)]
    columns = ["budget", "plan", *_headings(found), *rivals]
    return pd.DataFrame(rows, columns=columns, dtype=object).fillna("")


def compared(found: Search | Confirmation) -> pd.DataFrame:
    """Plans measured beside the search; of confirmed ones what a chosen plan of no more bytes
    gains on each."""
    rows = [
        {
            "plan": plan.name,
            **_plan(plan, found),
            "chosen of no more bytes": plan.chosen or MISSING,
            "gains": found.quantity.change(plan.gain),
        }
        for plan in found.compared
    ]
    columns = ["plan", *_headings(found), "chosen of no more bytes", "gains"]
    return pd.DataFrame(rows, columns=columns)


# -- plans --------------------------------------------------------------------------------------


def side_by_side(
    plans: Mapping[str, Entries],
    names: Sequence[str] = (),
    sites: Sequence[Site] = (),
    batch: int = 1,
) -> pd.DataFrame:
    """Schemes of the groups of sites some plan rounds; with `sites`, then the bytes of each part.

    Plans across. `names` are the model's sites (see `plans.schemes_by_group`).
    """
    spread = {
        plan: schemes_by_group(entries, names or [s.name for s in sites])
        for plan, entries in plans.items()
    }
    groups = list(dict.fromkeys(group for schemes in spread.values() for group in schemes))
    groups = [g for g in groups if any(s.get(g, EXACT_TEXT) != EXACT_TEXT for s in spread.values())]
    columns = {plan: [schemes.get(g, MISSING) for g in groups] for plan, schemes in spread.items()}
    table = pd.DataFrame(columns, index=pd.Index(groups, name="sites", dtype=object), dtype=object)
    if not sites:
        return table
    return pd.concat([table, _bytes_table(plans, sites, batch)]).rename_axis("sites")


def _bytes_table(plans: Mapping[str, Entries], sites: Sequence[Site], batch: int) -> pd.DataFrame:
    spent = {
        plan: {part.part: part.total for part in bytes_by_part(entries, sites, batch)}
        for plan, entries in plans.items()
    }
    parts = list(dict.fromkeys(part for column in spent.values() for part in column))
    columns = {
        plan: [*(f"{column.get(p, 0):,}" for p in parts), f"{sum(column.values()):,}"]
        for plan, column in spent.items()
    }
    index = [*(f"{part} (bytes)" for part in parts), "total (bytes)"]
    return pd.DataFrame(columns, index=index, dtype=object)


# -- pieces -------------------------------------------------------------------------------------


def unit_of(found: Search | Confirmation) -> tuple[str, int]:
    """The one unit of every table of a search and its confirmation, as --budget takes it: that of
    the largest chosen plan, KiB at least."""
    if isinstance(found, Confirmation):
        sizes = [plan.total_bytes for plan in found.plans]
    else:
        picks = (found.candidate(name) for name in found.picks)
        sizes = [c.total_bytes for c in picks if c is not None] or [found.full_bytes]
    return byte_unit([max([*sizes, KIB])])


def _size(what: str, size: float, found: Search | Confirmation) -> dict[str, str]:
    unit, count = unit_of(found)
    return {f"{what} ({unit})": number(size / count, 0 if count == 1 else 2)}


def _headings(found: Search | Confirmation) -> list[str]:
    """The headings of `_plan`."""
    quantity = found.quantity
    return [f"total ({unit_of(found)[0]})", quantity.heading, quantity.change_heading]


def _plan(
    plan: Candidate | Compared | Confirmed | Rival, found: Search | Confirmation
) -> dict[str, str]:
    """Bytes, score, and the change to full precision where it is known of such a plan."""
    q = found.quantity
    level = f"{UNSTABLE} " * (plan.radius > 1) + q.level(plan.metric)
    row = {**_size("total", plan.total_bytes, found), q.heading: level}
    return row if isinstance(plan, Rival) else row | {q.change_heading: q.change(plan.change)}
