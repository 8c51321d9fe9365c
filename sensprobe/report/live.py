"""A search that is still running, from what the ledger holds of it.

A search writes its result when it ends. Until then its plans are found here: whatever was measured
on the search samples by no profile, priced from the sites. Errors are of samples: clusters are
known to the search, not to the ledger.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from math import nan
from typing import NamedTuple

import numpy as np

from sensprobe.cost import cost
from sensprobe.errors import RunError, SchemeError
from sensprobe.metrics import DIVERGENCE, LOWER_IS_BETTER, NAMES
from sensprobe.plan import fingerprint, short_names, uniform
from sensprobe.report.fronts import with_front
from sensprobe.report.results import Candidate, Entries, Search
from sensprobe.report.values import Measured, Quantity, metric_named, real
from sensprobe.runs import Entry, EvaluationKey, Run
from sensprobe.runs.results import PROFILES
from sensprobe.scheme import parse
from sensprobe.score import mean, paired
from sensprobe.sites import Site

SPLIT = "search"
ORDER = ("custom", "correct", "bits_per_byte", "squared_error", "kl", "distance")
"""Arrays that may be a run's headline; the first that its evaluations have is."""
FULL = fingerprint({})


class _Plan(NamedTuple):
    """One plan and every stretch of samples it was measured on."""

    keys: tuple[EvaluationKey, ...]
    entries: Entries
    radius: float


class _Headline(NamedTuple):
    """The array behind a run's metric, and what it measures."""

    array: str
    quantity: Quantity


def search_so_far(run: Run, sites: Sequence[Site], batch: int = 1) -> Search | None:
    """Every plan measured so far, as a search without budgets; None where there is none."""
    plans = _plans(run)
    full, head = plans.pop(FULL, None), _headline(run)
    if full is None or head is None or not sites:
        return None
    baseline = _values(run, full.keys, head.array)
    if baseline is None:
        return None
    names, same = short_names(plans), _uniform(run, sites)
    candidates = []
    for mark, plan in plans.items():
        values = _values(run, plan.keys, head.array)
        if values is not None:
            same_as = same.get(mark)
            candidates.append(
                _candidate(names[mark], plan, values, baseline, same_as, sites, batch)
            )
    if not candidates:
        return None
    exact = cost(sites, {}, batch=batch)
    return Search(
        "", batch, SPLIT, len(baseline), nan, float(len(candidates)), head.quantity,
        _measured(baseline), exact.total_bytes, nan, {},
        tuple(with_front(candidates, head.quantity.sign)), (), (), exact.state_bytes,
    )  # fmt: skip


def measured_plan(run: Run, plan_mark: str) -> tuple[Quantity, Measured, Measured] | None:
    """What the ledger says of the plan with that fingerprint on the search samples.

    (quantity, its score, its change to full precision), or None where it was not measured.
    """
    keys = [key for key in run.measured_keys() if key.split == SPLIT]
    head = _headline(run)
    mine, full = ([k for k in keys if _mark(k) == mark] for mark in (plan_mark, FULL))
    if not mine or not full or head is None:
        return None
    values, baseline = (_values(run, ks, head.array) for ks in (mine, full))
    if values is None or baseline is None:
        return None
    n = min(len(values), len(baseline))
    return head.quantity, _measured(values[:n]), _measured(values[:n], baseline[:n])


def _headline(run: Run) -> _Headline | None:
    """The run's metric; None where nothing was measured on the search samples."""
    first = next((entry for entry in run.entries() if entry.key.split == SPLIT), None)
    asked = run.manifest.settings.get("metric")
    for array in ORDER if first is not None else ():
        name = NAMES[array]
        if first is not None and array in first.names and (asked != DIVERGENCE or name == asked):
            if array == "custom" and asked:
                name = str(asked).rpartition(":")[2]
            sign = -1 if array in LOWER_IS_BETTER else 1
            return _Headline(array, metric_named(name, sign))
    return None


def _plans(run: Run) -> dict[str, _Plan]:
    """Plan fingerprint -> what was measured of it on the search samples, in order of writing."""
    out: dict[str, _Plan] = {}
    entries = [entry for entry in run.entries() if entry.key.split == SPLIT]
    model = entries[-1].key.model if entries else ""  # a run may have known it by an older name
    for entry in entries:
        mark = _mark(entry.key)
        if entry.key.model != model or (_is_profile(entry) and mark != FULL):
            continue
        if mark in out:
            out[mark] = out[mark]._replace(keys=(*out[mark].keys, entry.key))
        else:
            radius = real(entry.meta.get("radius"))
            out[mark] = _Plan((entry.key,), _schemes(entry.meta.get("plan")), radius)
    return out


def _schemes(told: object) -> Entries:
    """The plan an evaluation's line tells; none where it tells no plan that parses."""
    rows = told if isinstance(told, list) else []
    pairs = [row for row in rows if isinstance(row, list) and [*map(type, row)] == [str, str]]
    try:
        return tuple((site, str(parse(scheme))) for site, scheme in pairs)
    except SchemeError:
        return ()


def _mark(key: EvaluationKey) -> str:
    """The fingerprint of the plan; a metric of the user's adds to it what it is."""
    return key.plan.partition("+")[0]


def _is_profile(entry: Entry) -> bool:
    """A profile's label says what it rounded: `encoder=int8`."""
    return "=" in str(entry.meta.get("label") or "")


def _values(run: Run, keys: Sequence[EvaluationKey], array: str) -> np.ndarray | None:
    """Per-sample values (n,) float64 from sample 0 on, as far as they reach."""
    whole = keys[0].over(0, max(key.stop for key in keys))
    found = run.gather(whole) or run.find(keys[0])
    if found is None or found.key.start != 0 or array not in found.arrays:
        return None
    return found.arrays[array].astype(np.float64)


def _measured(values: np.ndarray, baseline: np.ndarray | None = None) -> Measured:
    """The mean with its error; with a baseline, of the paired difference."""
    found = mean(values) if baseline is None else paired(values, baseline)
    return Measured(found.value, found.stderr, found.n)


def _candidate(
    name: str,
    plan: _Plan,
    values: np.ndarray,
    baseline: np.ndarray,
    same_as: str | None,
    sites: Sequence[Site],
    batch: int,
) -> Candidate:
    price = cost(sites, {site: parse(scheme) for site, scheme in plan.entries}, batch=batch)
    n = min(len(values), len(baseline))
    return Candidate(
        name, name, "", same_as, plan.entries, price.weight_bytes, price.state_bytes,
        price.total_bytes, price.effective_bits, _measured(values[:n]),
        _measured(values[:n], baseline[:n]), nan, n, n < len(baseline), plan.radius, False,
    )  # fmt: skip


def _uniform(run: Run, sites: Sequence[Site]) -> Mapping[str, str]:
    """Fingerprint -> scheme of the uniform plans that a search of this run starts from."""
    schemes: list[str] = []
    for name in PROFILES:
        with suppress(RunError):  # a damaged profile is told of where profiles are shown
            schemes += (run.read_result(name) or {}).get("schemes", ())
    plans = {text: uniform(parse(text), sites).resolve(sites) for text in schemes}
    return {fingerprint(plan): text for text, plan in plans.items()}
