"""Training under a plan: from a session, a plan and settings to trained weights in a folder.

`tune` proves them on unseen data; `tune_trials` chooses settings by short trainings.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, NamedTuple

from sensprobe.checkpoints import parameters
from sensprobe.checkpoints.own import Parameters
from sensprobe.documents.files import disk_errors
from sensprobe.errors import UsageError
from sensprobe.jobs.alone import alone_in
from sensprobe.jobs.step_ram import room_for_steps
from sensprobe.models import family_of
from sensprobe.plans.noise import Draw, Entries, resolve
from sensprobe.plans.plan import Plan, Resolved, fingerprint
from sensprobe.plans.scheme import Rounding, Scheme
from sensprobe.session.session import Session
from sensprobe.session.source import Source, open_model
from sensprobe.train import Progress, Recipe, Trained, train_task
from sensprobe.train.method import Method
from sensprobe.train.parametrization import Params, parametrized, with_weights
from sensprobe.train.ranges import told
from sensprobe.train.recipe import Data, Optimizer, Schedule
from sensprobe.train.tune import TuneTask
from sensprobe.train.under import UnderPlan

PLAN, RESULT = "plan.json", "tuned.json"
"""The documents of a tuning beside its weights."""
HELD_OUT = {"language": 64}
"""The most held-out samples that are scored after every leg; of other tasks `MOST_HELD_OUT`."""
MOST_HELD_OUT = 1000
RATES = {"language": (2e-3, 5e-4)}
"""The learning rates of a task, where none are given: of most parameters, and of decays and step
sizes. Of other tasks `OTHER_RATES`: see studies 006 and 007."""
OTHER_RATES = 1e-2, 2e-3


@dataclass(frozen=True, slots=True)
class TuneSettings:
    """The choices of a tuning. `teacher` is "none", "self" (the model at full precision) or a
    MODEL; "" takes labels where there are some, and else "self". Rates that are None are the
    task's. Training ends after `max_steps` where `epochs` are longer. `noise` is drawn anew in
    every step."""

    epochs: int = 3
    max_steps: int | None = None
    lr: float | None = None
    ssm_lr: float | None = None
    batch: int = 64
    average: float = 0.99
    warmup: float = 0.05
    teacher: str = ""
    seed: int = 0
    method: Method = field(default_factory=Method)
    noise: Entries = ()

    def __post_init__(self) -> None:
        rules = {
            f"--epochs must be at least 1, not {self.epochs}": self.epochs >= 1,
            f"--max-steps must be at least 1, not {self.max_steps}": self.max_steps is None
            or self.max_steps >= 1,
            f"--batch must be at least 1, not {self.batch}": self.batch >= 1,
            f"--lr and --ssm-lr must be above 0, not {self.lr} and {self.ssm_lr}": all(
                rate is None or rate > 0 for rate in (self.lr, self.ssm_lr)
            ),
            f"--average must be at least 0 and below 1, not {self.average}": 0 <= self.average < 1,
            f"--warmup must be at least 0 and below 1, not {self.warmup}": 0 <= self.warmup < 1,
            f"--seed must not be negative, not {self.seed}": self.seed >= 0,
        }
        if broken := [rule for rule, holds in rules.items() if not holds]:
            raise UsageError(f"{'; '.join(broken)}.")

    def with_rates(self, task: str) -> TuneSettings:
        """These settings with the rates of a task where none are given."""
        lr, ssm_lr = RATES.get(task, OTHER_RATES)
        return replace(self, lr=self.lr or lr, ssm_lr=self.ssm_lr or ssm_lr)


class TrainedUnder(NamedTuple):
    """Trained weights, and the plan that goes with them: without GPTQ, with the ranges learned.
    `epochs` passes over the samples, or a part of one; `ram` is what a step took."""

    trained: Trained
    plan: Plan
    epochs: float
    ram: dict[str, Any]


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
    """Train the session's model under a plan, and leave OUT/weights.safetensors, no more. RunError
    where another process trains into OUT."""
    settings = settings.with_rates(session.dataset.task)
    sites, trained_plan = session.source.model.sites.values(), without_gptq(plan)
    task = _task(session, plan.resolve(sites), trained_plan.resolve(sites), settings, start)
    with room_for_steps(task, session.progress.note) as (task.under.layer, ram), alone_in(out):
        if not resume:
            _drop_documents(out)
        trained = train_task(task, out, progress=progress, resume=resume)
    learned = task.under.tuned(trained.average)
    ranges = tuple((n, scheme) for n, scheme in learned.items() if scheme != task.under.plan[n])
    after = Plan((*trained_plan.entries, *ranges), plan.name)
    return TrainedUnder(trained, after, task.total / task.epoch_steps, ram)


def _drop_documents(out: Path) -> None:
    """Remove what an earlier tuning wrote of itself at its end: it would stand beside weights that
    are not finished."""
    for name in (PLAN, RESULT):
        with disk_errors(out / name, "removing"):
            (out / name).unlink(missing_ok=True)


def without_gptq(plan: Plan) -> Plan:
    """The plan with weights rounded to nearest that it has rounded by GPTQ."""
    return Plan(tuple((at, nearest(scheme)) for at, scheme in plan.entries), plan.name)


def nearest(scheme: Scheme) -> Scheme:
    """The scheme with rounding to nearest in place of GPTQ."""
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
    lr, ssm_lr = settings.lr, settings.ssm_lr
    assert lr is not None
    assert ssm_lr is not None
    optimizer = Optimizer(lr, ssm_lr, 0.0, settings.batch, settings.average)
    schedule = Schedule(settings.epochs, settings.warmup)
    recipe = Recipe(config, Data(data.name), optimizer, schedule, seed=settings.seed)
    noise = Draw(resolve(settings.noise, source.model.sites.values()), settings.seed)
    watched = calibration.fingerprint(plan, noise)
    sequences = calibration.sequences(plan, noise) if watched else None
    under = UnderPlan(plan, config, sequences, noise, settings.method)
    if settings.method.ranges == "learned":
        session.progress.note(told(plan, source.model.sites))
    validation, teacher = data.splits["search"], _teacher(session, settings)
    marks = {"asked": fingerprint(asked), "model": source.fingerprint, "calibration": watched,
             "teacher": "" if teacher is None else teacher.fingerprint}  # fmt: skip
    if noise.noises:
        marks["noise"] = noise.fingerprint
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


def _teacher(session: Session, settings: TuneSettings) -> Source | None:
    """The model whose outputs are learnt; None where labels alone are."""
    name = settings.teacher or ("self" if session.dataset.task == "unlabelled" else "none")
    if name == "none":
        return None
    teacher = (session.whole or session).source if name == "self" else open_model(name)
    theirs, ours = teacher.model.config, session.source.model.config
    if (theirs.d_input, theirs.d_output) != (ours.d_input, ours.d_output):
        raise UsageError(
            f"the teacher {name} takes {theirs.d_input} inputs and gives {theirs.d_output} "
            f"outputs; the model takes {ours.d_input} and gives {ours.d_output}."
        )
    return teacher
