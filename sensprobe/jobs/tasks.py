"""Score one plan on tasks of lm-eval."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sensprobe.errors import UsageError
from sensprobe.evaluate import rows_of, sentences
from sensprobe.evaluate.lm_harness import require
from sensprobe.jobs.cost import cost
from sensprobe.jobs.evaluate import UNSTABLE
from sensprobe.models.apply import Applier
from sensprobe.numerics.taps import EXACT
from sensprobe.plans.plan import fingerprint
from sensprobe.plans.scheme import Scheme
from sensprobe.progress import Progress
from sensprobe.session.source import Source, text_tokenizer

if TYPE_CHECKING:
    from sensprobe.evaluate.lm_harness.model import HarnessModel


@dataclass(frozen=True, slots=True)
class TaskSettings:
    """The tasks to score, and the part of them.

    `data` is the folder whose lm_tasks holds files; `include` one of more YAML; `limit` documents
    of each task; `num_fewshot` solved examples before each question.
    """

    names: tuple[str, ...]
    data: Path | None = None
    include: Path | None = None
    limit: int | None = None
    num_fewshot: int | None = None
    batch: int | None = None


def evaluate_tasks(
    source: Source,
    applier: Applier,
    plan: Mapping[str, Scheme],
    settings: TaskSettings,
    *,
    batch: int = 1,
    compare: bool = False,
    progress: Progress,
) -> dict[str, Any]:
    """lm-eval's scores of a plan on tasks, its cost, and max|A| as stored.

    `applier` is calibrated for the plan. `compare` also runs full precision on the same documents
    and adds to each score the baseline and the paired difference.
    """
    require()
    _check(source, settings, compare)
    from sensprobe.evaluate.lm_harness.model import LOOKED_AT
    from sensprobe.evaluate.lm_harness.results import rows
    from sensprobe.evaluate.lm_harness.running import load_tasks

    model = harness_model(source, applier, plan, settings.batch, progress)
    tell_of_ends(source, progress)
    tasks = load_tasks(
        settings.names,
        progress,
        data=settings.data,
        include=settings.include,
        num_fewshot=settings.num_fewshot,
    )
    found = tasks.run(model, settings.limit)
    base = None
    if compare and plan:
        exact = harness_model(source, applier, {}, settings.batch, progress)
        base = tasks.run(exact, settings.limit)
    radius = applier.spectral_radius(plan)
    return {
        "tasks": rows(found, base),
        "limit": settings.limit,
        "num_fewshot": settings.num_fewshot,
        "lm_eval": version("lm_eval"),
        "cost": cost(source.outline, plan, batch),
        "plan_fingerprint": fingerprint(plan),
        "plan": {name: str(scheme) for name, scheme in plan.items()},
        "model": source.name,
        "model_fingerprint": source.fingerprint,
        "warnings": sentences(rows_of(model.saturated or ()), LOOKED_AT),
        "max_abs_A": radius,
        "radius_name": source.model.radius_name,
        "stable": radius <= UNSTABLE,
    }


def harness_model(
    source: Source,
    applier: Applier,
    plan: Mapping[str, Scheme],
    batch: int | None,
    progress: Progress,
) -> HarnessModel:
    """The model under a plan as lm-eval sees it; `batch` sequences together where it is given.

    UsageError where lm-eval is not installed, DataError for a model that reads no text.
    """
    require()
    from sensprobe.evaluate.lm_harness.model import TOGETHER, HarnessModel

    tokenizer = text_tokenizer(source)
    tap = applier.tap(plan) if plan else EXACT
    return HarnessModel(source.model, tap, tokenizer, source.name, batch or TOGETHER, progress)


def tell_of_ends(source: Source, progress: Progress) -> None:
    """Tell the user where scores differ from lm-eval's: its `hf` model also reads, between a
    context and its continuation, the tokens that a tokenizer puts after every text."""
    if text_tokenizer(source).added[1]:
        progress.note(
            f"the tokenizer of {source.name} ends every text with a token of its own; it is left "
            "out between a context and its continuation, where lm-eval's hf model puts it"
        )


def _check(source: Source, settings: TaskSettings, compare: bool) -> None:
    for name, value in (("limit", settings.limit), ("batch-size", settings.batch)):
        if value is not None and value < 1:
            raise UsageError(f"--{name} {value}: give 1 or more.")
    if settings.num_fewshot is not None and settings.num_fewshot < 0:
        raise UsageError(f"--num-fewshot {settings.num_fewshot}: give 0 or more.")
    if settings.include is not None and not settings.include.is_dir():
        raise UsageError(f"--include {settings.include}: no such folder of task files (.yaml).")
    if compare and source.artefact is not None:
        raise UsageError(
            f"--compare: {source.name} is an exported model, its full-precision weights are not "
            "here. Compare with the model it was made from: sensprobe eval MODEL --plan "
            f"{source.path}/plan.json --compare."
        )
