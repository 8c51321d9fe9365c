"""Tune: train a model under a plan, and prove on unseen data what that gained."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from sensprobe.checkpoints import parameters
from sensprobe.checkpoints.own import Parameters
from sensprobe.data import check_limit
from sensprobe.documents.files import disk_errors, strict_json, write_whole
from sensprobe.errors import DataError, UsageError
from sensprobe.evaluate import Evaluator, Score, mean, outcomes, paired, score_document
from sensprobe.jobs.cost import cost
from sensprobe.jobs.tuned import PREFIX, folder_of, keep_tuned, tuned_rows
from sensprobe.memory import free_bytes, room
from sensprobe.models import family_of
from sensprobe.plans.plan import Plan, Resolved, fingerprint
from sensprobe.plans.scheme import Rounding, Scheme
from sensprobe.session.session import Session
from sensprobe.session.source import Source, open_model
from sensprobe.train import Progress, Recipe, Trained, record, train_task
from sensprobe.train.method import Method
from sensprobe.train.parametrization import (
    Params,
    is_invariant,
    parametrized,
    stability,
    with_weights,
)
from sensprobe.train.ram import StepBytes, recomputed
from sensprobe.train.ranges import told
from sensprobe.train.recipe import Data, Optimizer, Schedule
from sensprobe.train.snapshot import SNAPSHOT, WEIGHTS
from sensprobe.train.tune import TuneTask
from sensprobe.train.under import UnderPlan
from sensprobe.units import size_text

PLAN, RESULT = "plan.json", "tuned.json"
NAME = 200
"""Characters of a plan's name that are kept."""
HELD_OUT = {"language": 64}
"""The most held-out samples that are scored after every leg; of other tasks `MOST_HELD_OUT`."""
MOST_HELD_OUT = 1000


@dataclass(frozen=True, slots=True)
class TuneSettings:
    """The choices of a tuning. `teacher` is "none", "self" (the model at full precision) or a
    MODEL; "" takes labels where there are some, and else "self". Training ends
    after `max_steps` where `epochs` are longer."""

    epochs: int = 3
    max_steps: int | None = None
    lr: float = 2e-3
    ssm_lr: float = 5e-4
    batch: int = 50
    average: float = 0.99
    warmup: float = 0.05
    teacher: str = ""
    seed: int = 0
    method: Method = field(default_factory=Method)

    def __post_init__(self) -> None:
        rules = {
            f"--epochs must be at least 1, not {self.epochs}": self.epochs >= 1,
            f"--max-steps must be at least 1, not {self.max_steps}": self.max_steps is None
            or self.max_steps >= 1,
            f"--batch must be at least 1, not {self.batch}": self.batch >= 1,
            f"--lr and --ssm-lr must be above 0, not {self.lr} and {self.ssm_lr}": min(
                self.lr, self.ssm_lr
            )
            > 0,
            f"--average must be at least 0 and below 1, not {self.average}": 0 <= self.average < 1,
            f"--warmup must be at least 0 and below 1, not {self.warmup}": 0 <= self.warmup < 1,
            f"--seed must not be negative, not {self.seed}": self.seed >= 0,
        }
        if broken := [rule for rule, holds in rules.items() if not holds]:
            raise UsageError(f"{'; '.join(broken)}.")


