"""A search that is still running, from what the ledger holds of it.

A search writes its result when it ends. Until then its plans are found here: whatever was measured
on the search samples by no profile, priced from the sites. Errors are of samples: clusters are
known to the search, not to the ledger.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from math import nan, sqrt
from typing import NamedTuple

import numpy as np

from sensprobe.cost import site_bytes
from sensprobe.plan import fingerprint
from sensprobe.plan import uniform as uniform_plan
from sensprobe.report.fronts import with_front
from sensprobe.report.results import Candidate, Entries, Search
from sensprobe.report.values import Measured, Quantity, metric_named
from sensprobe.runs import Entry, EvaluationKey, Run
from sensprobe.scheme import parse
from sensprobe.sites import Kind, Site

SPLIT = "search"
HEADLINES = {
    "custom": ("custom", 1),
    "correct": ("accuracy", 1),
    "bits_per_byte": ("bits_per_byte", -1),
    "squared_error": ("mse", -1),
    "kl": ("divergence", -1),
    "distance": ("divergence", -1),
}
"""Array -> the metric it is, and which way is better; the first that an evaluation has counts."""
DIVERGENCE = "divergence"
NAME_DIGITS = 4
EDIT = "measured"
"""`source` of a plan that was measured for itself."""


class _Plan(NamedTuple):
    """One plan and every stretch of samples it was measured on."""

    keys: tuple[EvaluationKey, ...]
    entries: Entries
    radius: float


def search_so_far(run: Run, sites: Sequence[Site], batch: int = 1) -> Search | None:
    """Every plan measured so far, as a search without budgets; None where there is none."""
    plans = _plans(run)
    full = next((p for p in plans.values() if not p.entries), None)
    if full is None or not sites:
        return None
    name, array, sign = headline(run)
    quantity, baseline = metric_named(name, sign), _values(run, full, array)
    if baseline is None:
        return None
    prices = _Prices(sites, batch)
    names = _names(plan for plan in plans if plans[plan].entries)
    uniform = _uniform(run, sites)
    candidates = []
    for mark, title in names.items():
        values = _values(run, plans[mark], array)
        if values is not None:
            same = uniform.get(mark)
            candidates.append(_candidate(title, plans[mark], values, baseline, prices, same))
    if not candidates:
        return None
    weight, state = prices.of(())
    return Search(
        "", batch, SPLIT, len(baseline), nan, float(len(candidates)), quantity, _mean(baseline),
        weight + state, nan, {}, tuple(with_front(candidates, quantity.sign)), (), (), state,
    )  # fmt: skip


def headline(run: Run) -> tuple[str, str, int]:
    """The run's metric: its name, the array of it, and which way is better."""
    held = {name for entry in run.entries() for name in entry.names}
    divergent = run.manifest.settings.get("metric") == DIVERGENCE
    for array, (name, sign) in HEADLINES.items():
        if array in held and (not divergent or name == DIVERGENCE):
            return name, array, sign
    return DIVERGENCE, "kl", -1


def measured_plan(run: Run, plan_mark: str) -> tuple[Quantity, Measured, Measured] | None:
    """What the ledger says of the plan with that fingerprint on the search samples.

    (quantity, its score, its change to full precision), or None where it was not measured.
    """
    plans = _plans(run, profiled=True)
    full = next((p for p in plans.values() if not p.entries), None)
    if plan_mark not in plans or full is None:
        return None
    name, array, sign = headline(run)
    values, baseline = (_values(run, p, array) for p in (plans[plan_mark], full))
    if values is None or baseline is None:
        return None
    n = min(len(values), len(baseline))
    return metric_named(name, sign), _mean(values[:n]), _mean(values[:n] - baseline[:n])


