"""Export for another runtime: a model under a plan as a folder that loads there."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from sensprobe.checkpoints.to_hf import hf_document
from sensprobe.data.special import IDS, as_written, model_ids
from sensprobe.export.runtimes import (
    Fit,
    Written,
    fit,
    grouped,
    require_family,
    runtime_named,
    write_for,
)
from sensprobe.export.runtimes.card import anew_text
from sensprobe.jobs.export import batch_of, exported, text_files
from sensprobe.jobs.saturation import saturated, saturation_warnings
from sensprobe.plans.sites import Kind
from sensprobe.session.plans import PlanLike
from sensprobe.session.session import Session
from sensprobe.session.source import Source


def export_for(
    session: Session, plan: PlanLike, target: str, out: Path, *, overwrite: bool = False
) -> dict[str, Any]:
    """Write what `jobs.export.exported` finds to `out` as `target` reads it; returns what it keeps
    and what it drops.

    `dropped` are rows of sites that do not become what the plan says, `narrowed` of sites it left
    exact that the runtime keeps in fewer bits. `warnings` say which states leave the range of the
    format it keeps them in. Raises UsageError for a target there is not or a
    plan it can express nothing of, UnsupportedError for a model it does not know.
    """
    runtime = runtime_named(target)
    require_family(runtime, session.source.model)
    hf_document(session.source.model)
    chosen, found, candidate, confirmed = exported(session, plan)
    model = chosen.source.model
    resolved = found.resolve(model.sites.values())
    fitted = fit(runtime, model, resolved)
    chosen.calibration.ready(resolved)
    batch = batch_of(session)
    written = write_for(
        fitted,
        chosen.applier,
        out,
        name=f"{session.source.name}-{candidate['name']}",
        batch=batch,
        overwrite=overwrite,
        text_files=text_files(session.source, model_config=True),
        ids=_token_ids(session.source),
    )
    states = {n: s for n, s in fitted.plan.items() if model.sites[n].kind is Kind.STATE}
    beyond = saturated(chosen, dict(resolved) | states, "search")
    known = {
        "plan": candidate["name"],
        "batch": batch,
        "confirmed": confirmed,
        "saturated": beyond,
        "warnings": saturation_warnings(beyond, target),
    }
    return _document(fitted, written) | known


def _token_ids(source: Source) -> dict[str, Any]:
    """The entries of config.json for the tokens that start, end and pad a text.

    They are those of the model's own config.json of transformers, word for word; one that has none
    leaves them out here too, so that the same defaults apply. For a model without such a file they
    come from its tokenizer, with null for a token it lacks, because the defaults of transformers
    belong to another tokenizer.
    """
    folder = source.path if source.path.is_dir() else source.path.parent
    if (own := model_ids(folder)) is not None:
        return own
    reader = source.tokenizer
    if reader is None or reader.file is None:
        return dict.fromkeys(IDS)
    ids = (reader.start("")[:1], reader.ends, reader.named("pad"))
    return {key: as_written(some) if some else None for key, some in zip(IDS, ids, strict=True)}


def _document(fitted: Fit, written: Written) -> dict[str, Any]:
    rows = grouped(fitted.model, fitted.changes)
    return {
        "path": str(written.path),
        "target": fitted.runtime.name,
        "about": fitted.runtime.about,
        "weight_bytes": {"plan": written.weight_bytes[0], "here": written.weight_bytes[1]},
        "state_bytes": {"plan": written.state_bytes[0], "here": written.state_bytes[1]},
        "folder_bytes": written.folder_bytes,
        "quantized": len(fitted.layouts),
        "dropped": [row for row in rows if row["dropped"]],
        "narrowed": [row for row in rows if not row["dropped"]],
        "rounded_anew": {"tensors": fitted.rounded_anew(), "about": anew_text(fitted)},
        "use": list(written.use),
    }
