"""Export: a chosen plan of a run as a folder that loads anywhere."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from sensprobe.errors import RunError, UsageError
from sensprobe.evaluate import Score
from sensprobe.export import CardFacts, UniformFacts, export_model
from sensprobe.plan import Plan, from_json
from sensprobe.runs import Run
from sensprobe.steps.pricing import cost
from sensprobe.workbench import Workbench


def plan_of(run: Run, name: str) -> tuple[Plan, dict[str, Any], dict[str, Any] | None]:
    """The plan a name stands for in a run: a candidate's name, or the label of a budget.

    Returns the plan, the candidate, and its confirmed numbers where there are any.
    """
    search = run.read_result("search")
    if not isinstance(search, dict):
        raise RunError(
            f"{run.path} holds no search result. "
            f"Run `sensprobe search --run {run.path} --budget …` first."
        )
    by_budget = {choice["budget"]: choice["candidate"] for choice in search["chosen"]}
    wanted = by_budget.get(name, name)
    candidates = {candidate["name"]: candidate for candidate in search["candidates"]}
    if wanted is None or wanted not in candidates:
        known = ", ".join([*by_budget, *(c for c in by_budget.values() if c)])
        raise UsageError(
            f"this run has no plan {name!r}. Chosen plans: {known or 'none'}; every candidate is "
            f"listed by `sensprobe report --run {run.path}`."
        )
    confirmation = run.read_result("confirmation")
    confirmed = None
    if isinstance(confirmation, dict):
        found = [p for p in confirmation["plans"] if p["candidate"] == wanted]
        confirmed = found[0] | {"baseline": confirmation["baseline"]} if found else None
    return from_json(candidates[wanted]["plan"]), candidates[wanted], confirmed


def export(bench: Workbench, name: str, out: Path, *, overwrite: bool = False) -> dict[str, Any]:
    """Write the artefact of a run's plan to `out`; returns where it lies and what it weighs.

    RunError if its bytes differ from what the cost model said, which would be a defect here.
    """
    if bench.run is None:
        raise UsageError("an export takes its plan from a run: give --run DIR.")
    plan, candidate, confirmed = plan_of(bench.run, name)
    resolved = plan.resolve(bench.source.model.sites.values())
    bench.ready(resolved)
    search = bench.run.read_result("search")
    batch = search["batch"] if isinstance(search, dict) else 1
    result = export_model(
        bench.source.model,
        resolved,
        bench.applier,
        out,
        name=f"{bench.source.name}-{candidate['name']}",
        card=_facts(bench, confirmed, batch),
        overwrite=overwrite,
    )
    predicted = cost(bench.source, resolved, batch)
    if result.weight_bytes != predicted["weight_bytes"]:
        raise RunError(
            f"the exported tensors weigh {result.weight_bytes} bytes and the cost model said "
            f"{predicted['weight_bytes']}: please report this as a defect."
        )
    return {
        **{key: value for key, value in asdict(result).items() if key != "path"},
        "path": str(result.path),
        "plan": candidate["name"],
        "data": bench.dataset.name,
        "cost": predicted,
        "confirmed": confirmed,
    }


def _facts(bench: Workbench, confirmed: Mapping[str, Any] | None, batch: int) -> CardFacts:
    known: dict[str, Any] = {}
    if confirmed is not None:
        known = {
            "confirmed": Score(**confirmed["metric"]),
            "baseline": Score(**confirmed["baseline"]),
            "difference": Score(**confirmed["loss"]),
        }
        if rival := confirmed["against_uniform"]:
            known["uniform"] = UniformFacts(
                rival["uniform"], rival["total_bytes"], Score(**rival["metric"])
            )
    return CardFacts(
        task=bench.dataset.task,
        metric=bench.metric_label,
        data=bench.dataset.name,
        data_fingerprint=bench.dataset.fingerprint,
        source=bench.source.name,
        batch=batch,
        **known,
    )