def _plans(run: Run, *, profiled: bool = False) -> Mapping[str, _Plan]:
    """Plan fingerprint -> what was measured of it on the search samples, in order of writing."""
    out: dict[str, _Plan] = {}
    for entry in run.entries():
        if entry.key.split != SPLIT or not (profiled or not _is_profile(entry)):
            continue
        mark = entry.key.plan
        before = out.get(mark)
        if before is None:
            schemes = tuple((str(a), str(b)) for a, b in entry.meta.get("plan") or ())
            radius = entry.meta.get("radius")
            out[mark] = _Plan((entry.key,), schemes, nan if radius is None else float(radius))
        else:
            out[mark] = before._replace(keys=(*before.keys, entry.key))
    return out


def _is_profile(entry: Entry) -> bool:
    """A profile's label says what it rounded: `encoder=int8`."""
    return "=" in str(entry.meta.get("label") or "")


def _values(run: Run, plan: _Plan, array: str) -> np.ndarray | None:
    """Per-sample values from sample 0 on, as far as they reach."""
    whole = plan.keys[0].over(0, max(key.stop for key in plan.keys))
    found = run.gather(whole) or run.find(plan.keys[0])
    if found is None or found.key.start != 0 or array not in found.arrays:
        return None
    return found.arrays[array].astype(np.float64)


def _mean(values: np.ndarray) -> Measured:
    n = len(values)
    error = float(values.std(ddof=1)) / sqrt(n) if n > 1 else nan
    return Measured(float(values.mean()), error, n)


def _candidate(
    name: str,
    plan: _Plan,
    values: np.ndarray,
    baseline: np.ndarray,
    prices: _Prices,
    uniform: str | None,
) -> Candidate:
    weight, state = prices.of(plan.entries)
    n = min(len(values), len(baseline))
    return Candidate(
        name, name, EDIT, uniform, plan.entries, weight, state, weight + state,
        8 * (weight + state) / prices.reals, _mean(values[:n]), _mean(values[:n] - baseline[:n]),
        nan, n, n < len(baseline), plan.radius, False,
    )  # fmt: skip


def _uniform(run: Run, sites: Sequence[Site]) -> dict[str, str]:
    """Fingerprint -> scheme of the uniform plans that a search of this run starts from."""
    schemes: dict[str, None] = {}
    for name in run.results():
        if name.startswith("sensitivity-"):
            document = run.read_result(name)
            if isinstance(document, dict):
                schemes |= dict.fromkeys(map(str, document.get("schemes", ())))
    out = {}
    for text in schemes:
        plan = uniform_plan(parse(text), sites).resolve(sites)
        out[fingerprint(plan)] = text
    return out


def _names(marks: Iterable[str]) -> dict[str, str]:
    """Fingerprint -> p and its first digits, as many as tell all apart."""
    found = list(marks)
    count = NAME_DIGITS
    while len({mark[:count] for mark in found}) < len(found):
        count += 1
    return {mark: f"p{mark[:count]}" for mark in found}


class _Prices:
    """Bytes of plans of one model, each site and scheme worked out once."""

    def __init__(self, sites: Sequence[Site], batch: int) -> None:
        self._sites, self._batch = {site.name: site for site in sites}, batch
        self._known: dict[tuple[str, str | None], tuple[int, int]] = {}
        memory = [site for site in sites if site.kind is not Kind.ACTIVATION]
        self.reals = sum(s.reals * (batch if s.kind is Kind.STATE else 1) for s in memory)

    def of(self, entries: Entries) -> tuple[int, int]:
        """(weight bytes, state bytes) of a plan whose entries name sites."""
        schemes = dict(entries)
        spent = [self._of(name, schemes.get(name)) for name in self._sites]
        return sum(once for once, _ in spent), self._batch * sum(each for _, each in spent)

    def _of(self, name: str, scheme: str | None) -> tuple[int, int]:
        if (name, scheme) not in self._known:
            site = self._sites[name]
            priced = site_bytes(site, parse(scheme)) if scheme else site_bytes(site)
            self._known[name, scheme] = priced
        return self._known[name, scheme]
