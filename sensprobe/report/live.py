"""A search that is still running, from what the ledger holds of it.

A search writes its result when it ends. Until then its plans are found here: whatever was measured
on the search samples by no profile, priced from the sites. Errors are of samples: clusters are
known to the search, not to the ledger.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from math import nan
from typing import NamedTuple

import numpy as np

from sensprobe.errors import RunError, SchemeError
from sensprobe.plans.cost import cost
from sensprobe.plans.plan import fingerprint, short_names, uniform
from sensprobe.plans.scheme import parse
from sensprobe.plans.sites import Site
from sensprobe.report.fronts import with_front
from sensprobe.report.results import Candidate, Entries, Search
from sensprobe.report.values import Measured, Quantity, quantity_of, real
from sensprobe.runs import Entry, EvaluationKey, Run
from sensprobe.runs.results import PROFILES
from sensprobe.scores.classes import POOLED
from sensprobe.scores.metrics import (
    ARRAYS,
    DIVERGENCE,
    INFO,
    LABEL,
    NRMSE,
    PREDICTED,
    MetricInfo,
    info_in,
    info_named,
)
from sensprobe.scores.score import mean, paired

SPLIT = "search"
ORDER = ("custom", "bits_per_byte", "correct", NRMSE, "squared_error", "kl", "distance")
"""Arrays that may be a run's headline where it names none; the first that evaluations have is.
Those of text have `correct` too, of tokens."""
DIVERGENCES = ("kl", "distance")
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
    data = _order(plans.values(), full)
    baseline = _values(run, _of(full.keys, data), head.array)
    if baseline is None:
        return None
    names, same = short_names(plans), _uniform(run, sites)
    every = {mark: _values(run, _of(plan.keys, data), head.array) for mark, plan in plans.items()}
    found = {mark: values for mark, values in every.items() if values is not None}
    if not found:
        return None
    # a profile may have measured full precision on more samples than the search takes
    baseline = baseline[: max(map(len, found.values()))]
    candidates = [
        _candidate(names[mark], plans[mark], values, baseline, same.get(mark), sites, batch, head)
        for mark, values in found.items()
    ]
    exact = cost(sites, {}, batch=batch)
    return Search(
        method="",
        batch=batch,
        split=SPLIT,
        n=len(baseline),
        quantity=head.quantity,
        full=_level(baseline, head),
        full_bytes=exact.total_bytes,
        candidates=tuple(with_front(candidates, head.quantity.sign)),
        full_state_bytes=exact.state_bytes,
    )


def measured_plan(run: Run, wanted: str) -> tuple[Quantity, Measured, Measured] | None:
    """Read the score of the plan with that fingerprint on the search samples from the ledger.

    (quantity, its score, its change to full precision), or None where it was not measured.
    """
    keys, head = searched_keys(run), _headline(run)
    mine, full = keys.get(wanted, []), keys.get(FULL, [])
    if not mine or not full or head is None:
        return None
    data = next((k.data for k in reversed(mine) if any(f.data == k.data for f in full)), "")
    values, baseline = (_values(run, _of(ks, data), head.array) for ks in (mine, full))
    if values is None or baseline is None:
        return None
    n = min(len(values), len(baseline))
    return head.quantity, _level(values[:n], head), _change(values[:n], baseline[:n], head)


def searched_keys(run: Run) -> dict[str, list[EvaluationKey]]:
    """Fingerprint of a plan -> what the ledger has of it on the search samples."""
    found: dict[str, list[EvaluationKey]] = {}
    for key in run.measured_keys():
        if key.split == SPLIT and not key.analog:
            found.setdefault(_plan_of(key), []).append(key)
    return found


def paired_loss(
    run: Run, ones: Sequence[EvaluationKey], others: Sequence[EvaluationKey]
) -> Measured | None:
    """The divergence of a plan less that of another, sample by sample on the search samples, by
    what the ledger has of each; None where it lacks one of them."""
    data = next((k.data for k in reversed(ones) if any(o.data == k.data for o in others)), "")
    for array in DIVERGENCES if data else ():
        mine, theirs = (_values(run, _of(ks, data), array) for ks in (ones, others))
        if mine is not None and theirs is not None:
            n = min(len(mine), len(theirs))
            found = paired(mine[:n], theirs[:n])
            return Measured(found.value, found.stderr, found.n)
    return None


def _headline(run: Run) -> _Headline | None:
    """The run's metric; None where nothing was measured on the search samples."""
    first = next((entry for entry in run.entries() if entry.key.split == SPLIT), None)
    if first is None:
        return None
    asked = run.manifest.settings.get("metric")
    if asked in ARRAYS:
        array = ARRAYS[str(asked)]
        return _Headline(array, quantity_of(INFO[array]))
    order = DIVERGENCES if asked == DIVERGENCE else ORDER
    found = next((array for array in order if array in first.names), None)
    if found is None:
        return None
    return _Headline(
        found, quantity_of(_own(run, str(asked)) if found == "custom" else INFO[found])
    )


