"""Export for another runtime: a chosen plan of a run as a folder that loads there."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from sensprobe.checkpoints.to_hf import hf_document
from sensprobe.errors import UsageError
from sensprobe.export.targets import (
    Fit,
    Written,
    fit,
    grouped,
    require_family,
    target_named,
    write_for,
)
from sensprobe.export.targets.card import anew_text
from sensprobe.steps.exporting import plan_of, tokenizer_of
from sensprobe.workbench import Workbench


def export_for(
    bench: Workbench, name: str, target: str, out: Path, *, overwrite: bool = False
) -> dict[str, Any]:
    """Write a run's plan to `out` as `target` reads it; returns what it keeps and what it drops.

    `dropped` are rows of sites that do not become what the plan says, `narrowed` of sites it left
    exact that the runtime keeps in fewer bits. Raises UsageError for a target there is not or a
    plan it can express nothing of, UnsupportedError for a model it does not know.
    """
    if bench.run is None:
        raise UsageError("an export takes its plan from a run: give --run DIR.")
    chosen, model = target_named(target), bench.source.model
    require_family(chosen, model)
    hf_document(model)
    plan, candidate, confirmed = plan_of(bench.run, name, model.sites)
    resolved = plan.resolve(model.sites.values())
    fitted = fit(chosen, model, resolved)
    bench.ready(resolved)
    search = bench.run.read_result("search")
    batch = search["batch"] if isinstance(search, dict) else 1
    written = write_for(
        fitted,
        bench.applier,
        out,
        name=f"{bench.source.name}-{candidate['name']}",
        batch=batch,
        overwrite=overwrite,
        tokenizer=tokenizer_of(bench),
    )
    known = {"plan": candidate["name"], "batch": batch, "confirmed": confirmed}
    return _document(fitted, written) | known


def _document(fitted: Fit, written: Written) -> dict[str, Any]:
    rows = grouped(fitted.model, fitted.changes)
    return {
        "path": str(written.path),
        "target": fitted.target.name,
        "about": fitted.target.about,
        "weight_bytes": {"plan": written.weight_bytes[0], "here": written.weight_bytes[1]},
        "state_bytes": {"plan": written.state_bytes[0], "here": written.state_bytes[1]},
        "folder_bytes": written.folder_bytes,
        "quantized": len(fitted.layouts),
        "dropped": [row for row in rows if row["dropped"]],
        "narrowed": [row for row in rows if not row["dropped"]],
        "rounded_anew": {"tensors": fitted.rounded_anew(), "about": anew_text(fitted)},
        "use": list(written.use),
    }
