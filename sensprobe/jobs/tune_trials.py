"""Trials: short trainings under a plan that choose the rates and the teacher of a long one."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from sensprobe.errors import UsageError
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
    first up to 1,000), and its seconds.

    A teacher that is named is kept. Trainings lie in OUT/trials and go on where they were stopped.
    """
    if trials < 1:
        raise UsageError(f"--trials must be at least 1, not {trials}.")
    teachers = [settings.teacher] if settings.teacher else ["none", "self"]
    if not settings.teacher and session.dataset.task == "unlabelled":
        teachers = ["self"]
    steps = STEPS if settings.max_steps is None else min(STEPS, settings.max_steps)
    sign, rows = INFO[PRIMARY[session.dataset.task]].sign, list[dict[str, Any]]()

    def score(knobs: Knobs) -> float:
        began = time.monotonic()
        tried = replace(settings, **asdict(knobs), max_steps=steps)
        done = train_under(
            session, plan, tried, out / FOLDER / f"{len(rows):03}",
            start=start, resume=resume, progress=progress,
        ).trained  # fmt: skip
        rows.append({
            **asdict(knobs), "value": done.value, "stderr": done.stderr, "n": done.n,
            "seconds": time.monotonic() - began,
        })  # fmt: skip
        return sign * done.value

    base = settings.with_rates(session.dataset.task)
    assert base.lr is not None
    assert base.ssm_lr is not None
    first = Knobs(base.lr, base.ssm_lr, teachers[0])
    best = proposals(first, teachers, trials, settings.seed, score)[0][0]
    rows.sort(key=lambda row: -sign * row["value"])
    return replace(settings, **asdict(best)), rows
