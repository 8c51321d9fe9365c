"""Full-precision training of a language model over bytes, on the CPU.

The forward is the deployed model's, as for classifiers (see `loop`). Windows are drawn at random
from documents, any place in them alike; a run of `every` steps has a generator of its own, so that
a run resumed after any of them meets the same windows as one that was never stopped.

Nothing is selected: held-out bits per byte are reported, never used. What ships is the average of
the weights at the end of the schedule.
"""

from __future__ import annotations

import hashlib
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from sensprobe.checkpoints.own import build
from sensprobe.data import Split
from sensprobe.errors import DataError, SensprobeError
from sensprobe.evaluate import TextEvaluator
from sensprobe.models import FAMILIES
from sensprobe.models.apply import Applier
from sensprobe.train.language_recipe import LanguageOptimizer, LanguageRecipe
from sensprobe.train.language_start import initial
from sensprobe.train.loop import Progress, ignore, restore, saved
from sensprobe.train.snapshot import (
    WEIGHTS,
    Snapshot,
    read_snapshot,
    write_snapshot,
    write_weights,
)

REPORTS = 20  # a twentieth of a run of steps between two reports
VALIDATION_WINDOWS = 64
METRIC = "bits_per_byte"


class Pool:
    """Documents to draw windows of `length` + 1 bytes from, each place in each of them alike."""

    def __init__(self, documents: Sequence[bytes], length: int) -> None:
        kept = [d for d in documents if len(d) > length]
        if not kept:
            raise DataError(
                f"no document to train on is longer than [text] length = {length} bytes. Give "
                "longer text, or shorter windows."
            )
        whole = b"".join(kept)
        self.fingerprint = hashlib.sha256(whole).hexdigest()[:16]
        self.length = length
        self._tokens = torch.from_numpy(np.frombuffer(whole, np.uint8).copy())
        sizes = torch.tensor([len(d) for d in kept])
        self._end = (sizes - length).cumsum(0)  # windows up to the end of each document
        self._shift = sizes.cumsum(0) - sizes - (self._end - (sizes - length))

    def draw(self, count: int, generator: torch.Generator) -> Tensor:
        """Windows (count, length + 1) int64."""
        drawn = torch.randint(int(self._end[-1]), (count,), generator=generator)
        document = torch.searchsorted(self._end, drawn, right=True)
        start = drawn + self._shift[document]
        return self._tokens[start[:, None] + torch.arange(self.length + 1)].long()


@dataclass(frozen=True, slots=True)
class LanguageResult:
    """What a finished run gives; `history` has steps, loss (nats) and held-out bits per byte."""

    weights: Path
    parameters: int
    history: tuple[Mapping[str, float], ...]


@dataclass
class _Run:
    """What training changes."""

    params: dict[str, Tensor]
    average: dict[str, Tensor]
    optimizer: torch.optim.AdamW


