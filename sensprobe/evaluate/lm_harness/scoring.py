"""Log-likelihoods of tokens under what precedes them, many sequences at once.

No attention mask is needed, and no padding that a result could depend on. A recurrent model reads
from left to right: its output after t tokens depends on those t alone. So sequences of different
lengths are filled up on the right, and what comes after the end of one is cut off: nothing before
it has changed. Scales that a plan reads live are of one sequence and one step, so this holds for
every plan.

Sequences run in blocks, sorted by length, those that begin alike together; a block runs in
stretches, and one that several sequences share (see `sharing`) runs once. Blocks are the same
whatever the order of the requests. Float sums may depend, in the last bits, on how many sequences
run together, and a plan that rounds by chance draws by a sequence's place in its block.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor

from sensprobe.evaluate.language import ROOM, positions
from sensprobe.evaluate.lm_harness.sharing import Stretch, arranged, stretches
from sensprobe.models import OUTPUT_BYTES, Model
from sensprobe.models.forward import StreamState, chosen, run
from sensprobe.numerics.taps import RoundingTap, Tap
from sensprobe.plans.sites import Kind

TOGETHER = 256
"""Sequences that run together unless less is asked for, or they would not fit."""
STRETCHES = 16
"""The number of parts a block is cut into: more parts share more, and each takes time."""
LEAST, MOST = 4, 1024
"""Inputs of a stretch."""
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Asked:
    """Tokens (n,) int32, n at least 2, of which those from `first` (at least 1) on are scored."""

    tokens: np.ndarray
    first: int


@dataclass(frozen=True, slots=True)
class Likelihood:
    """log p of the scored tokens together, in nats, and whether each was the likeliest."""

    value: float
    greedy: bool


@dataclass(slots=True)
class Scorer:
    """A language model under a tap. `tick` is told how many sequences are done.

    A token costs at most `outcomes.CAP` nats, and that much where an output is not finite.
    """

    model: Model
    tap: Tap
    batch: int = TOGETHER
    tick: Callable[[int], None] = lambda count: None

    def likelihoods(self, asked: Sequence[Asked]) -> list[Likelihood]:
        """The scores of every sequence, in the order given."""
        found: dict[int, Likelihood] = {}
        order = arranged([one.tokens for one in asked])
        for block in blocks(order, [len(one.tokens) for one in asked], self.model, self.batch):
            scored = _Block([asked[place] for place in block])
            self._run(scored, len(found))
            found |= zip(block, scored.likelihoods(), strict=True)
            self.tick(len(block))
        return [found[place] for place in range(len(asked))]

    def _run(self, block: _Block, first: int) -> None:
        state: StreamState | None = None
        tap = self.tap.at(first) if isinstance(self.tap, RoundingTap) else self.tap
        tokens = [one.tokens for one in block.asked]
        with torch.inference_mode():
            for stretch in stretches(tokens, width_of(max(map(len, tokens)))):
                if state is not None:
                    state = chosen(state, torch.from_numpy(stretch.parents))
                x = torch.from_numpy(stretch.tokens[:, :-1])
                outputs, state = run(self.model, x, tap, state)  # type: ignore[arg-type]
                block.take(stretch, outputs)


def blocks(
    order: Sequence[int], lengths: Sequence[int], model: Model, most: int
) -> Iterator[list[int]]:
    """Places in order, as many together as `most`, halved until states and outputs fit
    `models.OUTPUT_BYTES` (or it is one)."""
    state = sum(4 * site.reals for site in model.sites.values() if site.kind is Kind.STATE)
    at = 0
    while at < len(order):
        count, fits = max(1, most), False
        while not fits:
            block = order[at : at + count]
            width = width_of(max(lengths[place] for place in block))
            each = max(state, 4 * width * model.config.d_output)
            fits = count == 1 or count * each <= OUTPUT_BYTES
            count = count if fits else count // 2
        yield list(block)
        at += count


def width_of(longest: int) -> int:
    """Inputs of a stretch in a block whose longest sequence has so many tokens."""
    return min(MOST, max(LEAST, -(-longest // STRETCHES)))


@dataclass(slots=True)
class _Block:
    """Sequences that run together, and what their tokens cost so far."""

    asked: Sequence[Asked]
    nats: np.ndarray = field(init=False)
    greedy: np.ndarray = field(init=False)
    _first: np.ndarray = field(init=False)
    _count: np.ndarray = field(init=False)

    def __post_init__(self) -> None:
        self.nats, self.greedy = np.zeros(len(self.asked)), np.ones(len(self.asked), bool)
        self._first = np.array([one.first for one in self.asked])
        self._count = np.array([len(one.tokens) for one in self.asked])

    def take(self, stretch: Stretch, outputs: Tensor) -> None:
        """Add what outputs (m, w, v) after a stretch say of the targets in it."""
        here = np.flatnonzero(stretch.rows >= 0)
        rows, target = stretch.rows[here], stretch.at + 1 + np.arange(outputs.shape[1])
        scored = (target >= self._first[here, None]) & (target < self._count[here, None])  # (k, w)
        wanted = np.zeros(outputs.shape[:2], bool)
        np.logical_or.at(wanted, rows, scored)
        nll, right = np.zeros(wanted.shape), np.ones(wanted.shape, bool)
        nll[wanted], right[wanted] = _costs(outputs, stretch.tokens[:, 1:], wanted)
        self.nats[here] += np.where(scored, nll[rows], 0).sum(1)
        self.greedy[here] &= (right[rows] | ~scored).all(1)

    def likelihoods(self) -> list[Likelihood]:
        return [Likelihood(-float(n), bool(g)) for n, g in zip(self.nats, self.greedy, strict=True)]


def _costs(outputs: Tensor, y: np.ndarray, wanted: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """nll and whether the likeliest, of the wanted positions of outputs (m, w, v), in order."""
    costs, best = [np.zeros(0)], [np.zeros(0, bool)]
    flat, targets = outputs.flatten(0, 1), torch.from_numpy(y.flatten()).long()
    places = torch.from_numpy(np.flatnonzero(wanted))
    for rows in places.split(max(1, ROOM // flat.shape[-1])):
        found = positions(flat[rows], targets[rows], None)
        costs.append(found["nll"].numpy())
        best.append(found["correct"].numpy() > 0)
    return np.concatenate(costs), np.concatenate(best)
