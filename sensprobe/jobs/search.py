"""Search for plans within budgets."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from sensprobe.documents.files import strict_json
from sensprobe.errors import RunError, UsageError
from sensprobe.evaluate import BATCH
from sensprobe.jobs.compared import measure_compared, presets_that_fit, resolve_compared, samples
from sensprobe.jobs.cost import cost
from sensprobe.jobs.count_states import counting
from sensprobe.jobs.noisy import Noisy
from sensprobe.jobs.plan_files import write_plans
from sensprobe.jobs.problem import Space, build_space
from sensprobe.jobs.runtime_limits import limits_of
from sensprobe.jobs.search_document import document_of
from sensprobe.jobs.suggest import check_fit
from sensprobe.packed import Holding
from sensprobe.plans.noise import Draw
from sensprobe.plans.plan import Plan
from sensprobe.plans.scheme import Scheme
from sensprobe.runs import Run
from sensprobe.scores.classes import POOLED
from sensprobe.search import (
    Assignment,
    Budget,
    Sample,
)
from sensprobe.search import search as run_search
from sensprobe.search.exhaustive import check_count
from sensprobe.session.session import Session

EVALUATIONS = 100
"""Full evaluations that a search spends by default."""
ASKED = ("method", "batch", "seed", "n", "evaluations", "budgets", "decisions", "noise")
"""The keys of a search document in which two searches of a run differ."""
EXHAUSTIBLE = 100_000
"""Plans that `exhaustive` enumerates without being told to."""


@dataclass(frozen=True, slots=True)
class SearchSettings:
    """The request of a search. Bytes are integers; a budget's `max_loss` is in points where the
    metric is a share of one (`MetricInfo`), else in the metric's own unit."""

    budgets: tuple[Budget, ...] = ()
    method: str = "gains"
    evaluations: int | None = None  # None: 100, of `exhaustive` as many as there are plans
    seed: int = 0
    batch: int = 1
    limit: int | None = None
    schemes: tuple[Scheme, ...] = ()
    freeze: tuple[tuple[str, Scheme], ...] = ()
    tie: tuple[str, ...] = ()
    target: str | None = None  # a runtime whose limits the plans keep
    count_states: str | None = None  # held (None, without a target) or packed: see `counting`
    also: tuple[Plan, ...] = ()  # measured for comparison; each has a name of its own
    noise: Noisy | None = None  # under which everything is evaluated, full precision too


def sensitivity_of(run: Run) -> dict[str, Any]:
    """The profile a search builds on: the measured one if there is one, else one of divergence,
    else taylor's."""
    for method in ("measured", "divergence", "taylor"):
        found = run.read_result(f"sensitivity-{method}")
        if isinstance(found, dict):
            _require_priced(found, run, f"sensitivity-{method}")
            name = found.get("model_fingerprint", run.manifest.model_fingerprint)
            if name != run.model_name:
                raise RunError(
                    f"the sensitivities in {run.path} are of a model that an older sensprobe "
                    f"called {name}, which cannot be compared with the model here. Run `sensprobe "
                    f"profile` with --run {run.path} again."
                )
            return found
    raise RunError(
        f"{run.path} holds no sensitivities yet. "
        f"Run `sensprobe profile MODEL --data DATA --run {run.path}` first."
    )


def _require_priced(found: Mapping[str, Any], run: Run, name: str) -> None:
    """Raise RunError for a profile that lacks the sites it rounded, or their losses."""
    for place, row in enumerate(found["rows"]):
        lacks = [key for key in ("sites", found["additive"]) if not row.get(key)]
        if lacks:
            raise RunError(
                f"{run.path}/results/{name}.json: rows/{place} lacks {', '.join(lacks)}, which a "
                "search needs; delete it and run `sensprobe profile` with the same --run again."
            )


