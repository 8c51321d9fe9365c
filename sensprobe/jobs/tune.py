"""Tune: train a model under a plan, and prove on unseen data what that gained."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple

from sensprobe.data import check_limit
from sensprobe.documents.files import strict_json, write_whole
from sensprobe.errors import DataError, UsageError
from sensprobe.evaluate import Score, mean, paired, score_document
from sensprobe.jobs.cost import cost, full_bytes
from sensprobe.jobs.fewer import PrunedTo, fewer
from sensprobe.jobs.train_under import PLAN, RESULT, TrainedUnder, TuneSettings, train_under
from sensprobe.jobs.tune_trials import chosen_by_trials
from sensprobe.jobs.tuned import (
    PREFIX,
    folder_of,
    keep_tuned,
    opened_as,
    tuned_arrays,
    tuned_rows,
)
from sensprobe.plans.noise import resolve
from sensprobe.plans.plan import Plan, Resolved, fingerprint
from sensprobe.session.session import Session
from sensprobe.session.source import Source
from sensprobe.train import Progress, record
from sensprobe.train.parametrization import is_invariant, stability
from sensprobe.train.snapshot import SNAPSHOT, WEIGHTS
from sensprobe.units import limit_bytes

NAME = 200
"""Characters of a plan's name that are kept."""


def tune(
    session: Session,
    plan: Plan,
    out: Path | None,
    settings: TuneSettings,
    *,
    name: str = "",
    limit: int | None = None,
    start: Path | None = None,
    budget: int | str | None = None,
    trials: int = 0,
    pruned_to: PrunedTo | None = None,
    resume: bool = True,
    progress: Callable[[Progress], None] = lambda progress: None,
) -> dict[str, Any]:
    """Train the session's model under a plan: the document that is kept as OUT/tuned.json.

    OUT gets weights.safetensors, an own checkpoint, and plan.json, which together evaluate, search
    and export as any model and plan. Goes on after the last whole leg unless `resume` is False. The
    search and the confirmation split score full precision, the plan before, and the plan after, the
    last two paired, on `limit` samples of each where it is given. A session's run gets a row in its
    result `tuned`, under `name` (if it is "", the plan's own, or `noise` where the plan rounds
    nothing), and OUT is its folder of that name if it is None: see `jobs.tuned`. Training goes on
    from the weights of `start`, a checkpoint of the same sizes, where it is given. With `trials`
    rates and teacher are those of the best of so many short trainings (see `jobs.tune_trials`). A
    plan of more bytes than `budget` is not trained. With `pruned_to` the model that is trained is
    the session's pruned so far (see `jobs.fewer`); full precision is the session's all the same.

    Raises UsageError for an exported model and a budget that is broken, SchemeError for a plan
    nothing can be trained under, DataError where there is nothing to train or to judge on,
    CapacityError where a step finds no room.
    """
    require_tunable(session)
    source, data = session.source, session.dataset
    resolved = plan.resolve(source.model.sites.values())
    noisy = resolve(settings.noise, source.model.sites.values())
    if not (resolved or noisy or pruned_to is not None):
        raise UsageError(
            "tune trains under a plan, and this one rounds nothing: give --plan PLAN, --set "
            "PATTERN=SCHEME, --noise PATTERN=AMOUNT or --prune N. `train` trains without."
        )
    if limit is not None:
        for split in ("search", "confirmation"):
            check_limit(split, data.splits.count(split), limit)
    own = plan.name or "plan" if resolved else "noise" if noisy else "exact"
    ending = "" if pruned_to is None else pruned_to.ending
    searched, name = _searched(session), (name or own)[:NAME] + ending
    if out is None:
        if session.run is None:
            raise UsageError("tune writes a folder: name it with --out, or a run with --run.")
        out = folder_of(session.run, name)
    _require_elsewhere(source.path, out, resume)
    trainee = session if pruned_to is None else fewer(session, pruned_to, out, resume)
    to_train = plan.resolve(trainee.source.model.sites.values())
    _require_within(budget, trainee.source, to_train, searched.batch)
    settings = settings.with_rates(data.task)
    go_on: Any = {"start": start, "resume": resume, "progress": progress}
    tried: list[dict[str, Any]] = []
    if trials:
        settings, tried = chosen_by_trials(trainee, plan, settings, out, trials, **go_on)
    done = train_under(trainee, plan, settings, out, **go_on)
    trained, kept = done.trained, done.plan
    after = kept.resolve(trainee.source.model.sites.values())
    write_whole(out / PLAN, strict_json(kept.to_json()))
    tuned = opened_as(session, trained.weights)
    tuned.samples = session.samples
    found = {
        split: _scores(trainee, tuned, to_train, after, split, limit)
        for split in ("search", "confirmation")
    }
    last, mark = found["confirmation"]["after"], fingerprint(after)
    record(trained.weights, {
        "metric": session.headline.label, "value": last["value"], "stderr": last["stderr"],
        "n": last["n"], "split": "confirmation", "plan": mark,
    })  # fmt: skip
    document = {
        "name": name,
        "candidate": None if pruned_to else searched.candidates.get(fingerprint(resolved)),
        "asked_fingerprint": fingerprint(resolved) + ending,
        "pruned_to": None if pruned_to is None else str(pruned_to),
        "run": None if session.run is None else str(session.run.path),
        "plan_in_run": None if session.run is None else PREFIX + name,
        "weights": str(trained.weights),
        "weights_fingerprint": tuned.source.fingerprint,
        "plan": str(out / PLAN),
        "plan_fingerprint": mark,
        "model": source.name,
        "teacher": settings.teacher,
        "data": data.name,
        "data_seed": session.data_seed,
        "metric": session.headline.label,
        "metric_info": session.headline.info.to_json(),
        "sign": session.headline.sign,
        "lr": settings.lr,
        "ssm_lr": settings.ssm_lr,
        "noise": [[pattern, str(noise)] for pattern, noise in settings.noise],
        "trials": tried,
        "start": None if start is None else str(start),
        "splits": found,
        **_training(trainee, to_train, done, tuned, searched.batch),
        "warnings": _warnings(session, found, noise=bool(settings.noise)),
    }
    if is_invariant(source.model.config):
        _tell_stability(document, {"before": (trainee, to_train), "after": (tuned, after)})
    write_whole(out / RESULT, strict_json(document))
    if session.run is not None:
        keep_tuned(session.run, document, kept, out)
    return document


