"""Training on the CPU: one loop, which a task gives its steps.

**One network.** The forward is the deployed model's: parameters go through the family's `deploy`
and run under a tap, exact or rounding, so there is no second definition of the network to drift
away.

**Repeatable.** One seed draws the start. Training is cut into legs, an epoch or so many steps, and
each has a generator of its own, so that a run resumed after any leg meets the same batches as one
that was never stopped, and ends with the same weights to the bit on the same machine with as many
threads.

**Nothing is selected.** The score on held-out data is reported, never used: no early stopping, no
best leg. What ships is the average of the weights at the end of the schedule.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np
import torch
from torch import Tensor

from sensprobe.errors import DivergedError
from sensprobe.models import Model, family_of
from sensprobe.train.recipe import LanguageRecipe, Recipe
from sensprobe.train.snapshot import (
    WEIGHTS,
    Run,
    defaults_of,
    drop_snapshot,
    read_snapshot,
    write_snapshot,
    write_weights,
)

REPORTS = 20  # a twentieth of a leg between two reports


class Loss(NamedTuple):
    """The loss of a batch, of how many samples it is the mean, and the sum of their scores."""

    value: Tensor
    samples: int
    scores: float


class Task(Protocol):
    """A task: data, loss, score and schedule, all that differs between one training and another."""

    @property
    def metric(self) -> str:
        """The name of the score that is reported."""

    @property
    def recipe(self) -> Recipe | LanguageRecipe:
        """The model's config and the numbers that training goes by."""

    @property
    def identity(self) -> Mapping[str, Any]:
        """The JSON values that a run must share with a snapshot to go on from it."""

    def initial(self) -> dict[str, Tensor]:
        """The parameters before the first step, by the names of an own checkpoint."""

    @property
    def clip(self) -> float | None:
        """The largest norm of all gradients together; None for any."""

    @property
    def leg_name(self) -> str:
        """The word for a leg: epoch, or leg."""

    @property
    def legs(self) -> list[range]:
        """The steps of each leg, from 0; a snapshot is kept after each."""

    def rate(self, step: int) -> float:
        """The fraction of the learning rates in a step, from 0."""

    def optimizer(self, params: Mapping[str, Tensor]) -> torch.optim.AdamW:
        """An optimizer of the parameters that are trained; each of its groups has a learning rate
        as `base`."""

    def batches(self, leg: int) -> Iterator[Any]:
        """The batches of a leg, one a step."""

    def loss(self, params: Mapping[str, Tensor], batch: Any) -> Loss:
        """The loss of one batch."""

    def checkpoint(self, params: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        """What a checkpoint of the parameters holds."""

    def held_out(self, params: Mapping[str, Tensor]) -> np.ndarray:
        """The score of each held-out sample (n,) float64, of which the mean is reported."""

    def entry(self, leg: int, loss: float, score: float, held_out: float) -> dict[str, float]:
        """The row of a leg in the history: means over its batches, and the held-out score."""

    def recorded(self, entry: Mapping[str, float]) -> dict[str, Any]:
        """The `recorded` field of the weights' header after the leg of that entry."""


@dataclass(frozen=True, slots=True)
class Progress:
    """The point a run has reached. `loss` and `score` are means over this leg's training samples.

    `score` and `validation` are of `metric`. A leg is an epoch where samples are passed over, else
    the steps between two snapshots.
    """

    epoch: int  # the leg, from 1
    epochs: int
    step: int  # within the leg, from 1
    steps: int
    loss: float
    score: float
    validation: float | None  # score of the averaged weights, at the end of a leg only
    seconds_left: float
    metric: str
    unit: str = "epoch"  # the word for a leg


@dataclass(frozen=True, slots=True)
class Trained:
    """The result of a finished run. `value`, of `metric`, is the held-out score of the averaged
    weights with its standard error over `n` samples; `history` has a `Task.entry` a leg. `seconds`
    are those of all legs, from before a stop too; NaN where they are not known. `average` has the
    averaged parameters, with those that a checkpoint does not hold; `parameters` were trained."""

    weights: Path
    parameters: int
    metric: str
    value: float
    stderr: float
    n: int
    history: tuple[Mapping[str, float], ...]
    seconds: float
    average: Mapping[str, Tensor] = field(compare=False)


def initial(recipe: Recipe | LanguageRecipe) -> dict[str, Tensor]:
    """The parameters that a recipe's seed draws, by the names of an own checkpoint."""
    init = recipe.init
    dt = init.dt_min, init.dt_max
    found: dict[str, Tensor] = family_of(recipe.model).initial(recipe.model, dt, recipe.seed)
    return found


def network(params: Mapping[str, Tensor], config: Any) -> Model:
    """The deployed model on parameters in training."""
    family = family_of(config)
    model: Model = family.model(config, family.deploy(params, config))
    return model


def train_task(
    task: Task,
    out: Path,
    *,
    progress: Callable[[Progress], None] = lambda progress: None,
    resume: bool = True,
) -> Trained:
    """Train, and leave `out/weights.safetensors`, an own checkpoint.

    A run in `out` of the same recipe and data goes on after its last whole leg; of another it is a
    RunError. `resume=False` starts afresh and replaces what is there once its first leg is done.
    Stopping (Ctrl-C) keeps the last leg. DivergedError where the loss is no longer finite.
    """
    run = _start(task)
    history = read_snapshot(out, task.identity, run, defaults_of(task.recipe)) if resume else []
    legs, scores = task.legs, None
    for leg in range(len(history), len(legs)):
        began = time.monotonic()
        loss, score = _leg(run, task, leg, progress)
        scores = task.held_out(run.average)
        held_out = float(scores.mean())
        history.append(task.entry(leg, loss, score, held_out))
        run.seconds += time.monotonic() - began
        if leg == 0:
            drop_snapshot(out)
        kept, recorded = task.checkpoint(run.average), task.recorded(history[-1])
        write_weights(out / WEIGHTS, kept, task.recipe.model, recorded)
        write_snapshot(out, task.identity, run, history)
        steps = legs[leg]
        left = (time.monotonic() - began) / len(steps) * (legs[-1].stop - steps.stop)
        progress(_progress(task, leg, steps.stop, loss, score, held_out, left))
    if scores is None:  # the run was finished before
        scores = task.held_out(run.average)
    return Trained(
        out / WEIGHTS,
        sum(p.numel() for p in run.trained.values()),
        task.metric,
        float(scores.mean()),
        float(scores.std()) / math.sqrt(len(scores)),
        len(scores),
        tuple(history),
        run.seconds,
        run.average,
    )


def _start(task: Task) -> Run:
    """A run before its first step."""
    params = task.initial()
    average = {name: p.clone() for name, p in params.items()}
    optimizer = task.optimizer(params)
    for group in optimizer.param_groups:
        for p in group["params"]:
            p.requires_grad_()
    return Run(params, average, optimizer)


def _leg(
    run: Run, task: Task, leg: int, progress: Callable[[Progress], None]
) -> tuple[float, float]:
    """The steps up to the next snapshot; mean loss and score while they went on."""
    steps, last = task.legs[leg], task.legs[-1].stop
    total, scores, seen, began = 0.0, 0.0, 0, time.monotonic()
    for done, (step, batch) in enumerate(zip(steps, task.batches(leg), strict=True), start=1):
        loss = task.loss(run.params, batch)
        _update(run, task, loss.value, step)
        total += loss.value.item() * loss.samples
        scores, seen = scores + loss.scores, seen + loss.samples
        if not math.isfinite(total):
            raise DivergedError(
                f"training diverged: the loss is not finite in step {step + 1}. Lower the "
                "learning rates (lr, ssm_lr) or clip; what was kept after the last whole "
                f"{task.leg_name} stays."
            )
        if done % max(1, len(steps) // REPORTS) == 0 and done < len(steps):
            left = (time.monotonic() - began) / done * (last - step - 1)
            progress(_progress(task, leg, step + 1, total / seen, scores / seen, None, left))
    return total / seen, scores / seen


def _update(run: Run, task: Task, loss: Tensor, step: int) -> None:
    """One step of the optimizer at the scheduled rate, and of the average."""
    rate = task.rate(step)
    for group in run.optimizer.param_groups:
        group["lr"] = group["base"] * rate
    run.optimizer.zero_grad()
    loss.backward()
    if task.clip is not None:
        torch.nn.utils.clip_grad_norm_(run.params.values(), task.clip)
    run.optimizer.step()
    # Early on the average follows closely, or it would remember the random start.
    keep = min(task.recipe.optimizer.average, (2 + step) / (11 + step))
    with torch.no_grad():
        for name, value in run.average.items():
            value.lerp_(run.params[name], 1 - keep)


def _progress(
    task: Task, leg: int, step: int, loss: float, score: float, held_out: float | None, left: float
) -> Progress:
    legs = task.legs
    done = step - legs[leg].start
    steps = len(legs[leg])
    return Progress(
        leg + 1, len(legs), done, steps, loss, score, held_out, left, task.metric, task.leg_name
    )
