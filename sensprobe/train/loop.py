"""Full-precision training of a classifier, in convolution mode, on the CPU.

The forward is the deployed model's: parameters are discretised by the family's `deploy` and run
through `S4D` with an exact tap, so there is no second definition of the network to drift away.

**Repeatable.** One seed draws the start; each epoch has its own generator for the order of samples
and the augmentation, so a run resumed after any epoch meets the same batches as one that was never
stopped, and ends with the same weights to the bit on the same machine with as many threads.

**Nothing is selected.** The validation accuracy is reported, never used: no early stopping, no
best epoch. What ships is the average of the weights at the end of the schedule.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from sensprobe.errors import SensprobeError
from sensprobe.models.s4d import S4DConfig
from sensprobe.models.s4d_layers import S4D, deploy
from sensprobe.numerics.taps import EXACT
from sensprobe.train.augment import shift_images
from sensprobe.train.initial import initial
from sensprobe.train.recipe import Optimizer, Recipe, rate_at
from sensprobe.train.samples import Samples, check_samples, digest
from sensprobe.train.snapshot import (
    WEIGHTS,
    Snapshot,
    grouped,
    read_snapshot,
    write_snapshot,
    write_weights,
)

SSM_NAMES = ("log_dt", "log_A_real", "A_imag", "B")  # what `ssm_lr` trains
REPORTS = 20  # a twentieth of an epoch between two reports
EVALUATION_BATCH = 100
MOMENTS = ("step", "exp_avg", "exp_avg_sq")


@dataclass(frozen=True, slots=True)
class Progress:
    """Where a run stands. `loss` and `score` are means over this epoch's training samples.

    `score` and `validation` are of `metric`. What a classifier calls an epoch is for a language
    model the steps between two snapshots.
    """

    epoch: int  # from 1
    epochs: int
    step: int  # within the epoch, from 1
    steps: int
    loss: float
    score: float
    validation: float | None  # score of the averaged weights, at the end of an epoch only
    seconds_left: float
    metric: str = "accuracy"


@dataclass(frozen=True, slots=True)
class FitResult:
    """What a finished run gives. Accuracy and loss are of the averaged weights on validation."""

    weights: Path
    parameters: int
    accuracy: float
    stderr: float
    loss: float
    n: int
    history: tuple[Mapping[str, float], ...]  # per epoch: epoch, loss, accuracy, validation


@dataclass
class _Run:
    """What training changes."""

    params: dict[str, Tensor]
    average: dict[str, Tensor]
    optimizer: torch.optim.AdamW


def ignore(progress: Progress) -> None:
    """Report nothing."""


def fit(
    recipe: Recipe,
    out: Path,
    *,
    train: Samples,
    validation: Samples,
    progress: Callable[[Progress], None] = ignore,
    resume: bool = True,
) -> FitResult:
    """Train by `recipe` and leave `out/weights.safetensors`, an own checkpoint.

    train, validation: x (n, l, d_input) float32 and y (n,) int64 labels. A run in `out` by the same
    recipe on the same samples goes on after its last whole epoch; by another it is a RunError.
    `resume=False` starts afresh and replaces what is there. Stopping (Ctrl-C) keeps the last epoch.
    """
    check_samples(recipe, train, "train")
    check_samples(recipe, validation, "validation")
    identity = {
        "recipe": asdict(recipe),
        "train": digest(*train),
        "validation": digest(*validation),
    }
    run = _start(recipe)
    before = read_snapshot(out, identity) if resume else None
    history: list[dict[str, float]] = []
    if before is not None:
        restore(run, before)
        history = before.history
    steps, epochs = _steps(recipe, train), recipe.schedule.epochs
    for epoch in range(len(history), epochs):
        began = time.monotonic()
        loss, accuracy = _epoch(run, recipe, epoch, train, progress)
        score, _ = evaluate(run.average, recipe.model, *validation)
        history.append(
            {"epoch": epoch + 1, "loss": loss, "accuracy": accuracy, "validation": score}
        )
        _keep(run, recipe, out, identity, history, len(validation[1]))
        left = (time.monotonic() - began) * (epochs - epoch - 1)
        progress(Progress(epoch + 1, epochs, steps, steps, loss, accuracy, score, left))
    return _result(run, recipe, out, history, validation)


def forward(params: Mapping[str, Tensor], config: S4DConfig, x: Tensor) -> Tensor:
    """The deployed model on parameters in training: x (b, l, d_input) -> logits (b, d_output)."""
    return S4D(config, deploy(params, config))(x, EXACT, mode="fft")


@torch.no_grad()
def evaluate(
    params: Mapping[str, Tensor], config: S4DConfig, x: Tensor, y: Tensor
) -> tuple[float, float]:
    """Accuracy and mean cross-entropy, in convolution mode."""
    right, loss = 0, 0.0
    for part, labels in zip(x.split(EVALUATION_BATCH), y.split(EVALUATION_BATCH), strict=True):
        logits = forward(params, config, part)
        right += int((logits.argmax(1) == labels).sum())
        loss += F.cross_entropy(logits, labels, reduction="sum").item()
    return right / len(y), loss / len(y)


def _epoch(
    run: _Run, recipe: Recipe, epoch: int, train: Samples, progress: Callable[[Progress], None]
) -> tuple[float, float]:
    """One pass over the training samples; mean loss and accuracy while it went on."""
    steps, epochs = _steps(recipe, train), recipe.schedule.epochs
    seen, right, total, began = 0, 0, 0.0, time.monotonic()
    for step, (x, y) in enumerate(_batches(recipe, epoch, train), start=1):
        logits = forward(run.params, recipe.model, x)
        loss = F.cross_entropy(logits, y)
        _update(run, recipe, loss, epoch * steps + step - 1, epochs * steps)
        seen, right = seen + len(y), right + int((logits.argmax(1) == y).sum())
        total += loss.item() * len(y)
        if not math.isfinite(total):
            raise SensprobeError(
                f"training diverged: the loss is not finite in epoch {epoch + 1}, step {step}. "
                "Lower lr and ssm_lr in the recipe."
            )
        if step % max(1, steps // REPORTS) == 0 and step < steps:
            left = (time.monotonic() - began) / step * ((epochs - epoch) * steps - step)
            progress(
                Progress(epoch + 1, epochs, step, steps, total / seen, right / seen, None, left)
            )
    return total / seen, right / seen


def _update(run: _Run, recipe: Recipe, loss: Tensor, step: int, steps: int) -> None:
    """One step of AdamW at the scheduled rate, and of the average."""
    rate = rate_at(step, steps, recipe.schedule.warmup)
    for group in run.optimizer.param_groups:
        group["lr"] = group["base"] * rate
    run.optimizer.zero_grad()
    loss.backward()
    run.optimizer.step()
    # Early on the average follows closely, or it would remember the random start.
    keep = min(recipe.optimizer.average, (2 + step) / (11 + step))
    with torch.no_grad():
        for name, value in run.average.items():
            value.lerp_(run.params[name], 1 - keep)


def _batches(recipe: Recipe, epoch: int, train: Samples) -> Iterator[Samples]:
    """Whole batches in this epoch's order; a rest too small for one waits for another epoch."""
    generator = torch.Generator().manual_seed(recipe.seed * 100_003 + epoch + 1)
    x, y = train
    order = torch.randperm(len(y), generator=generator)
    size = min(recipe.optimizer.batch, len(y))
    for start in range(0, len(y) - size + 1, size):
        index = order[start : start + size]
        yield shift_images(x[index], recipe.data.image, recipe.data.shift, generator), y[index]


