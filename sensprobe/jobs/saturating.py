"""What leaves the range of its float format under a plan, on the first samples of a split."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from sensprobe.evaluate import SEQUENCES, rows_of, saturations, sentences, watched
from sensprobe.plans.plan import from_json
from sensprobe.plans.scheme import Scheme, parse
from sensprobe.plans.sites import Kind
from sensprobe.session.workbench import Workbench

SERVED_BY_VLLM = frozenset({"vllm", "modelopt"})
"""Targets whose states are kept by vLLM, in caches that do not saturate."""


def saturated(
    bench: Workbench, plan: Mapping[str, Scheme], split: str, stop: int = SEQUENCES
) -> dict[str, Any]:
    """Rows of what leaves its range (see `evaluate.saturation`), and how many samples were watched:
    the first ones, at most `stop`."""
    sites = bench.source.model.sites
    samples = min(stop, SEQUENCES, bench.dataset.splits.count(split))
    if not any(watched(sites[name], scheme) for name, scheme in plan.items()):
        return {"samples": samples, "rows": []}
    bench.ready(plan)
    x = bench.samples(split).x[:samples]
    found = saturations(bench.source.model, bench.applier.tap(plan), [x])
    return {"samples": samples, "rows": rows_of(found)}


def saturation_warnings(found: Mapping[str, Any], target: str | None = None) -> list[str]:
    """Of what `saturated` returned, for a user; `target` is the runtime it is meant for."""
    runtime = "vLLM" if target in SERVED_BY_VLLM else ""
    return sentences(found["rows"], found["samples"], runtime)


def profiled_ranges(bench: Workbench, schemes: Iterable[str], stop: int) -> list[str]:
    """Warnings of every profiled scheme that needs no calibration, all states kept in it."""
    states = [n for n, s in bench.source.model.sites.items() if s.kind is Kind.STATE]
    warnings = []
    for scheme in map(parse, schemes):
        if not scheme.scaled:
            found = saturated(bench, dict.fromkeys(states, scheme), "search", stop)
            warnings += saturation_warnings(found)
    return warnings


def chosen_ranges(bench: Workbench, found: Mapping[str, Any]) -> list[str]:
    """Warnings of the plans that a search chose."""
    names = dict.fromkeys(c["candidate"] for c in found["chosen"] if c["candidate"])
    plans = {c["name"]: c["plan"] for c in found["candidates"]}
    sites, warnings = bench.source.model.sites.values(), []
    for name in names:
        rows = saturated(bench, from_json(plans[name]).resolve(sites), "search", found["n"])
        told = saturation_warnings(rows, found["target"])
        warnings += [f"{name}: {sentence}" for sentence in told]
    return warnings
