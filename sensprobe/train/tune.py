"""Training under a plan: rounding is inside the network, and passes gradients straight through.

A tuned model is a checkpoint like any other: what is trained are the parameters of the family, not
codes. In every step the parameters are deployed as a loader would deploy them, encoded and decoded
by the plan, and run under its tap: the network in training is the one that an evaluation of the
checkpoint under the plan runs, to the bit. Ranges of static activations and states are watched anew
on the calibration split before every leg, at full precision, as an evaluation does.

With a teacher the loss is that of the labels plus the divergence from the teacher's outputs (Hinton
et al. 2015, arXiv 1503.02531, at temperature 1), in equal parts.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from sensprobe import ops
from sensprobe.checkpoints.own import build
from sensprobe.data import Split
from sensprobe.errors import SchemeError, UsageError
from sensprobe.evaluate import BATCH, TextEvaluator, outcomes
from sensprobe.models import Model, family_of
from sensprobe.models.apply import Applier, encode_weight, needs_calibration, observe, wanted_by
from sensprobe.numerics.rounding import decode, straight
from sensprobe.numerics.taps import RoundingTap, StaticScale, single
from sensprobe.plans.plan import Resolved, fingerprint
from sensprobe.plans.scheme import Rounding
from sensprobe.plans.sites import Kind
from sensprobe.scores.metrics import NAMES, PRIMARY
from sensprobe.train.loop import Loss
from sensprobe.train.method import Method
from sensprobe.train.parametrization import (
    Params,
    deployed,
    fixed,
    is_invariant,
    slow,
    stabilised,
)
from sensprobe.train.recipe import Recipe, rate_at
from sensprobe.train.steps import (
    LOW,
    LearningTap,
    first_ranges,
    is_step,
    widened,
    widths_of,
    with_ranges,
)

LEG_STEPS = 500
"""Steps after which a long epoch is kept too."""


def require_trainable(plan: Resolved) -> None:
    """SchemeError for a plan with a scheme that nothing can be trained under."""
    if named := [n for n, s in plan.items() if s.rounding is Rounding.GPTQ]:
        raise SchemeError(
            f"{named[0]} in {plan[named[0]]} cannot be tuned: gptq chooses codes for a model that "
            f"is finished, by what its layers read, and tuning changes that in every step. Leave "
            f"/gptq out of the plan ({len(named)} site(s)): tuning does what it is for."
        )


@dataclass
class UnderPlan:
    """The network of a config with parameters in training, under a resolved plan.

    `calibration` has the sequences on which ranges of static activations and states are watched;
    None for a plan that needs none.
    """

    plan: Resolved
    config: Any
    calibration: Tensor | None = None
    method: Method = field(default_factory=Method)
    _scales: Mapping[str, StaticScale] | None = field(default=None, repr=False)
    _now: Resolved | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        require_trainable(self.plan)
        if self.method.stable and not is_invariant(self.config):
            raise UsageError(
                "--stable is for models whose A is the same in every step (S4D); the decays of a "
                f"{family_of(self.config).name} model are exp(dt A), at most 1 while A is negative."
            )

    @torch.no_grad()
    def stabilise(self, params: Params, plan: Resolved) -> None:
        """Move every A that a plan stores above 1 inward, in place; nothing without `stable`."""
        if self.method.stable:
            for name, p in stabilised(params, self.config, plan).items():
                if p is not params[name]:
                    params[name].copy_(p)

    def outputs(self, params: Params, x: Tensor, first: int = 0) -> Tensor:
        """The outputs of the network under the plan. `first` is the position that stochastic
        rounding takes for the first sequence of x."""
        model, plan = deployed(params, self.config), self.now(params)
        passing = {n: s for n, s in plan.items() if model.sites[n].kind is not Kind.WEIGHT}
        widths = widths_of(plan, params)
        if self._scales is None:
            watched = {n: s for n, s in passing.items() if n not in widths}
            self._scales = self._calibrated(model, watched).partial_tap(watched).scales
        learning = {n: s for n, s in passing.items() if n in widths}
        scales = {**self._scales, **Applier(model).partial_tap(learning).scales}
        tap = self._tap(model, plan, scales, first)
        return model(x, LearningTap(tap, widths) if widths else tap)

    def begin(self, share: float = 0.0) -> None:
        """Have the ranges watched anew before the next step, and go on with a share of the bits
        that integers lack to eight."""
        self._scales, self._now = None, widened(self.plan, share)

    def now(self, params: Params) -> Resolved:
        """The plan that the parameters are trained under at this time."""
        return with_ranges(self.plan if self._now is None else self._now, params)

    def tuned(self, params: Params) -> Resolved:
        """The plan that a checkpoint of these parameters is for."""
        return with_ranges(self.plan, params)

    def first_steps(self, params: Params) -> dict[str, Tensor]:
        """The parameters of the ranges that are learned, at the start."""
        if self.method.steps == "watched":
            return {}
        return first_ranges(self._calibrated(deployed(params, self.config), self.plan), self.plan)

    def applier(self, checkpoint: Params, plan: Resolved) -> Applier:
        """The applier that evaluates a checkpoint under a plan."""
        return self._calibrated(build(checkpoint, self.config, Path("in training")), plan)

    def _calibrated(self, model: Model, plan: Resolved) -> Applier:
        if self.calibration is None or not needs_calibration(plan, model.sites):
            return Applier(model)
        return Applier(model, observe(model, self.calibration, wanted_by(plan, model)))

    def _tap(
        self, model: Model, plan: Resolved, scales: Mapping[str, StaticScale], first: int
    ) -> RoundingTap:
        """The tap that an applier makes of the model's weights, to the bit, with gradients."""
        weights = {}
        for name, scheme in plan.items():
            site = model.sites[name]
            if site.kind is Kind.WEIGHT:
                with torch.no_grad():
                    rounded = decode(encode_weight(model, site, scheme), scheme, site)
                weights[name] = straight(single(model.weights[name]), rounded)
        return RoundingTap(plan, weights, scales, first, round=ops.rounded)


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
    beside recipe, plan and splits: of the model, the teacher and what is calibrated on.
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
            "method": asdict(self.under.method),
            **self.marks,
        }

    def initial(self) -> dict[str, Tensor]:
        start = {name: p.detach().float().clone() for name, p in self.start.items()}
        return start | self.under.first_steps(start)

    @property
    def batch(self) -> int:
        """Samples a step."""
        return min(self.recipe.optimizer.batch, len(self.train))

    @property
    def epoch_steps(self) -> int:
        """Steps of an epoch; samples too few for a whole batch wait for another epoch."""
        return len(self.train) // self.batch

    @property
    def legs(self) -> list[range]:
        """Epochs, long ones in parts of about `LEG_STEPS` steps."""
        steps, parts = self.epoch_steps, -(-self.epoch_steps // LEG_STEPS)
        ends = [
            epoch * steps + steps * part // parts
            for epoch in range(self.recipe.schedule.epochs)
            for part in range(1, parts + 1)
        ]
        return [range(a, b) for a, b in zip([0, *ends], ends, strict=False)]

    def rate(self, step: int) -> float:
        steps = self.recipe.schedule.epochs * self.epoch_steps
        return rate_at(step + 1, steps + 1, self.recipe.schedule.warmup)

    def optimizer(self, params: Params) -> torch.optim.AdamW:
        """Two groups: the parameters that a recurrence's decays and steps are made of, and the
        others; less those that are not trained."""
        choices, groups = self.recipe.optimizer, []
        trained = {n for n in params if not n.startswith(LOW)}
        trained -= fixed(params, self.under.method.parametrization)
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
        kept = {name: p.detach().clone() for name, p in params.items() if not is_step(name)}
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
        error = F.mse_loss(outputs.flatten(1), y.flatten(1))
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
