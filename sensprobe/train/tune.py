"""Training under a plan: rounding is inside the network, and passes gradients straight through.

A tuned model is a checkpoint like any other: what is trained are the parameters of the family, not
codes, and the network in training is the one that an evaluation of the checkpoint under the plan
runs, to the bit (see `under`).

With a teacher the loss is that of the labels plus the divergence from the teacher's outputs (Hinton
et al. 2015, arXiv 1503.02531, at temperature 1), in equal parts.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from sensprobe.data import Split
from sensprobe.errors import UsageError
from sensprobe.evaluate import BATCH, TextEvaluator, outcomes
from sensprobe.models import Model
from sensprobe.models.apply import Applier
from sensprobe.models.forward import Layer
from sensprobe.plans.plan import Resolved, fingerprint
from sensprobe.scores.metrics import NAMES, PRIMARY
from sensprobe.train.loop import Loss
from sensprobe.train.parametrization import (
    Params,
    fixed,
    slow,
)
from sensprobe.train.ram import StepBytes, step_bytes
from sensprobe.train.ranges import (
    LOW,
    is_range,
)
from sensprobe.train.recipe import Recipe, rate_at
from sensprobe.train.under import UnderPlan

LEG_STEPS = 500
"""Steps after which a long epoch is kept too."""


class Batch(NamedTuple):
    """Places of samples in the train split, and the position of the first for stochastic
    rounding."""

    places: Tensor
    first: int


@dataclass(frozen=True)
class TuneTask:
    """Training under a plan on the samples of a split (see `loop.Task`).

    `task` is that of the data set: classification, regression, language or unlabelled. The last
    has no labels to learn from, so it needs a teacher. `train` and `validation` are its splits;
    held-out scores are of the first `count` samples of `validation`. `start` has the parameters
    before the first step; `marks` are the fingerprints by which a snapshot knows what it is of
    beside recipe, plan and splits: of the model, the teacher and what is calibrated on. Training
    ends after `max_steps` where the recipe's epochs are longer.
    """

    recipe: Recipe
    task: str
    train: Split
    validation: Split
    under: UnderPlan
    start: Params
    count: int
    teacher: Model | None = None
    marks: Mapping[str, str] = field(default_factory=dict)
    max_steps: int | None = None
    leg_name = "leg"

    def __post_init__(self) -> None:
        if self.task == "unlabelled" and self.teacher is None:
            raise UsageError(
                f"{self.train.source} has no labels to learn from: name a teacher (--teacher self, "
                "or a model), whose outputs are learnt instead."
            )
        if self.under.method.progressive and len(self.legs) < 2:
            raise UsageError(
                "--progressive takes bits away between legs, and this training is one leg: give "
                "more --epochs."
            )

    @property
    def metric(self) -> str:
        return NAMES[PRIMARY[self.task]]

    @property
    def clip(self) -> float | None:
        return self.under.method.clip or None

    @property
    def identity(self) -> dict[str, Any]:
        return {
            "recipe": asdict(self.recipe),
            "train": self.train.fingerprint,
            "validation": self.validation.fingerprint,
            "plan": fingerprint(self.under.plan),
            "max_steps": self.max_steps,
            "method": asdict(self.under.method),
            **self.marks,
        }

    def initial(self) -> dict[str, Tensor]:
        start = {name: p.detach().float().clone() for name, p in self.start.items()}
        return start | self.under.first_ranges(start)

    def step_bytes(self) -> StepBytes:
        """The RAM that a step takes, counted on a few copies of a sample; ranges are watched on
        one."""
        params, watched = self.initial(), self.under.calibration
        trained = [p for group in self.optimizer(params).param_groups for p in group["params"]]
        for p in trained:
            p.requires_grad_()

        def loss(layer: Layer, n: int) -> Tensor:
            few = None if watched is None else watched[:1]
            task = replace(self, under=replace(self.under, layer=layer, calibration=few))
            return task.loss(params, Batch(torch.zeros(n, dtype=torch.long), 0)).value

        return step_bytes(loss, trained, self.batch)

    @property
    def batch(self) -> int:
        """Samples a step."""
        return min(self.recipe.optimizer.batch, len(self.train))

    @property
    def length(self) -> int:
        """Time steps of a sample."""
        return self.train.x.shape[1]

    @property
    def epoch_steps(self) -> int:
        """Steps of an epoch; samples too few for a whole batch wait for another epoch."""
        return len(self.train) // self.batch

    @property
    def total(self) -> int:
        """Steps of the whole training."""
        steps = self.recipe.schedule.epochs * self.epoch_steps
        return steps if self.max_steps is None else min(steps, self.max_steps)

    @property
    def legs(self) -> list[range]:
        """Epochs, long ones in parts of about `LEG_STEPS` steps."""
        steps, parts = self.epoch_steps, -(-self.epoch_steps // LEG_STEPS)
        ends = [
            min(epoch * steps + steps * part // parts, self.total)
            for epoch in range(-(-self.total // steps))
            for part in range(1, parts + 1)
        ]
        return [range(a, b) for a, b in zip([0, *ends], ends, strict=False) if a < b]

    def rate(self, step: int) -> float:
        return rate_at(step + 1, self.total + 1, self.recipe.schedule.warmup)

    def optimizer(self, params: Params) -> torch.optim.AdamW:
        """Two groups: the parameters that a recurrence's decays and steps are made of, and the
        others; less those that are not trained."""
        choices, groups = self.recipe.optimizer, []
        trained = {n for n in params if not n.startswith(LOW)}
        trained -= fixed(params, self.under.method.parametrization, self.under.method.train)
        gently = slow(trained, self.recipe.model)
        for lr, names in ((choices.ssm_lr, gently), (choices.lr, trained - gently)):
            members = [p for name, p in params.items() if name in names]
            if members:
                groups.append({"params": members, "lr": lr, "base": lr})
        return torch.optim.AdamW(groups, weight_decay=choices.weight_decay, fused=True)

    def batches(self, leg: int) -> Iterator[Batch]:
        """Whole batches in this epoch's order."""
        parts = len(self.legs) // 2 if self.under.method.progressive else 0
        self.under.begin(1 - leg / parts if leg < parts else 0.0)
        steps = self.legs[leg]
        epoch, first = divmod(steps.start, self.epoch_steps)
        generator = torch.Generator().manual_seed(self.recipe.seed * 100_003 + epoch + 1)
        order = torch.randperm(len(self.train), generator=generator)
        for step in steps:
            start = (first + step - steps.start) * self.batch
            yield Batch(order[start : start + self.batch], step * self.batch)

    def loss(self, params: Params, batch: Batch) -> Loss:
        self.under.stabilise(params, self.under.now(params))
        x, y = self.train.x[batch.places], self.train.y[batch.places]
        outputs = self.under.outputs(params, x, batch.first)
        loss = _of_labels(self.task, outputs, y)
        if self.teacher is not None:
            with torch.no_grad():
                told = self.teacher(x)
            divergence = _divergence(self.task, outputs, told)
            value = divergence if loss is None else (loss.value + divergence) / 2
            loss = Loss(value, len(x), len(x) * value.item() if loss is None else loss.scores)
        assert loss is not None
        return loss

    def checkpoint(self, params: Params) -> Params:
        kept = {name: p.detach().clone() for name, p in params.items() if not is_range(name)}
        self.under.stabilise(kept, self.under.tuned(params))
        return kept

    def held_out(self, params: Params) -> np.ndarray:
        plan = self.under.tuned(params)
        applier = self.under.applier(self.checkpoint(params), plan)
        if self.task == "language":
            text = TextEvaluator(applier.model, applier, self.validation, divergence=False)
            found = text.evaluate(plan, 0, self.count)
        else:
            found = self._outcomes(applier, plan)
        return found[PRIMARY[self.task]].astype(np.float64)

    @torch.no_grad()
    def _outcomes(self, applier: Applier, plan: Resolved) -> dict[str, np.ndarray]:
        """The arrays of held-out samples; divergences are from the teacher."""
        x, y = self.validation.x[: self.count], self.validation.y[: self.count]
        tap, teacher = applier.tap(plan), self.teacher
        parts = [(i, x[i : i + BATCH]) for i in range(0, len(x), BATCH)]
        outputs = torch.cat([applier.model(part, tap.at(first)) for first, part in parts])
        told = None if teacher is None else torch.cat([teacher(part) for _, part in parts])
        return outcomes(self.task, outputs, y, told)

    def entry(self, leg: int, loss: float, score: float, held_out: float) -> dict[str, float]:
        return {"steps": self.legs[leg].stop, "loss": loss, "score": score, "validation": held_out}

    def recorded(self, entry: Mapping[str, float]) -> dict[str, Any]:
        return {
            "metric": self.metric,
            "value": entry["validation"],
            "n": self.count,
            "split": self.validation.name,
            "steps": entry["steps"],
        }


def _of_labels(task: str, outputs: Tensor, y: Tensor) -> Loss | None:
    """The loss in labels or targets, and the sum of the batch's scores; None without them."""
    if task == "classification":
        return Loss(F.cross_entropy(outputs, y), len(y), int((outputs.argmax(1) == y).sum()))
    if task == "regression":
        error = F.mse_loss(outputs, y.reshape(outputs.shape))  # one target may lack its axis
        return Loss(error, len(y), error.item() * len(y))
    if task == "language":
        value = F.cross_entropy(outputs.flatten(0, 1), y.flatten().long(), ignore_index=-1)
        return Loss(value, len(y), value.item() / math.log(2) * len(y))
    return None


def _divergence(task: str, outputs: Tensor, told: Tensor) -> Tensor:
    """The divergence in nats of outputs from a teacher's, the mean over samples or tokens; of
    regression the mean squared difference."""
    if task == "regression":
        return F.mse_loss(outputs, told)
    ours, theirs = (F.log_softmax(x.flatten(0, -2), -1) for x in (outputs, told))
    return F.kl_div(ours, theirs, log_target=True, reduction="batchmean")
