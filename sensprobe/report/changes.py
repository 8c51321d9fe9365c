"""The next change of a plan: what one group in another scheme saves or takes, and what that loses.

A loss is that of the group alone, as a profile priced it, less what it loses as the plan has it
now. Where the run's evaluations hold both, the difference is taken sample by sample; elsewhere the
two errors are added as if independent, which makes the bar longer.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from math import hypot, inf, isfinite, isnan

from sensprobe.plans.cost import site_bytes
from sensprobe.plans.plan import fingerprint
from sensprobe.plans.scheme import EXACT, Scheme, parse
from sensprobe.plans.sites import Kind, Site
from sensprobe.report.dataframes import pd
from sensprobe.report.editing import applied, members_of
from sensprobe.report.live import paired_loss, searched_keys
from sensprobe.report.plans import EXACT_TEXT, resolved
from sensprobe.report.results import Entries, Row, Sensitivity
from sensprobe.report.values import KIB, Measured, digits, plus_minus
from sensprobe.runs import Run

NOTHING = Measured(0.0, 0.0)
MOST = 5


@dataclass(frozen=True, slots=True)
class Change:
    """A group put in another scheme: `schemes` by site, the bytes and the loss that this adds."""

    group: str
    before: str
    after: str
    schemes: Mapping[str, str]  # `fp32` where a site is exact then
    now: Mapping[str, str]  # the same as the plan has it
    bytes: int
    loss: Measured

    @property
    def rate(self) -> float:
        """Loss a byte, of what is saved or spent; what is gained counts as none."""
        return max(self.loss.value, 0.0) / -self.bytes if self.bytes < 0 else inf


def changes(
    entries: Entries, sites: Sequence[Site], found: Sensitivity, batch: int = 1
) -> list[Change]:
    """Every change of one group from a scheme that the profile priced to another."""
    plan = {name: str(scheme) for name, scheme in resolved(entries, sites).items()}
    rows: dict[str, list[Row]] = {}
    for row in found.rows:
        rows.setdefault(row.group, []).append(row)
    out = []
    for group, mine in rows.items():
        members = members_of(mine[0], sites)
        if all(site.kind is Kind.ACTIVATION for site in members):
            continue  # takes no bytes
        now = {site.name: plan.get(site.name, EXACT_TEXT) for site in members}
        options = {EXACT_TEXT: (dict.fromkeys(now, EXACT_TEXT), NOTHING)}
        for row in mine:
            if isfinite(row.additive.value):
                schemes = now | {
                    n: t or EXACT_TEXT for n, t in applied(row.scheme, members).items()
                }
                options.setdefault(row.scheme, (schemes, row.additive))
        before = next((text for text, (schemes, _) in options.items() if schemes == now), None)
        if before is None:
            continue  # no profile says what it loses now
        held, lost = _bytes(now, members, batch), options[before][1]
        for text, (schemes, price) in options.items():
            size = _bytes(schemes, members, batch) - held
            error = hypot(price.stderr, lost.stderr)
            loss = Measured(price.value - lost.value, error, found.n)
            if size:
                out.append(Change(group, before, text, schemes, now, size, loss))
    return out


def saving(found: Sequence[Change]) -> list[Change]:
    """The change of each group that loses least a byte saved, the best first: what loses nothing
    by what it saves."""
    return _first([c for c in found if c.bytes < 0], lambda c: (c.rate, c.bytes))


def spending(found: Sequence[Change]) -> list[Change]:
    """The change of each group that wins back most a byte spent, the best first."""
    gains = [c for c in found if c.bytes > 0 and c.loss.value < 0]
    return _first(gains, lambda c: (c.loss.value / c.bytes, c.bytes))


def with_paired_errors(found: Sequence[Change], run: Run) -> list[Change]:
    """The changes with losses taken sample by sample, where the run has measured both sides."""
    out, keys = [], searched_keys(run)
    for change in found:
        marks = (fingerprint(_parsed(schemes)) for schemes in (change.schemes, change.now))
        loss = paired_loss(run, *(keys.get(mark, []) for mark in marks))
        # a profile of groups whose documents belong together has errors of its own
        known = loss is not None and abs(loss.value - change.loss.value) <= 1e-6 * abs(loss.value)
        out.append(replace(change, loss=loss) if known and loss is not None else change)
    return out


def table(found: Sequence[Change], unit: Sensitivity) -> pd.DataFrame:
    """Changes for reading, with the loss a KiB."""
    q = unit.additive
    rows = [
        {
            "sites": change.group,
            "bytes": f"{change.bytes:+,}".replace("-", "−"),
            f"predicted {q.name} added ({q.change_unit or q.unit})": _loss(q.shown(change.loss)),
            "a KiB": digits(q.shown(change.loss).value * KIB / abs(change.bytes), 2, signed=True),
            "from": change.before,
            "to": change.after,
        }
        for change in found
    ]
    return pd.DataFrame(rows)


def _loss(shown: Measured) -> str:
    if isnan(shown.stderr):
        return digits(shown.value, 3, signed=True)
    return plus_minus(shown, signed=True)


def _first(found: list[Change], key: Callable[[Change], tuple[float, float]]) -> list[Change]:
    """The first change of each group, and of those the first few."""
    best: dict[str, Change] = {}
    for change in sorted(found, key=key):
        best.setdefault(change.group, change)
    return list(best.values())[:MOST]


def _bytes(schemes: Mapping[str, str], members: Sequence[Site], batch: int) -> int:
    parsed = _parsed(schemes)
    prices = [site_bytes(site, parsed.get(site.name, EXACT)) for site in members]
    return sum(once + batch * each for once, each in prices)


def _parsed(schemes: Mapping[str, str]) -> dict[str, Scheme]:
    return {name: parse(text) for name, text in schemes.items() if text != EXACT_TEXT}