def tune(
    session: Session,
    plan: Plan,
    out: Path | None,
    settings: TuneSettings,
    *,
    name: str = "",
    start: Path | None = None,
    limit: int | None = None,
    resume: bool = True,
    progress: Callable[[Progress], None] = lambda progress: None,
) -> dict[str, Any]:
    """Train the session's model under a plan: the document that is kept as OUT/tuned.json.

    OUT gets weights.safetensors, an own checkpoint, and plan.json, which together evaluate, search
    and export as any model and plan. Goes on after the last whole leg unless `resume` is False. The
    search and the confirmation split score full precision, the plan before, and the plan after, the
    last two paired, on `limit` samples of each where it is given. A session's run gets a row in its
    result `tuned`, under `name` (the plan's own if it is ""), and OUT is its folder of that name if
    it is None: see `jobs.tuned`. Training goes on from the weights of `start`, a checkpoint of the
    same sizes, where it is given.

    Raises UsageError for an exported model, SchemeError for a plan nothing can be trained under,
    DataError where there is nothing to train or to judge on, CapacityError where a step finds no
    room.
    """
    source, data = session.source, session.dataset
    if source.artefact is not None:
        raise UsageError(
            f"{source.name} is an exported model: its full-precision weights are not here. Tune "
            "the model it was made from."
        )
    resolved = plan.resolve(source.model.sites.values())
    if not resolved:
        raise UsageError(
            "tune trains under a plan, and this one rounds nothing: give --plan PLAN or --set "
            "PATTERN=SCHEME. `train` trains without."
        )
    if missing := [s for s in ("train", "search", "confirmation") if s not in data.splits]:
        text = " Of text, part=train+held-out makes all of them." * (data.task == "language")
        raise DataError(
            f"{data.name} has no {' and no '.join(missing)} split: tuning trains on `train`, and "
            f"`search` and `confirmation` judge it.{text}"
        )
    for split in ("search", "confirmation") if limit is not None else ():
        check_limit(split, data.splits.count(split), limit)
    if session.headline.scores_divergence and data.task == "language":
        raise UsageError(
            f"the {session.headline.label} of a tuned model of text from the model before is not "
            "scored: leave --metric out."
        )
    searched, name = _searched(session), (name or plan.name or "plan")[:NAME]
    if out is None:
        if session.run is None:
            raise UsageError("tune writes a folder: name it with --out, or a run with --run.")
        out = folder_of(session.run, name)
    _require_elsewhere(source.path, out, resume)
    done = train_under(session, plan, settings, out, start=start, resume=resume, progress=progress)
    trained, kept = done.trained, done.plan
    after = kept.resolve(source.model.sites.values())
    write_whole(out / PLAN, strict_json(kept.to_json()))
    tuned = opened_as(session, trained.weights)
    tuned.samples = session.samples
    found = {
        split: _scores(session, tuned, resolved, after, split, limit)
        for split in ("search", "confirmation")
    }
    last, mark = found["confirmation"]["after"], fingerprint(after)
    record(trained.weights, {
        "metric": session.headline.label, "value": last["value"], "stderr": last["stderr"],
        "n": last["n"], "split": "confirmation", "plan": mark,
    })  # fmt: skip
    document = {
        "name": name,
        "candidate": searched.candidates.get(fingerprint(resolved)),
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
        "start": None if start is None else str(start),
        "steps": int(trained.history[-1]["steps"]),
        "epochs": done.epochs,
        "ram": done.ram,
        "seconds": trained.seconds,
        "parameters": trained.parameters,
        "history": [dict(entry) for entry in trained.history],
        "cost": cost(source.outline, after, searched.batch),
        "radius": tuned.applier.spectral_radius(after),
        "radius_before": session.applier.spectral_radius(resolved),
        "radius_name": source.model.radius_name,
        "splits": found,
        "warnings": _warnings(session, found),
    }
    if is_invariant(source.model.config):
        _tell_stability(document, {"before": (session, resolved), "after": (tuned, after)})
    write_whole(out / RESULT, strict_json(document))
    if session.run is not None:
        keep_tuned(session.run, document, kept, out)
    return document


class TrainedUnder(NamedTuple):
    """Trained weights, and the plan that goes with them (without GPTQ, with the ranges learned);
    the epochs they took, and what RAM a step."""

    trained: Trained
    plan: Plan
    epochs: float
    ram: Mapping[str, Any]


