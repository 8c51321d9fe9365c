"""A model with fewer states inside another job: pruned once, and kept in the job's folder."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from sensprobe.errors import UsageError
from sensprobe.jobs.cost import cost
from sensprobe.jobs.prune import require_prunable, write_pruned
from sensprobe.jobs.tuned import opened_as
from sensprobe.models import family_of
from sensprobe.search import Budget, Size
from sensprobe.session.session import Session

FILE = "pruned.safetensors"
FROM = "pruned_from"
"""What the file records: the fingerprint of the model that was pruned."""


def fewer(session: Session, states: int, folder: Path, resume: bool = True) -> Session:
    """The session of the model with `states` states on the same data: FOLDER/pruned.safetensors,
    made where there is none. A file that is there is used if it is of this model and so many
    states, and UsageError where it is not, unless `resume` is False. Full precision, to a tuning of
    it and where it teaches itself, is the model before.
    """
    require_prunable(session, states)
    path = folder / FILE
    if resume and path.exists():
        found = opened_as(session, path)
        had = found.source.recorded.get(FROM)
        config = replace(session.source.model.config, d_state=states)
        sites = dict(family_of(config).sites(config))
        if (had, dict(found.source.model.sites)) != (session.source.fingerprint, sites):
            raise UsageError(
                f"{path} was pruned of another model, or to other than {states} states: name "
                "another folder, or replace it with --restart."
            )
    else:
        write_pruned(session, states, path, {FROM: session.source.fingerprint})
        found = opened_as(session, path)
    found.samples, found.whole = session.samples, session
    return found


def searchable(model: Session, budgets: Sequence[Budget], batch: int) -> tuple[Budget, ...]:
    """The budgets that a model with fewer states does not fit at full precision; of the others it
    is said that it does not compete."""
    full, states = cost(model.source.outline, {}, batch), model.source.model.config.d_state
    size, kept = Size(full["weight_bytes"], full["state_bytes"]), []
    for budget in budgets:
        if not budget.admits(size):
            kept.append(budget)
            continue
        model.progress.note(
            f"{states} states do not compete within {budget}: at full precision they take "
            f"{size.total:,} bytes, so there is nothing to search. `sensprobe tune --prune "
            f"{states}` trains such a model."
        )
    return tuple(kept)