def _own(run: Run, asked: str) -> MetricInfo:
    """Name, unit and direction of the user's metric of a run, as its profile says."""
    for name in run.results():
        found = run.read_result(name) if name.startswith("sensitivity-") else None
        with suppress(KeyError, ValueError):
            if isinstance(found, dict):
                return info_in(found)
    return info_named(asked.rpartition(":")[2])


def _of(keys: Sequence[EvaluationKey], data: str) -> tuple[EvaluationKey, ...]:
    """The keys of evaluations on samples in the order that `data` names."""
    return tuple(key for key in keys if key.data == data)


def _order(plans: Iterable[_Plan], full: _Plan) -> str:
    """The order of samples that the latest plan was measured in, and full precision too."""
    known = {key.data for key in full.keys}
    latest = [key.data for plan in plans for key in plan.keys if key.data in known]
    return latest[-1] if latest else full.keys[-1].data


def _plans(run: Run) -> dict[str, _Plan]:
    """Plan fingerprint -> what was measured of it on the search samples, in order of writing."""
    out: dict[str, _Plan] = {}
    entries = [e for e in run.entries() if e.key.split == SPLIT and not e.key.analog]
    model = entries[-1].key.model if entries else ""  # a run may have known it by an older name
    for entry in entries:
        plan = _plan_of(entry.key)
        if entry.key.model != model or (_is_profile(entry) and plan != FULL):
            continue
        if plan in out:
            out[plan] = out[plan]._replace(keys=(*out[plan].keys, entry.key))
        else:
            radius = real(entry.meta.get("radius"))
            out[plan] = _Plan((entry.key,), _schemes(entry.meta.get("plan")), radius)
    return out


def _schemes(told: object) -> Entries:
    """The plan an evaluation's line tells; none where it tells no plan that parses."""
    rows = told if isinstance(told, list) else []
    pairs = [row for row in rows if isinstance(row, list) and [*map(type, row)] == [str, str]]
    try:
        return tuple((site, str(parse(scheme))) for site, scheme in pairs)
    except SchemeError:
        return ()


def _plan_of(key: EvaluationKey) -> str:
    """The fingerprint of the plan; a metric of the user's adds to it what it is."""
    return key.plan.partition("+")[0]


def _is_profile(entry: Entry) -> bool:
    """A profile's label says what it rounded: `encoder=int8`."""
    return "=" in str(entry.meta.get("label") or "")


def _values(run: Run, keys: Sequence[EvaluationKey], array: str) -> np.ndarray | None:
    """The values a score is made of, (n, …) float64, for the samples from 0 on that were measured;
    None where sample 0 was not."""
    if not keys:
        return None
    whole = keys[0].over(0, max(key.stop for key in keys))
    found = run.gather(whole) or run.find(keys[0])
    names = (LABEL, PREDICTED) if array in POOLED else (array,)
    if found is None or found.key.start != 0 or any(name not in found.arrays for name in names):
        return None
    columns = [found.arrays[name].astype(np.float64) for name in names]
    return np.stack(columns, 1) if array in POOLED else columns[0]


def _scores(values: np.ndarray, head: _Headline) -> np.ndarray:
    """The values of samples whose mean is the score."""
    return POOLED[head.array](*values.T) if head.array in POOLED else values


def _level(values: np.ndarray, head: _Headline) -> Measured:
    found = mean(_scores(values, head))
    return Measured(found.value, found.stderr, found.n)


def _change(values: np.ndarray, baseline: np.ndarray, head: _Headline) -> Measured:
    """The paired difference with its error."""
    robust = head.array in (NRMSE, "squared_error", "distance")
    found = paired(_scores(values, head), _scores(baseline, head), robust=robust)
    return Measured(found.value, found.stderr, found.n, nan if found.p is None else found.p)


def _candidate(
    name: str,
    plan: _Plan,
    values: np.ndarray,
    baseline: np.ndarray,
    same_as: str | None,
    sites: Sequence[Site],
    batch: int,
    head: _Headline,
) -> Candidate:
    price = cost(sites, {site: parse(scheme) for site, scheme in plan.entries}, batch=batch)
    n = min(len(values), len(baseline))
    return Candidate(
        name=name,
        weight_bytes=price.weight_bytes,
        state_bytes=price.state_bytes,
        total_bytes=price.total_bytes,
        metric=_level(values[:n], head),
        change=_change(values[:n], baseline[:n], head),
        entries=plan.entries,
        uniform=same_as,
        effective_bits=price.effective_bits,
        n=n,
        stopped_early=n < len(baseline),
        radius=plan.radius,
    )


def _uniform(run: Run, sites: Sequence[Site]) -> Mapping[str, str]:
    """Fingerprint -> scheme of the uniform plans that a search of this run starts from."""
    schemes: list[str] = []
    for name in PROFILES:
        with suppress(RunError):  # a damaged profile is told of where profiles are shown
            schemes += (run.read_result(name) or {}).get("schemes", ())
    plans = {text: uniform(parse(text), sites).resolve(sites) for text in schemes}
    return {fingerprint(plan): text for text, plan in plans.items()}