def _training(
    session: Session, before: Resolved, done: TrainedUnder, tuned: Session, batch: int
) -> dict[str, Any]:
    """What the document says of a training itself, and of the bytes and the radius it ends with."""
    trained, source = done.trained, session.source
    after = done.plan.resolve(source.model.sites.values())
    return {
        "steps": int(trained.history[-1]["steps"]),
        "epochs": done.epochs,
        "ram": done.ram,
        "seconds": trained.seconds,
        "parameters": trained.parameters,
        "history": [dict(entry) for entry in trained.history],
        "cost": cost(source.outline, after, batch),
        "radius": tuned.applier.spectral_radius(after),
        "radius_before": session.applier.spectral_radius(before),
        "radius_name": source.model.radius_name,
    }


def require_tunable(session: Session) -> None:
    """UsageError for an exported model and for a metric that is not scored of a tuned one,
    DataError where there is nothing to train or to judge on."""
    source, data = session.source, session.dataset
    if source.artefact is not None:
        raise UsageError(
            f"{source.name} is an exported model: its full-precision weights are not here. Tune "
            "the model it was made from."
        )
    if missing := [s for s in ("train", "search", "confirmation") if s not in data.splits]:
        text = " Of text, part=train+held-out makes all of them." * (data.task == "language")
        raise DataError(
            f"{data.name} has no {' and no '.join(missing)} split: tuning trains on `train`, and "
            f"`search` and `confirmation` judge it.{text}"
        )
    if session.headline.scores_divergence and data.task == "language":
        raise UsageError(
            f"the {session.headline.label} of a tuned model of text from the model before is not "
            "scored: leave --metric out."
        )


def _require_within(budget: int | str | None, source: Source, plan: Resolved, batch: int) -> None:
    """UsageError for a plan that takes more bytes than the budget."""
    if budget is None:
        return
    limit = limit_bytes(budget, full_bytes(source.outline, batch)["total"])
    if (spent := cost(source.outline, plan, batch)["total_bytes"]) > limit:
        raise UsageError(
            f"the plan takes {spent:,} bytes, {spent - limit:,} more than the budget of {budget} "
            f"({limit:,}): give it narrower schemes, or allow it {spent:,}."
        )