def search(session: Session, settings: SearchSettings) -> dict[str, Any]:
    """Search for the best plan within each budget.

    Each chosen plan comes with the best uniform plan and the best plan made by hand: that uniform
    plan with its best single upgrade, or one of `settings.also`.

    Plans of `settings.also` are measured on the same samples, in full, and compete for no budget.
    Under noise every plan, and full precision, is run on the same devices, and their mean counts.
    Returns the document kept as `search` in the run. Interrupted, it keeps what is done.
    """
    run = run_of(session)
    if settings.evaluations is not None and settings.evaluations < 1:
        raise UsageError(
            f"--evaluations {settings.evaluations}: at least one plan must be evaluated."
        )
    if not 0 <= settings.seed < 2**32:
        raise UsageError(f"--seed {settings.seed}: give a whole number from 0 to {2**32 - 1}.")
    limits = None if settings.target is None else limits_of(settings.target, session.source.model)
    if limits is not None:
        session.progress.note(limits.about())
    if settings.noise is not None:
        session.draws = _devices(session, settings.noise)
    sensitivity = sensitivity_of(run)
    counts = counting(settings.count_states, Holding(session.source.model), settings.target)
    space = build_space(
        session.source.model.sites,
        sensitivity,
        batch=settings.batch,
        schemes=settings.schemes,
        freeze=settings.freeze,
        tie=settings.tie,
        limits=limits,
        counts=counts,
    )
    for note in counts.notes():
        session.progress.note(note)
    others = resolve_compared(session, settings.also)
    full = cost(session.source.outline, {}, settings.batch)
    budgets = tuple(in_scores(budget, session) for budget in settings.budgets)
    for budget in budgets:
        check_fit(
            space, budget, run, sensitivity, counts=counts, batch=settings.batch, limits=limits
        )
    if not others and (presets := presets_that_fit(session, budgets, settings.batch)):
        session.progress.note(presets)
    stop = session.samples.use("search", settings.limit, raced=True)
    pieces = chunks(stop)
    runs = max(len(session.draws), 1)
    seconds = session.seconds_a_sample("search", stop) * stop * runs
    baseline = [samples(session, [{}], piece, stop)[0] for piece in pieces]
    whole = Sample.join(baseline)
    for budget in settings.budgets:
        check_loss(budget, session, whole)
    session.calibration.expect([*others.values(), *space.options()])
    compared = [
        measure_compared(session, n, p, settings.batch, whole, counts) for n, p in others.items()
    ]
    count = _allowed(space, settings, seconds)

    def evaluate(assignments: Sequence[Assignment], k: int) -> list[Sample]:
        plans = [space.resolved(assignment) for assignment in assignments]
        return samples(session, plans, pieces[k], stop)

    session.progress.begin(
        f"{settings.method} search, at most {count:,} evaluations",
        count * stop * runs,
        seconds * count,
    )
    try:
        found = run_search(
            space.problem,
            budgets,
            evaluate,
            baseline=baseline,
            method=settings.method,  # type: ignore[arg-type]
            evaluations=count,
            seed=settings.seed,
            uniform=space.uniform(),
            storage=run.optuna_path,
            seconds_each=seconds,
            room=session.executor.room,
            full_bytes=int(full["total_bytes"]),
            chance=_chance(session, sensitivity, whole),
        )
    finally:
        session.progress.end()
    document = document_of(session, space, settings, found, whole, count, counts, compared)
    _set_earlier_aside(run, document)
    files = write_plans(run, document)
    for choice in document["chosen"]:
        choice["plan_file"] = files.get(choice["budget"])
    run.write_result("search", document)
    if found.interrupted:
        raise KeyboardInterrupt
    return document


def _devices(session: Session, noise: Noisy) -> tuple[Draw, ...]:
    """The draws that plans are searched under."""
    if session.headline.primary in POOLED:
        raise UsageError(
            f"--noise averages what a sample scores over devices, and {session.headline.label} has "
            "no score of a sample: search in a run that was profiled with accuracy."
        )
    return noise.of(session)


def _allowed(space: Space, settings: SearchSettings, seconds: float) -> int:
    """The number of plans that may be evaluated; UsageError if `exhaustive` would have too many."""
    plans = space.problem.count
    if settings.method != "exhaustive":
        return settings.evaluations or EVALUATIONS
    check_count(
        problem=space.problem, allowed=settings.evaluations or EXHAUSTIBLE, seconds_each=seconds
    )
    return plans


def _chance(session: Session, sensitivity: Mapping[str, Any], baseline: Sample) -> float:
    """The score that a front is measured from: of guessing, else the worst one profiled."""
    if session.headline.chance is not None:
        return session.headline.chance
    best = float(baseline.score.mean())
    told = [(row.get("metric") or {}).get("value") for row in sensitivity["rows"]]
    changes = [session.headline.sign * value for value in told if value is not None]
    return best + min(changes) if changes and min(changes) < 0 else best - max(abs(best), 1.0)


def in_scores(budget: Budget, session: Session) -> Budget:
    """The budget with its loss in the unit of the scores: a point is a hundredth of accuracy."""
    if budget.max_loss is None:
        return budget
    return replace(budget, max_loss=session.headline.info.kept(budget.max_loss))


def check_loss(budget: Budget, session: Session, baseline: Sample) -> None:
    """Raise UsageError for a limit in no declared unit that lets a share of one fall to zero:
    whoever gave it meant points."""
    score, head = baseline.score, session.headline
    if budget.max_loss is None or head.metric is None or head.info.unit or head.sign < 0:
        return
    if score.min() >= 0 and score.max() <= 1 and budget.max_loss >= score.mean():
        raise UsageError(
            f"--max-loss {budget.max_loss:g} would allow any loss: full precision scores "
            f"{score.mean():.4g}, and the metric {head.info.name} declares no unit, so that the "
            f"limit counts in its own numbers. Give {budget.max_loss / 100:g} for what would be "
            f"{budget.max_loss:g} points, or say {head.metric_name}.unit = 'fraction' in the "
            "metric's file and profile into a new run."
        )


def _set_earlier_aside(run: Run, document: Mapping[str, Any]) -> None:
    """Keep the results of another search of this run under names of their own: `search-1`, …

    The same search again replaces its own results.
    """
    earlier = run.read_result("search")
    if not isinstance(earlier, dict):
        return
    asked = json.loads(strict_json({key: document[key] for key in ASKED}))
    if not earlier.get("interrupted") and {key: earlier.get(key) for key in ASKED} != asked:
        number = 1 + sum(name.startswith("search-") for name in run.results())
        for name in ("search", "confirmation"):
            run.set_aside(name, f"{name}-{number}")


def run_of(session: Session) -> Run:
    if session.run is None:
        raise UsageError("a search keeps its evaluations: give --run DIR.")
    return session.run


def chunks(stop: int) -> list[tuple[int, int]]:
    """Disjoint pieces whose unions grow: a batch, then as much again each time."""
    edges, edge = [0], BATCH
    while edge < stop:
        edges.append(edge)
        edge *= 2
    if len(edges) > 1 and stop - edges[-1] < BATCH:
        edges.pop()
    return list(zip(edges, [*edges[1:], stop], strict=True))
