"""Learning from whole samples: classes or numbers of sequences, an epoch a leg, or a part of one.

Labels decide what is learnt: integers are classes (cross-entropy, scored by accuracy), floats are
regression targets (mean squared error).
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from sensprobe.errors import DataError
from sensprobe.evaluate import outcomes
from sensprobe.models import family_of
from sensprobe.numerics.taps import EXACT, Tap
from sensprobe.plans.sites import Part, Site
from sensprobe.scores.metrics import NAMES, PRIMARY
from sensprobe.train.loop import Loss, initial, network
from sensprobe.train.parametrization import DECAYS, own_name
from sensprobe.train.recipe import Recipe, document_of, rate_at

EVALUATION_BATCH = 100
Samples = tuple[Tensor, Tensor]
"""x (n, l, d_input) float32 or tokens (n, l) int32, and y: (n,) int64 labels, or (n,) or
(n, d_output) float32 targets."""


@dataclass(frozen=True)
class SampleTask:
    """Training by a recipe on samples (see `loop.Task`); DataError for samples it cannot use."""

    recipe: Recipe
    train: Samples
    validation: Samples
    clip = None

    def __post_init__(self) -> None:
        check_samples(self.recipe, self.train, "train")
        check_samples(self.recipe, self.validation, "validation")

    @property
    def kind(self) -> str:
        """classification or regression."""
        return "regression" if self.train[1].is_floating_point() else "classification"

    @property
    def metric(self) -> str:
        return NAMES[PRIMARY[self.kind]]

    @property
    def identity(self) -> dict[str, Any]:
        return {
            "recipe": document_of(self.recipe),
            "train": digest(*self.train),
            "validation": digest(*self.validation),
        }

    def initial(self) -> dict[str, Tensor]:
        return initial(self.recipe)

    @property
    def batch(self) -> int:
        """Samples a step."""
        return min(self.recipe.optimizer.batch, len(self.train[1]))

    @property
    def leg_name(self) -> str:
        return "leg" if self.recipe.schedule.every else "epoch"

    @property
    def epoch_steps(self) -> int:
        """Steps of an epoch; samples too few for a whole batch wait for another epoch."""
        return len(self.train[1]) // self.batch

    @property
    def legs(self) -> list[range]:
        """Epochs, or parts of them."""
        steps, schedule = self.epoch_steps, self.recipe.schedule
        every = schedule.every or steps
        return [
            range(start, min(start + every, end))
            for end in range(steps, steps * schedule.epochs + 1, steps)
            for start in range(end - steps, end, every)
        ]

    def rate(self, step: int) -> float:
        return rate_at(step, self.legs[-1].stop, self.recipe.schedule.warmup)

    def optimizer(self, params: Mapping[str, Tensor]) -> torch.optim.AdamW:
        """Three groups: state space (slower, no decay), matrices (decay), and the others."""
        choices = self.recipe.optimizer
        groups: dict[tuple[float, float], list[Tensor]] = {}
        for name, p in params.items():
            slow = own_name(name) in (*DECAYS, "B")
            lr = choices.ssm_lr if slow else choices.lr
            matrix = name.endswith("weight") and p.ndim == 2 and not slow
            decay = choices.weight_decay if matrix else 0.0
            groups.setdefault((lr, decay), []).append(p)
        return torch.optim.AdamW(
            [
                {"params": members, "lr": lr, "base": lr, "weight_decay": decay}
                for (lr, decay), members in groups.items()
            ],
            fused=True,
        )

    def batches(self, leg: int) -> Iterator[tuple[Tensor, Tensor, torch.Generator]]:
        """Whole batches in this epoch's order, and what draws in this leg."""
        epoch, first = divmod(self.legs[leg].start, self.epoch_steps)
        generator = torch.Generator().manual_seed(self.recipe.seed * 100_003 + epoch + 1)
        (x, y), data = self.train, self.recipe.data
        order = torch.randperm(len(y), generator=generator)
        if first:  # a later part of an epoch must not draw what another did; PyTorch's generator
            # heeds the lowest 32 bits of a seed alone, so that what tells parts apart is hashed
            seed = np.random.SeedSequence((self.recipe.seed, epoch, first)).generate_state(1)[0]
            generator.manual_seed(int(seed))
        for index in order.split(self.batch)[first : first + len(self.legs[leg])]:
            yield shift_images(x[index], data.image, data.shift, generator), y[index], generator

    def loss(
        self, params: Mapping[str, Tensor], batch: tuple[Tensor, Tensor, torch.Generator]
    ) -> Loss:
        x, y, generator = batch
        share = self.recipe.optimizer.dropout
        tap = Dropping(share, generator) if share else EXACT
        outputs = forward(params, self.recipe.model, x, tap)
        if self.kind == "regression":
            error = F.mse_loss(outputs, y.reshape(outputs.shape))  # one target may lack its axis
            return Loss(error, len(y), error.item() * len(y))
        return Loss(F.cross_entropy(outputs, y), len(y), int((outputs.argmax(1) == y).sum()))

    def checkpoint(self, params: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        return params

    @torch.no_grad()
    def held_out(self, params: Mapping[str, Tensor]) -> np.ndarray:
        x, y = self.validation
        outputs = [forward(params, self.recipe.model, part) for part in x.split(EVALUATION_BATCH)]
        found = outcomes(self.kind, torch.cat(outputs), y, None)
        return found[PRIMARY[self.kind]].astype(np.float64)

    def entry(self, leg: int, loss: float, score: float, held_out: float) -> dict[str, float]:
        """`epoch` may end in a fraction, of a leg that ends within one."""
        epoch = self.legs[leg].stop / self.epoch_steps
        done = int(epoch) if epoch.is_integer() else epoch
        return {"epoch": done, "loss": loss, self.metric: score, "validation": held_out}

    def recorded(self, entry: Mapping[str, float]) -> dict[str, Any]:
        return {
            "metric": self.metric,
            "value": entry["validation"],
            "n": len(self.validation[1]),
            "split": "validation",
            "epoch": entry["epoch"],
        }


@dataclass(frozen=True, slots=True)
class Dropping:
    """The tap of dropout (Srivastava et al. 2014): what output projections read is 0 in a share of
    its channels, for all steps of a sequence, and larger in the others."""

    share: float
    generator: torch.Generator

    def __call__(self, site: Site, x: Tensor) -> Tensor:
        x = EXACT(site, x)
        if site.part is not Part.OUT_PROJ_IN:
            return x
        drawn = torch.rand(len(x), 1, x.shape[-1], generator=self.generator)
        return x * ((drawn >= self.share) / (1 - self.share))

    def storage(self, site: Site) -> None:
        return None


def forward(params: Mapping[str, Tensor], config: Any, x: Tensor, tap: Tap = EXACT) -> Tensor:
    """The deployed model on parameters in training: x (b, l, d_input), or tokens (b, l) ->
    outputs (b, d_output)."""
    return network(params, config)(x, tap, mode=family_of(config).exact_mode)


def shift_images(
    x: Tensor, image: tuple[int, ...], reach: int, generator: torch.Generator
) -> Tensor:
    """Every sequence read as an image, moved by up to `reach` pixels each way, zeros moving in.

    x: (b, l, c) with l = rows · columns of `image`, row-major. Returns the same shape.
    """
    if reach == 0:
        return x
    batch, _, channels = x.shape
    rows, columns = image
    padded = F.pad(x.view(batch, rows, columns, channels), (0, 0, reach, reach, reach, reach))
    down, right = torch.randint(0, 2 * reach + 1, (2, batch, 1), generator=generator)
    each = torch.arange(batch)[:, None, None]
    i = (down + torch.arange(rows))[:, :, None]
    j = (right + torch.arange(columns))[:, None, :]
    return padded[each, i, j].view(x.shape)


def check_samples(recipe: Recipe, samples: Samples, name: str) -> None:
    """DataError unless the samples are ones this recipe's model can be trained on."""
    x, y = samples
    model, data = recipe.model, recipe.data
    unlabelled = y.ndim == 2 and y.shape[1] == 0
    tokens = model.encoder == "embedding"
    steps = x.shape[1:2] if model.pooling == "none" else ()
    wanted = (*steps, model.d_output)
    needed = f"int32 tokens (n, length) below {model.d_input}"
    problems = {
        f"x is {x.dtype} of shape {tuple(x.shape)}, needed "
        f"{needed if tokens else f'(n, length, {model.d_input})'}": not (
            _is_tokens(x, model.d_input) if tokens else _is_numbers(x, model.d_input)
        ),
        f"{len(x)} sequences come with {len(y)} labels": len(x) != len(y),
        "there are no samples": len(x) == 0,
        "there are no labels": unlabelled,
        f"y is {y.dtype} of shape {tuple(y.shape)}, needed int64 classes (n,) or float32 targets "
        f"(n, {', '.join(map(str, wanted))})": not unlabelled and not _is_labels(y, wanted),
    }
    if wrong := [problem for problem, found in problems.items() if found]:
        raise DataError(f"{name}: {'; '.join(wrong)}. Name data that fits the recipe's [model].")
    if y.dtype == torch.int64 and (int(y.min()) < 0 or int(y.max()) >= model.d_output):
        raise DataError(
            f"{name}: labels run from {int(y.min())} to {int(y.max())}, the recipe's model has "
            f"{model.d_output} classes (0 to {model.d_output - 1})."
        )
    if data.shift and math.prod(data.image) != x.shape[1]:
        raise DataError(
            f"{name}: sequences are {x.shape[1]} long, the recipe shifts images of "
            f"{' x '.join(map(str, data.image))}. Correct [data] image, or set shift = 0."
        )


def _is_numbers(x: Tensor, channels: int) -> bool:
    return x.ndim == 3 and x.shape[-1] == channels and x.is_floating_point()


def _is_tokens(x: Tensor, known: int) -> bool:
    return x.ndim == 2 and x.dtype == torch.int32 and (x.numel() == 0 or int(x.max()) < known)


def _is_labels(y: Tensor, outputs: tuple[int, ...]) -> bool:
    """True for targets, one for each output of a sample, and for classes of a model that gives one
    row of outputs a sample."""
    if y.is_floating_point():
        return (
            y.dtype == torch.float32 and y.ndim > 0 and math.prod(y.shape[1:]) == math.prod(outputs)
        )
    return y.dtype == torch.int64 and y.ndim == 1 and len(outputs) == 1


def digest(x: Tensor, y: Tensor) -> str:
    """A fingerprint of samples, to the bit: a resumed run must have the same."""
    found = hashlib.sha256()
    for tensor in (x, y):
        found.update(str(tuple(tensor.shape)).encode())
        found.update(tensor.contiguous().numpy().tobytes())
    return found.hexdigest()[:16]