def fit_language(
    recipe: LanguageRecipe,
    out: Path,
    *,
    pools: Sequence[tuple[float, Pool]],
    validation: Split,
    progress: Callable[[Progress], None] = ignore,
    resume: bool = True,
) -> LanguageResult:
    """Train by `recipe` and leave `out/weights.safetensors`, an own checkpoint.

    pools: shares (they add up to 1) and what that part of each batch is drawn from. A run in `out`
    by the same recipe on the same text goes on after its last snapshot; by another it is a
    RunError. `resume=False` starts afresh. Stopping (Ctrl-C) keeps the last snapshot.
    """
    identity = {
        "recipe": asdict(recipe),
        "text": [[share, pool.fingerprint] for share, pool in pools],
        "validation": validation.fingerprint,
    }
    run = _start(recipe)
    before = read_snapshot(out, identity) if resume else None
    history: list[dict[str, float]] = []
    if before is not None:
        restore(run, before)
        history = before.history
    steps, every = recipe.schedule.total, recipe.schedule.every
    for leg in range(len(history), -(-steps // every)):
        first, last = leg * every, min((leg + 1) * every, steps)
        began = time.monotonic()
        loss = _leg(run, recipe, leg, range(first, last), pools, progress)
        score = bits_per_byte(run.average, recipe, validation)
        history.append({"steps": last, "loss": loss, METRIC: score})
        _keep(run, recipe, out, identity, history, len(validation))
        left = (time.monotonic() - began) / (last - first) * (steps - last)
        progress(_progress(recipe, leg, last, loss, score, left))
    count = sum(p.numel() for p in run.params.values())
    return LanguageResult(out / WEIGHTS, count, tuple(history))


def forward(params: Mapping[str, Tensor], recipe: LanguageRecipe, x: Tensor) -> Tensor:
    """The deployed model on parameters in training: tokens (b, l) -> logits (b, l, 256)."""
    family = FAMILIES[recipe.family]
    logits: Tensor = family.model(recipe.model, family.deploy(params, recipe.model))(x)
    return logits


def bits_per_byte(params: Mapping[str, Tensor], recipe: LanguageRecipe, split: Split) -> float:
    """Of a model with these parameters on the first `VALIDATION_WINDOWS` windows of a split."""
    model = build({n: p.detach() for n, p in params.items()}, recipe.model, Path("in training"))
    evaluator = TextEvaluator(model, Applier(model), split, divergence=False)
    count = min(VALIDATION_WINDOWS, len(split))
    return float(evaluator.evaluate({}, 0, count)[METRIC].astype(np.float64).mean())


def _leg(
    run: _Run,
    recipe: LanguageRecipe,
    leg: int,
    steps: range,
    pools: Sequence[tuple[float, Pool]],
    progress: Callable[[Progress], None],
) -> float:
    """The steps between two snapshots; mean loss in nats while they went on."""
    generator = torch.Generator().manual_seed(recipe.seed * 100_003 + leg + 1)
    total, began = 0.0, time.monotonic()
    for done, step in enumerate(steps, start=1):
        windows = _batch(recipe, pools, generator)
        logits = forward(run.params, recipe, windows[:, :-1])
        loss = F.cross_entropy(logits.flatten(0, 1), windows[:, 1:].flatten())
        _update(run, recipe, loss, step)
        total += loss.item()
        if not math.isfinite(total):
            raise SensprobeError(
                f"training diverged: the loss is not finite in step {step + 1}. Lower lr or clip "
                "in the recipe."
            )
        if done % max(1, len(steps) // REPORTS) == 0 and done < len(steps):
            left = (time.monotonic() - began) / done * (recipe.schedule.total - step - 1)
            progress(_progress(recipe, leg, step + 1, total / done, None, left))
    return total / len(steps)


def _batch(
    recipe: LanguageRecipe, pools: Sequence[tuple[float, Pool]], generator: torch.Generator
) -> Tensor:
    """Windows (batch, length + 1), each from a pool drawn by its share."""
    size = recipe.optimizer.batch
    if len(pools) == 1:
        return pools[0][1].draw(size, generator)
    shares = torch.tensor([share for share, _ in pools])
    chosen = torch.multinomial(shares, size, replacement=True, generator=generator)
    counts = torch.bincount(chosen, minlength=len(pools)).tolist()
    drawn = [pool.draw(n, generator) for n, (_, pool) in zip(counts, pools, strict=True)]
    return torch.cat(drawn)


def _update(run: _Run, recipe: LanguageRecipe, loss: Tensor, step: int) -> None:
    """One step of AdamW at the scheduled rate with clipped gradients, and of the average."""
    rate = recipe.schedule.rate(step)
    for group in run.optimizer.param_groups:
        group["lr"] = recipe.optimizer.lr * rate
    run.optimizer.zero_grad()
    loss.backward()
    torch.nn.utils.clip_grad_norm_(run.params.values(), recipe.optimizer.clip)
    run.optimizer.step()
    keep = min(recipe.optimizer.average, (2 + step) / (11 + step))
    with torch.no_grad():
        for name, value in run.average.items():
            value.lerp_(run.params[name], 1 - keep)


def _start(recipe: LanguageRecipe) -> _Run:
    """A run before its first step."""
    params = initial(recipe.model, recipe.init, recipe.seed)
    average = {name: p.clone() for name, p in params.items()}
    for p in params.values():
        p.requires_grad_()
    return _Run(params, average, _adamw(params, recipe.optimizer))


def _adamw(params: Mapping[str, Tensor], choices: LanguageOptimizer) -> torch.optim.AdamW:
    """Two groups: matrices, which decay, and the rest."""
    matrix = {n: p.ndim == 2 and not n.endswith("A_log") for n, p in params.items()}
    groups = [
        {"params": [p for n, p in params.items() if matrix[n] == decays], "weight_decay": decay}
        for decays, decay in ((True, choices.weight_decay), (False, 0.0))
    ]
    return torch.optim.AdamW(groups, lr=choices.lr, betas=(0.9, choices.beta2), fused=True)


def _progress(
    recipe: LanguageRecipe, leg: int, step: int, loss: float, score: float | None, left: float
) -> Progress:
    every, steps = recipe.schedule.every, recipe.schedule.total
    return Progress(
        epoch=leg + 1,
        epochs=-(-steps // every),
        step=step - leg * every,
        steps=min((leg + 1) * every, steps) - leg * every,
        loss=loss,
        score=loss / math.log(2),  # a token is a byte
        validation=score,
        seconds_left=left,
        metric=METRIC,
    )


def _keep(
    run: _Run,
    recipe: LanguageRecipe,
    out: Path,
    identity: Mapping[str, Any],
    history: list[dict[str, float]],
    n: int,
) -> None:
    """Write the weights, then the snapshot that makes these steps count."""
    recorded = {
        "metric": METRIC,
        "value": history[-1][METRIC],
        "n": min(n, VALIDATION_WINDOWS),
        "split": "validation",
        "steps": history[-1]["steps"],
    }
    write_weights(out / WEIGHTS, run.average, recipe.model, recorded)
    write_snapshot(out, Snapshot(len(history), history, saved(run)), identity)