def train_under(
    session: Session,
    plan: Plan,
    settings: TuneSettings,
    out: Path,
    *,
    start: Path | None = None,
    resume: bool = True,
    progress: Callable[[Progress], None] = lambda progress: None,
) -> TrainedUnder:
    """Train the session's model under a plan, and leave OUT/weights.safetensors, no more."""
    sites, trained_plan = session.source.model.sites.values(), without_gptq(plan)
    task = _task(session, plan.resolve(sites), trained_plan.resolve(sites), settings, start)
    step, free = task.step_bytes(), free_bytes()
    with room(step.least(task.batch), free, *_no_room(task, step, free)):
        task.under.layer = step.layer(task.batch, free)
        ram = _ram(task, step)
        session.progress.note(_told(task, ram))
        if not resume:
            _drop_documents(out)
        trained = train_task(task, out, progress=progress, resume=resume)
    learned = task.under.tuned(trained.average)
    ranges = tuple((n, scheme) for n, scheme in learned.items() if scheme != task.under.plan[n])
    kept = Plan((*trained_plan.entries, *ranges), plan.name)
    return TrainedUnder(trained, kept, task.total / task.epoch_steps, ram)


def opened_as(session: Session, weights: Path) -> Session:
    """A session of other weights on the same data, without a run."""
    return Session(open_model(weights), session.dataset, progress=session.progress,
                   headline=session.headline, data_seed=session.data_seed)  # fmt: skip


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


def _drop_documents(out: Path) -> None:
    """Remove what an earlier tuning wrote of itself at its end: it would stand beside weights that
    are not finished."""
    for name in (PLAN, RESULT):
        with disk_errors(out / name, "removing"):
            (out / name).unlink(missing_ok=True)


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


def without_gptq(plan: Plan) -> Plan:
    """The plan with weights rounded to nearest that it has rounded by GPTQ."""
    return Plan(tuple((at, nearest(scheme)) for at, scheme in plan.entries), plan.name)


def nearest(scheme: Scheme) -> Scheme:
    gptq = scheme.rounding is Rounding.GPTQ
    return replace(scheme, rounding=Rounding.NEAREST) if gptq else scheme


def _from_gptq(session: Session, plan: Resolved, start: Params, config: Any) -> Params:
    """The parameters with what GPTQ makes of the weights that a plan rounds by it."""
    named = {n: s for n, s in plan.items() if s.rounding is Rounding.GPTQ}
    if not named:
        return start
    session.progress.note(
        f"{len(named)} weight(s) start from what gptq makes of them; they are trained, and kept, "
        "as rounded to nearest"
    )
    applier = session.calibration.ready(plan)
    return with_weights(start, config, applier.partial_tap(named).weights)


def _task(
    session: Session, asked: Resolved, plan: Resolved, settings: TuneSettings, go_on: Path | None
) -> TuneTask:
    """The task of a plan; `asked` is the same before GPTQ was left out, `go_on` the checkpoint that
    training goes on from."""
    source, data, calibration = session.source, session.dataset, session.calibration
    stored = parameters(source.path, source.norm) if go_on is None else _stored(go_on, source)
    start, config = parametrized(stored.tensors, stored.config, settings.method.parametrization)
    if go_on is None:
        start = _from_gptq(session, asked, start, config)
    optimizer = Optimizer(settings.lr, settings.ssm_lr, 0.0, settings.batch, settings.average)
    schedule = Schedule(settings.epochs, settings.warmup)
    recipe = Recipe(config, Data(data.name), optimizer, schedule, seed=settings.seed)
    watched = calibration.fingerprint(plan)
    sequences = calibration.sequences(plan) if watched else None
    under = UnderPlan(plan, config, sequences, method=settings.method)
    if settings.method.ranges == "learned":
        session.progress.note(told(plan, source.model.sites))
    validation, teacher = data.splits["search"], _teacher(session, settings)
    marks = {"asked": fingerprint(asked), "model": source.fingerprint, "calibration": watched,
             "teacher": "" if teacher is None else teacher.fingerprint}  # fmt: skip
    if go_on is not None:
        marks["start"] = open_model(go_on).fingerprint
    return TuneTask(
        recipe, data.task, data.splits["train"], validation, under, start,
        min(HELD_OUT.get(data.task, MOST_HELD_OUT), len(validation)),
        None if teacher is None else teacher.model, marks, settings.max_steps,
    )  # fmt: skip