def _steps(recipe: Recipe, train: Samples) -> int:
    """Batches an epoch."""
    return len(train[1]) // min(recipe.optimizer.batch, len(train[1]))


def _start(recipe: Recipe) -> _Run:
    """A run before its first step."""
    params = initial(recipe.model, recipe.init, recipe.seed)
    average = {name: p.clone() for name, p in params.items()}
    for p in params.values():
        p.requires_grad_()
    return _Run(params, average, _adamw(params, recipe.optimizer))


def _adamw(params: Mapping[str, Tensor], choices: Optimizer) -> torch.optim.AdamW:
    """Three groups: state space (slower, no decay), matrices (decay), and the rest."""
    groups: dict[tuple[float, float], list[Tensor]] = {}
    for name, p in params.items():
        lr = choices.ssm_lr if name.rsplit(".", 1)[-1] in SSM_NAMES else choices.lr
        decay = choices.weight_decay if name.endswith("weight") and p.ndim == 2 else 0.0
        groups.setdefault((lr, decay), []).append(p)
    return torch.optim.AdamW(
        [
            {"params": members, "lr": lr, "base": lr, "weight_decay": decay}
            for (lr, decay), members in groups.items()
        ],
        fused=True,
    )


def _keep(
    run: _Run, recipe: Recipe, out: Path, identity: Mapping[str, Any],
    history: list[dict[str, float]], n: int,
) -> None:  # fmt: skip
    """Write the weights, then the snapshot that makes this epoch count."""
    recorded = {
        "metric": "accuracy", "value": history[-1]["validation"], "n": n, "split": "validation",
        "epoch": len(history),
    }  # fmt: skip
    write_weights(out / WEIGHTS, run.average, recipe.model, recorded)
    write_snapshot(out, Snapshot(len(history), history, saved(run)), identity)


class Running(Protocol):
    """What a snapshot keeps of a run."""

    params: dict[str, Tensor]
    average: dict[str, Tensor]
    optimizer: torch.optim.AdamW


def saved(run: Running) -> dict[str, Tensor]:
    """The tensors of a snapshot."""
    moments = {
        key: {name: run.optimizer.state[p][key] for name, p in run.params.items()}
        for key in MOMENTS
    }
    return grouped(params=run.params, average=run.average, **moments)


def restore(run: Running, snapshot: Snapshot) -> None:
    """Put a run where a snapshot left it."""
    moments = {key: snapshot.group(key) for key in MOMENTS}
    params, average = snapshot.group("params"), snapshot.group("average")
    with torch.no_grad():
        for name, p in run.params.items():
            p.copy_(params[name])
            run.average[name].copy_(average[name])
            run.optimizer.state[p] = {key: tensors[name] for key, tensors in moments.items()}


def _result(
    run: _Run, recipe: Recipe, out: Path, history: list[dict[str, float]], validation: Samples
) -> FitResult:
    accuracy, loss = evaluate(run.average, recipe.model, *validation)
    n = len(validation[1])
    stderr = math.sqrt(accuracy * (1 - accuracy) / n)
    count = sum(p.numel() for p in run.params.values())
    return FitResult(out / WEIGHTS, count, accuracy, stderr, loss, n, tuple(history))
