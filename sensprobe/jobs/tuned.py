"""The tuned models of a run: folders `RUN/tuned/NAME`, and the result `tuned`, a row a plan.

    RUN/tuned/NAME/weights.safetensors    the checkpoint, beside plan.json and tuned.json
    RUN/results/tuned.json                of every tuned plan its bytes and scores, and its folder

A run may come from someone else: a folder that a row names is opened where it lies within the run,
without links, and where the weights in it are those that were tuned.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from sensprobe.documents.files import inside, require_no_link
from sensprobe.errors import RunError, UsageError
from sensprobe.evaluate import Evaluator, outcomes
from sensprobe.jobs.plan_files import safe_name
from sensprobe.plans.plan import Plan, Resolved, fingerprint, from_json
from sensprobe.runs import Run, lease
from sensprobe.session.plans import PlanLike
from sensprobe.session.session import Session
from sensprobe.session.source import open_model
from sensprobe.train.snapshot import WEIGHTS

FOLDER = RESULT = "tuned"
PREFIX = "tuned/"
"""What stands before the name of a tuned model where a plan of a run is named: `tuned/12KiB`."""
KEPT = (
    "name",
    "candidate",
    "asked_fingerprint",
    "plan_fingerprint",
    "weights_fingerprint",
    "radius",
    "radius_before",
    "teacher",
    "epochs",
    "steps",
    "seconds",
    "splits",
    "warnings",
)
"""What a row has of the document of a tuning, as it stands there: `asked_fingerprint` is the plan's
that was asked for, `plan_fingerprint` that with the ranges learned and without GPTQ."""
SIZES = ("batch", "weight_bytes", "state_bytes", "total_bytes", "effective_bits")


class Tuned(NamedTuple):
    """A tuned model of a run: its own session, without the run, its plan and its row."""

    session: Session
    plan: Plan
    row: Mapping[str, Any]


def folder_of(run: Run, name: str) -> Path:
    """The folder that a plan of that name is tuned into; RunError where it is a link."""
    return require_no_link(require_no_link(run.path / FOLDER) / safe_name(name))


def tuned_rows(run: Run) -> list[dict[str, Any]]:
    """The rows of the result `tuned`, the latest last; RunError where it is damaged."""
    document = run.read_result(RESULT)
    return document["plans"] if isinstance(document, dict) else []


def keep_tuned(run: Run, document: Mapping[str, Any], plan: Plan, folder: Path) -> dict[str, Any]:
    """Give the result `tuned` the row of a tuning, from its document; returns the row.

    It takes the place of a row of the plan that was asked for, and of one whose folder was used
    again.
    """
    inner, outer = folder.resolve(), run.path.resolve()
    within = inner.is_relative_to(outer)
    row = {
        **{key: document[key] for key in KEPT},
        "plan": plan.to_json(),
        "folder": inner.relative_to(outer).as_posix() if within else str(inner),
        **{key: document["cost"][key] for key in SIZES},
    }
    with lease.held(run.path, RESULT, lambda: None):
        others = [
            other
            for other in tuned_rows(run)
            if all(other[key] != row[key] for key in ("asked_fingerprint", "folder"))
        ]
        head = {key: document[key] for key in ("metric", "metric_info", "sign", "radius_name")}
        run.write_result(RESULT, {**head, "plans": [*others, row]})
    return row


def tuned_row(run: Run, name: str) -> dict[str, Any]:
    """The latest row of that name: a budget or a plan, with or without `tuned/` before it."""
    rows, wanted = tuned_rows(run), name.removeprefix(PREFIX)
    for row in reversed(rows):
        if wanted in (row["name"], row["candidate"]) or wanted == safe_name(row["name"]):
            return row
    known = ", ".join(PREFIX + row["name"] for row in rows) or "none"
    raise UsageError(
        f"{run.path} has no tuned model {name!r}. Tuned models: {known}; "
        f"`sensprobe tune --run {run.path} --plan PLAN` makes one."
    )


def open_tuned(session: Session, name: str) -> Tuned:
    """A tuned model of a session's run, opened on the same data.

    UsageError where the run has none of that name, RunError where its folder holds other weights.
    """
    assert session.run is not None
    row = tuned_row(session.run, name)
    weights = _weights(session.run, row)
    opened = opened_as(session, weights)
    source = opened.source
    plan = from_json(row["plan"], f"{session.run.path}: the plan of {PREFIX}{row['name']}")
    resolved = plan.resolve(source.model.sites.values())
    found = source.fingerprint, fingerprint(resolved)
    if found != (row["weights_fingerprint"], row["plan_fingerprint"]):
        raise RunError(
            f"{weights} is not the model that was tuned as {row['name']} ({source.fingerprint}, "
            f"and {row['weights_fingerprint']} was tuned): run `sensprobe tune` for it again."
        )
    return Tuned(opened, plan, row)


def opened_as(session: Session, weights: Path) -> Session:
    """A session of other weights on the same data, without a run."""
    return Session(open_model(weights), session.dataset, progress=session.progress,
                   headline=session.headline, data_seed=session.data_seed)  # fmt: skip


def tuned_arrays(
    before: Session, after: Session, plan: Resolved, split: str, stop: int
) -> Mapping[str, np.ndarray]:
    """The arrays of a tuned model, session `after`, under its plan. Where outputs are compared with
    full precision, it is that of the model before tuning."""
    if not before.headline.scores_divergence:
        return after.measure(plan, split, 0, stop, "tuned")
    after.calibration.ready(plan)
    outputs = after.local.evaluator(split).outputs(plan, 0, stop)
    compared = before.local.evaluator(split)
    assert isinstance(compared, Evaluator)  # text is refused
    base, y = compared.baseline(0, stop), before.samples.split(split).y[:stop]
    return outcomes(before.dataset.task, outputs, y, base, more=before.more_arrays)


def is_tuned(plan: str) -> bool:
    """True if a plan that is named in a run is a tuned model: `tuned/12KiB`."""
    return plan.startswith(PREFIX) and not plan.endswith(".json")


def as_tuned(session: Session, plan: PlanLike | None) -> tuple[Session, PlanLike | None]:
    """Both as they are; where the plan, or the first of several, names a tuned model of the
    session's run, the session of that model and its plan."""
    first, *others = plan if isinstance(plan, list | tuple) else [plan]
    if session.run is None or not isinstance(first, str) or not is_tuned(first):
        return session, plan
    tuned = open_tuned(session, first)
    return tuned.session, [tuned.plan, *others]


def _weights(run: Run, row: Mapping[str, Any]) -> Path:
    """The checkpoint of a row, in its folder within the run."""
    told = Path(row["folder"])
    if told.is_absolute():
        raise RunError(
            f"{row['name']} was tuned into {told}, outside of {run.path}, and a run is not "
            f"followed out of its folder. Move that folder to {folder_of(run, row['name'])} and "
            "run the same `sensprobe tune` without --out: it trains nothing anew."
        )
    path = run.path
    for part in (*told.parts, WEIGHTS):
        path = inside(path, part)
    if not path.is_file():
        raise RunError(f"{path} is gone: run `sensprobe tune` for {row['name']} again.")
    return path
