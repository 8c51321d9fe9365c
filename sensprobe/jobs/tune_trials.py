"""Trials: short trainings under a plan that choose the rates and the teacher of a long one."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, replace
from math import inf
from pathlib import Path
from typing import Any

from sensprobe.errors import DivergedError, UsageError
from sensprobe.jobs.train_under import TuneSettings, train_under
from sensprobe.plans.plan import Plan
from sensprobe.scores.metrics import INFO, PRIMARY
from sensprobe.search.knobs import Knobs, proposals
from sensprobe.session.session import Session
from sensprobe.train import Progress

FOLDER = "trials"
STEPS = 200
"""The steps of a trial; no more than the training itself."""


def chosen_by_trials(
    session: Session,
    plan: Plan,
    settings: TuneSettings,
    out: Path,
    trials: int,
    *,
    start: Path | None = None,
    resume: bool = True,
    progress: Callable[[Progress], None] = lambda progress: None,
) -> tuple[TuneSettings, list[dict[str, Any]]]:
    """The settings with the rates and the teacher of the best of so many short trainings, and a row
    for each, the best first: its choices, its score on held-out samples of the search split (the
    first up to 1,000), and its seconds. One whose loss is no longer finite has no score and comes
    last; DivergedError where all are like that. A trial has the plan's bits from its first step.

    A teacher that is named is kept. Trainings lie in OUT/trials and go on where they were stopped.
    """
    if trials < 1:
        raise UsageError(f"--trials must be at least 1, not {trials}.")
    teachers = [settings.teacher] if settings.teacher else ["none", "self"]
    if not settings.teacher and session.dataset.task == "unlabelled":
        teachers = ["self"]
    steps = STEPS if settings.max_steps is None else min(STEPS, settings.max_steps)
    method = replace(settings.method, progressive=False)
    sign, rows = INFO[PRIMARY[session.dataset.task]].sign, list[dict[str, Any]]()

    def score(knobs: Knobs) -> float:
        began = time.monotonic()
        tried = replace(settings, **asdict(knobs), max_steps=steps, method=method)
        row: dict[str, Any] = {**asdict(knobs), "value": None, "stderr": None, "n": 0}
        try:
            done = train_under(
                session, plan, tried, out / FOLDER / f"{len(rows):03}",
                start=start, resume=resume, progress=progress,
            ).trained  # fmt: skip
            row |= {"value": done.value, "stderr": done.stderr, "n": done.n}
        except DivergedError:
            if len(rows) + 1 == trials and all(row["value"] is None for row in rows):
                raise
        rows.append(row | {"seconds": time.monotonic() - began})
        return merit(row)

    def merit(row: Mapping[str, Any]) -> float:
        return -inf if row["value"] is None else sign * float(row["value"])

    base = settings.with_rates(session.dataset.task)
    assert base.lr is not None
    assert base.ssm_lr is not None
    first = Knobs(base.lr, base.ssm_lr, teachers[0])
    best = proposals(first, teachers, trials, settings.seed, score)[0][0]
    rows.sort(key=merit, reverse=True)
    return replace(settings, **asdict(best)), rows
