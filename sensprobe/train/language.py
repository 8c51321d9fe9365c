"""Learning a language model over bytes, so many steps a leg.

Windows are drawn at random from documents, any place in them alike.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from sensprobe.checkpoints.own import build
from sensprobe.data import Split
from sensprobe.errors import DataError
from sensprobe.evaluate import TextEvaluator
from sensprobe.models import forward
from sensprobe.models.apply import Applier
from sensprobe.models.forward import Layer, one_layer
from sensprobe.numerics.taps import EXACT
from sensprobe.train.loop import Loss, initial, network
from sensprobe.train.ram import StepBytes, step_bytes
from sensprobe.train.recipe import LanguageRecipe

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


@dataclass(frozen=True)
class LanguageTask:
    """Training by a recipe on text (see `loop.Task`).

    pools: shares (they add up to 1) and what that part of each batch is drawn from. Held-out bits
    per byte are those of the first `VALIDATION_WINDOWS` windows of `validation`.
    """

    recipe: LanguageRecipe
    pools: Sequence[tuple[float, Pool]]
    validation: Split
    layer: Layer = one_layer  # how a layer is run: see `train.ram`
    metric = METRIC
    leg_name = "leg"

    @property
    def identity(self) -> dict[str, Any]:
        return {
            "recipe": asdict(self.recipe),
            "text": [[share, pool.fingerprint] for share, pool in self.pools],
            "validation": self.validation.fingerprint,
        }

    def initial(self) -> dict[str, Tensor]:
        return initial(self.recipe)

    @property
    def clip(self) -> float:
        return self.recipe.optimizer.clip

    @property
    def legs(self) -> list[range]:
        steps, every = self.recipe.schedule.total, self.recipe.schedule.every
        return [range(first, min(first + every, steps)) for first in range(0, steps, every)]

    def rate(self, step: int) -> float:
        return self.recipe.schedule.rate(step)

    def optimizer(self, params: Mapping[str, Tensor]) -> torch.optim.AdamW:
        """Two groups: matrices, which decay, and the others."""
        choices = self.recipe.optimizer
        matrix = {n: p.ndim == 2 and not n.endswith("A_log") for n, p in params.items()}
        groups = [
            {
                "params": [p for n, p in params.items() if matrix[n] == decays],
                "base": choices.lr,
                "weight_decay": decay,
            }
            for decays, decay in ((True, choices.weight_decay), (False, 0.0))
        ]
        return torch.optim.AdamW(groups, lr=choices.lr, betas=(0.9, choices.beta2), fused=True)

    def batches(self, leg: int) -> Iterator[Tensor]:
        """Windows (batch, length + 1), each from a pool drawn by its share."""
        generator = torch.Generator().manual_seed(self.recipe.seed * 100_003 + leg + 1)
        shares = torch.tensor([share for share, _ in self.pools])
        size, several = self.recipe.optimizer.batch, len(self.pools) > 1
        for _ in self.legs[leg]:
            counts = [size]
            if several:
                chosen = torch.multinomial(shares, size, replacement=True, generator=generator)
                counts = torch.bincount(chosen, minlength=len(shares)).tolist()
            pairs = zip(counts, self.pools, strict=True)
            yield torch.cat([pool.draw(n, generator) for n, (_, pool) in pairs])

    def loss(self, params: Mapping[str, Tensor], batch: Tensor) -> Loss:
        """Cross-entropy in nats; its score is in bits, as a token is a byte."""
        model: Any = network(params, self.recipe.model)
        logits = forward.outputs(model, batch[:, :-1], EXACT, self.layer)
        value = F.cross_entropy(logits.flatten(0, 1), batch[:, 1:].flatten())
        return Loss(value, 1, value.item() / math.log(2))

    def checkpoint(self, params: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        return params

    @property
    def batch(self) -> int:
        """Windows a step."""
        return self.recipe.optimizer.batch

    @property
    def length(self) -> int:
        """Tokens of a window."""
        return self.recipe.text.length

    def step_bytes(self) -> StepBytes:
        """The RAM that a step takes, counted on a few windows."""
        params = {name: p.requires_grad_() for name, p in self.initial().items()}

        def loss(layer: Layer, n: int) -> Tensor:
            windows = torch.zeros(n, self.length + 1, dtype=torch.long)
            return replace(self, layer=layer).loss(params, windows).value

        return step_bytes(loss, params.values(), self.batch)

    def held_out(self, params: Mapping[str, Tensor]) -> np.ndarray:
        trained = {name: p.detach() for name, p in params.items()}
        model = build(trained, self.recipe.model, Path("in training"))
        evaluator = TextEvaluator(model, Applier(model), self.validation, divergence=False)
        count = min(VALIDATION_WINDOWS, len(self.validation))
        return evaluator.evaluate({}, 0, count)[METRIC].astype(np.float64)

    def entry(self, leg: int, loss: float, score: float, held_out: float) -> dict[str, float]:
        return {"steps": self.legs[leg].stop, "loss": loss, METRIC: held_out}

    def recorded(self, entry: Mapping[str, float]) -> dict[str, Any]:
        return {
            "metric": METRIC,
            "value": entry[METRIC],
            "n": min(VALIDATION_WINDOWS, len(self.validation)),
            "split": "validation",
            "steps": entry["steps"],
        }