class _Searched(NamedTuple):
    """What tuning takes from the search of a run: plan fingerprint -> candidate, and the batch
    whose states are counted."""

    candidates: Mapping[str, str]
    batch: int


def _searched(session: Session) -> _Searched:
    """RunError, before anything is trained, where the run's search or tuned models are damaged."""
    if session.run is None:
        return _Searched({}, 1)
    tuned_rows(session.run)
    search = session.run.read_result("search")
    if not isinstance(search, dict):
        return _Searched({}, 1)
    known = [*search["candidates"], *(search.get("also") or ())]
    return _Searched({c["plan_fingerprint"]: c["name"] for c in known}, search["batch"])


def _require_elsewhere(model: Path, out: Path, resume: bool) -> None:
    """UsageError where files of OUT are not those of an earlier training, or are the model's."""
    folder = model if model.is_dir() else model.parent
    if model.exists() and folder.resolve() == out.resolve():
        raise UsageError(f"{out} holds the model that is tuned: name another folder with --out.")
    found = [out / name for name in (WEIGHTS, PLAN, RESULT) if (out / name).exists()]
    if found and resume and not (out / SNAPSHOT).exists():
        raise UsageError(
            f"{found[0]} exists and is of no training: name another folder with --out, or replace "
            "it with --restart."
        )


def _scores(
    before: Session,
    after: Session,
    plan: Resolved,
    tuned_plan: Resolved,
    split: str,
    limit: int | None,
) -> dict[str, Any]:
    """Scores of a split: full precision, the plan on the model before, the plan that tuning ended
    with on the model after, and the paired difference of the two. Full precision of a model that
    was pruned is that of the whole one."""
    whole = before.whole or before
    stop = whole.samples.use(split, limit)
    for session in (whole, before, after):
        session.divergence = session.headline.scores_divergence
    groups, primary = whole.samples.groups(split, stop), whole.headline.primary
    before.progress.begin(f"scoring on {stop:,} {split} samples", 3 * stop)
    try:
        full = whole.measure({}, split, 0, stop, "baseline")[primary]
        if before is whole:
            rounded = whole.measure(plan, split, 0, stop, "untuned")[primary]
        else:
            rounded = tuned_arrays(whole, before, plan, split, stop)[primary]
        tuned = tuned_arrays(whole, after, tuned_plan, split, stop)[primary]
    finally:
        before.progress.end()
    robust = before.headline.robust
    return {
        "n": stop,
        "full": score_document(mean(full, groups)),
        "before": score_document(mean(rounded, groups)),
        "after": score_document(mean(tuned, groups)),
        "gained": score_document(paired(tuned, rounded, groups, robust=robust)),
        "left": score_document(paired(tuned, full, groups, robust=robust)),
    }


def _tell_stability(
    document: dict[str, Any], models: Mapping[str, tuple[Session, Resolved]]
) -> None:
    """Add how many |A| are above 1 as stored, before tuning and after, and a warning of these."""
    counts = {name: stability(session.applier, plan) for name, (session, plan) in models.items()}
    document["stability"] = {name: asdict(found) for name, found in counts.items()}
    if above := counts["after"].above:
        document["warnings"].append(
            f"{above} of {counts['after'].values} stored A are above 1 (the largest is "
            f"{counts['after'].largest:.4f}): the tuned recurrence is unstable; --stable keeps "
            "them inside"
        )


def _warnings(session: Session, found: Mapping[str, Any], *, noise: bool) -> list[str]:
    """A warning where the tuned model is worse on the search split than the plan was before; both
    are scored without the noise that there may be in training."""
    gained = found["search"]["gained"]
    if session.headline.sign * gained["value"] >= 0:
        return []
    certain = "" if Score(**gained).differs() else ", within the error"
    if noise:
        return [
            f"without noise the tuned model scores worse on the search split than before{certain}: "
            "`sensprobe eval --noise` says what it keeps under it"
        ]
    return [
        f"the tuned model scores worse on the search split than the plan did before{certain}: more "
        "epochs, or lower learning rates (--lr, --ssm-lr)"
    ]
