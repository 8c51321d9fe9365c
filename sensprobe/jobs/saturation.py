"""Warnings of values that leave the range of their float format under a plan."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from sensprobe.evaluate import SEQUENCES, rows_of, saturations, sentences, watched
from sensprobe.plans.plan import from_json
from sensprobe.plans.scheme import Scheme, parse
from sensprobe.plans.sites import Kind
from sensprobe.session.session import Session

SERVED_BY_VLLM = frozenset({"vllm", "modelopt"})
"""Runtimes whose states are kept by vLLM, in caches that do not saturate."""


def saturated(
    session: Session, plan: Mapping[str, Scheme], split: str, stop: int = SEQUENCES
) -> dict[str, Any]:
    """`rows` of tensors whose values leave their range (see `evaluate.saturation`) and `samples`,
    how many were watched: the first of the split, at most `stop`."""
    sites = session.source.model.sites
    samples = min(stop, SEQUENCES, session.dataset.splits.count(split))
    if not any(watched(sites[name], scheme) for name, scheme in plan.items()):
        return {"samples": samples, "rows": []}
    session.calibration.ready(plan)
    x = session.samples.split(split).x[:samples]
    found = saturations(session.source.model, session.applier.tap(plan), [x])
    return {"samples": samples, "rows": rows_of(found)}


def saturation_warnings(found: Mapping[str, Any], target: str | None = None) -> list[str]:
    """Sentences for the user from what `saturated` returned; `target` is the runtime that will
    serve the plan."""
    runtime = "vLLM" if target in SERVED_BY_VLLM else ""
    return sentences(found["rows"], found["samples"], runtime)


def profiled_ranges(session: Session, schemes: Iterable[str], stop: int) -> list[str]:
    """Warnings for every profiled scheme that needs no calibration, with all states kept in it."""
    states = [n for n, s in session.source.model.sites.items() if s.kind is Kind.STATE]
    warnings = []
    for scheme in map(parse, schemes):
        if not scheme.scaled:
            found = saturated(session, dict.fromkeys(states, scheme), "search", stop)
            warnings += saturation_warnings(found)
    return warnings


def chosen_ranges(session: Session, found: Mapping[str, Any]) -> list[str]:
    """Warnings of the plans that a search chose."""
    names = dict.fromkeys(c["candidate"] for c in found["chosen"] if c["candidate"])
    plans = {c["name"]: c["plan"] for c in found["candidates"]}
    sites, warnings = session.source.model.sites.values(), []
    for name in names:
        rows = saturated(session, from_json(plans[name]).resolve(sites), "search", found["n"])
        told = saturation_warnings(rows, found["target"])
        warnings += [f"{name}: {sentence}" for sentence in told]
    return warnings