def _stored(path: Path, model: Source) -> Parameters:
    """The parameters of a checkpoint; UsageError where it is of other sizes than the model."""
    found = parameters(path)
    if family_of(found.config).sites(found.config) != dict(model.model.sites):
        raise UsageError(
            f"{path} is of other sizes than {model.name}: training goes on from weights that "
            "`sensprobe tune` made of it."
        )
    return found


def _size(task: TuneTask) -> str:
    """The size of a step: batch × length."""
    return f"{task.batch:,} × {task.train.x.shape[1]:,}"


def _ram(task: TuneTask, step: StepBytes) -> dict[str, Any]:
    """The bytes that a step takes and whether layers are recomputed, as the document has it."""
    again = task.under.layer is recomputed
    needed = step.least(task.batch) if again else step.kept(task.batch)
    return {"step_bytes": needed, "layers": "recomputed" if again else "kept"}


def _told(task: TuneTask, ram: Mapping[str, Any]) -> str:
    layers = "; layers are recomputed" if ram["layers"] == "recomputed" else ""
    return f"a step of {_size(task)} takes about {size_text(ram['step_bytes'])} of RAM{layers}"


def _no_room(task: TuneTask, step: StepBytes, free: int | None) -> tuple[str, str]:
    """What needs room, and the advice where there is none."""
    fits = step.fitting(free or 0)
    advice = f"--batch {fits:,} would fit." if fits else "No batch fits: take shorter samples."
    return f"a step of {_size(task)}", advice


def _teacher(session: Session, settings: TuneSettings) -> Source | None:
    """The model whose outputs are learnt; None where labels alone are."""
    name = settings.teacher or ("self" if session.dataset.task == "unlabelled" else "none")
    if name == "none":
        return None
    teacher = session.source if name == "self" else open_model(name)
    theirs, ours = teacher.model.config, session.source.model.config
    if (theirs.d_input, theirs.d_output) != (ours.d_input, ours.d_output):
        raise UsageError(
            f"the teacher {name} takes {theirs.d_input} inputs and gives {theirs.d_output} "
            f"outputs; the model takes {ours.d_input} and gives {ours.d_output}."
        )
    return teacher


def _scores(
    before: Session,
    after: Session,
    plan: Resolved,
    tuned_plan: Resolved,
    split: str,
    limit: int | None,
) -> dict[str, Any]:
    """Scores of a split: full precision, the plan on the model before, the plan that tuning ended
    with on the model after, and the paired difference of the two."""
    stop = before.samples.use(split, limit)
    for session in (before, after):
        session.divergence = session.headline.scores_divergence
    groups, primary = before.samples.groups(split, stop), before.headline.primary
    before.progress.begin(f"scoring on {stop:,} {split} samples", 3 * stop)
    try:
        full = before.measure({}, split, 0, stop, "baseline")[primary]
        rounded = before.measure(plan, split, 0, stop, "untuned")[primary]
        tuned = tuned_arrays(before, after, tuned_plan, split, stop)[primary]
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


def _warnings(session: Session, found: Mapping[str, Any]) -> list[str]:
    """What must be said: a tuned model that is worse on the search split than it was before."""
    gained = found["search"]["gained"]
    if session.headline.sign * gained["value"] >= 0:
        return []
    certain = "" if Score(**gained).differs() else ", within the error"
    return [
        f"the tuned model scores worse on the search split than the plan did before{certain}: more "
        "epochs, or lower learning rates (--lr, --ssm-lr)"
    ]
