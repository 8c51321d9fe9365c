"""The search's vocabulary in plain values: nothing here knows a model, a tensor or a data set.

A *decision* is a group of sites that share one scheme; an *option* is one scheme it may take; an
*assignment* names one option for each decision, by index. Bytes are exact integers and add up
over decisions. Losses are sensitivities in additive units (KL or cross-entropy, nats a sample):
accuracy saturates and does not add up, so it never enters a sum.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import isnan, nan, prod
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from sensprobe.errors import UsageError

Assignment: TypeAlias = tuple[int, ...]
Array: TypeAlias = NDArray[np.float64]

UNUSED = -1  # stands for "left at full precision" where a single decision was measured
OVERFLOW_NATS = 1e3  # what an infinite sensitivity counts as: out of reach, yet finite for a solver


@dataclass(frozen=True, slots=True)
class Option:
    """One scheme for one decision.

    `loss` is its sensitivity (nats a sample, additive), `stderr` its standard error, `bits` the
    effective bits a value. `family` names the options that `bits` orders (same format family,
    granularity and range): an int8 per tensor may truly be worse than an int6 per head. `drop` is
    what the score loses to this option alone (score's unit), where that was measured.
    """

    scheme: str
    weight_bytes: int
    state_bytes: int
    loss: float
    stderr: float = 0.0
    bits: float = 0.0
    family: str = ""
    drop: float = nan

    @property
    def total_bytes(self) -> int:
        return self.weight_bytes + self.state_bytes


@dataclass(frozen=True, slots=True)
class Decision:
    """A group of sites that share a scheme. `depth`: 0 is the first layer, 1 the last."""

    name: str
    part: str
    depth: float
    options: tuple[Option, ...]


@dataclass(frozen=True, slots=True)
class Pair:
    """Extra loss, beyond the sum, when decision i takes option a and decision j option b."""

    i: int
    a: int
    j: int
    b: int
    extra: float


@dataclass(frozen=True, slots=True)
class Size:
    """Bytes of a plan; the state's at the batch the problem was priced for."""

    weight: int
    state: int

    @property
    def total(self) -> int:
        return self.weight + self.state


@dataclass(frozen=True, slots=True)
class Budget:
    """Upper limits. None leaves one open.

    `max_loss` is in the score's own unit: 0.005 is half a point of accuracy. With it the search
    looks for the fewest bytes that lose no more than that.
    """

    total: int | None = None
    weight: int | None = None
    state: int | None = None
    max_loss: float | None = None
    label: str = ""

    def admits(self, size: Size) -> bool:
        """True if the bytes fit; the loss is not looked at."""
        limits = ((self.total, size.total), (self.weight, size.weight), (self.state, size.state))
        return all(limit is None or spent <= limit for limit, spent in limits)

    @property
    def limits_bytes(self) -> bool:
        return any(limit is not None for limit in (self.total, self.weight, self.state))

    def __str__(self) -> str:
        named = (("total", self.total), ("weight", self.weight), ("state", self.state))
        limits = [f"{limit} {name} bytes" for name, limit in named if limit is not None]
        if self.max_loss is not None:
            limits.append(f"{self.max_loss:g} of the score lost")
        return self.label or ", ".join(limits) or "no limit"


@dataclass(frozen=True, slots=True)
class Problem:
    """Every decision with its options, the bytes no decision can change, and known interactions."""

    decisions: tuple[Decision, ...]
    fixed_weight_bytes: int = 0
    fixed_state_bytes: int = 0
    pairs: tuple[Pair, ...] = ()

    def __post_init__(self) -> None:
        names = [decision.name for decision in self.decisions]
        if not names:
            raise UsageError("nothing to search: the problem has no decisions; free some sites.")
        if len(set(names)) < len(names):
            twice = sorted({name for name in names if names.count(name) > 1})
            raise UsageError(f"decisions must differ in name; given twice: {', '.join(twice)}.")
        for decision in self.decisions:
            _check(decision)
        for pair in self.pairs:
            _check_pair(pair, self.decisions)

    @property
    def count(self) -> int:
        """The number of assignments."""
        return prod(len(decision.options) for decision in self.decisions)

    def chosen(self, assignment: Assignment) -> list[Option]:
        """The options an assignment names; an error if it names none that exist."""
        if len(assignment) != len(self.decisions):
            raise UsageError(
                f"an assignment of {len(assignment)} options was given for "
                f"{len(self.decisions)} decisions; give one option each."
            )
        pairs = zip(self.decisions, assignment, strict=True)
        for decision, index in pairs:
            if not 0 <= index < len(decision.options):
                raise UsageError(
                    f"decision {decision.name} has options 0-{len(decision.options) - 1}, "
                    f"not {index}."
                )
        return [d.options[index] for d, index in zip(self.decisions, assignment, strict=True)]

    def size(self, assignment: Assignment) -> Size:
        """Exact bytes of an assignment."""
        options = self.chosen(assignment)
        return Size(
            self.fixed_weight_bytes + sum(option.weight_bytes for option in options),
            self.fixed_state_bytes + sum(option.state_bytes for option in options),
        )

    def loss(self, assignment: Assignment) -> float:
        """Predicted loss: the sum of the sensitivities and of the pairs that meet."""
        alone = sum(min(option.loss, OVERFLOW_NATS) for option in self.chosen(assignment))
        met = (p for p in self.pairs if assignment[p.i] == p.a and assignment[p.j] == p.b)
        return alone + sum(pair.extra for pair in met)

    def smallest(self) -> Size:
        """The least weight, and the least state, any assignment has (each on its own)."""
        return self._extreme(min)

    def largest(self) -> Size:
        """The most weight, and the most state, any assignment has (each on its own)."""
        return self._extreme(max)

    def _extreme(self, pick: Callable[[list[int]], int]) -> Size:
        options = [decision.options for decision in self.decisions]
        return Size(
            self.fixed_weight_bytes + sum(pick([o.weight_bytes for o in row]) for row in options),
            self.fixed_state_bytes + sum(pick([o.state_bytes for o in row]) for row in options),
        )


@dataclass(frozen=True, eq=False)
class Sample:
    """The result of one evaluation, sample by sample, on one piece of the data.

    `score` is the metric, higher is better (1 or 0 for a right or wrong class); `loss` the
    cross-entropy in nats; `group` names samples that came from one source and are not independent.
    """

    score: Array
    loss: Array
    group: NDArray[np.generic] | None = None
    outcome: Array | None = None  # (n, k), of a score that is no mean over samples: what it is of
    pooled: Callable[[Array], Array] | None = None  # outcomes of some samples -> their scores

    @property
    def n(self) -> int:
        return len(self.score)

    def first(self, n: int) -> Sample:
        """The first n samples, scored by themselves."""
        if n >= self.n:
            return self
        group = None if self.group is None else self.group[:n]
        if self.outcome is None or self.pooled is None:
            return Sample(self.score[:n], self.loss[:n], group)
        outcome = self.outcome[:n]
        return Sample(self.pooled(outcome), self.loss[:n], group, outcome, self.pooled)

    @staticmethod
    def join(pieces: Sequence[Sample]) -> Sample:
        """The pieces as one sample, in order."""
        if len(pieces) == 1:
            return pieces[0]
        groups = [piece.group for piece in pieces if piece.group is not None]
        group = np.concatenate(groups) if len(groups) == len(pieces) else None
        loss = np.concatenate([piece.loss for piece in pieces])
        outcomes = [piece.outcome for piece in pieces if piece.outcome is not None]
        if (pooled := pieces[0].pooled) is not None:
            outcome = np.concatenate(outcomes)
            return Sample(pooled(outcome), loss, group, outcome, pooled)
        return Sample(np.concatenate([piece.score for piece in pieces]), loss, group)


Evaluate: TypeAlias = Callable[[Sequence[Assignment], int], Sequence[Sample]]
"""(assignments, k) -> the samples of piece k under each. Pieces are disjoint; pieces 0 to k are
together the k-th of nested, growing chunks. The caller caches, so asking twice costs nothing."""


@dataclass(frozen=True)
class Candidate:
    """One assignment that was really evaluated.

    `drop` is baseline score minus its score on the samples it saw, paired, in the score's unit
    (0.01 is a point of accuracy), `drop_p` the p of the two tests of it (`score.either`);
    `extra_nats` likewise for the loss. `stopped`: the race dropped it before it saw every sample,
    so its numbers are of `n` samples only.
    """

    name: str
    assignment: Assignment
    size: Size
    predicted: float
    score: float
    stderr: float
    drop: float
    drop_stderr: float
    extra_nats: float
    n: int
    stopped: bool = False
    drop_p: float = nan


@dataclass(frozen=True)
class Choice:
    """The answer for one budget; `candidate` is None where no plan met `max_loss`.

    `drop_bound` is the one-sided 95 % upper bound of the loss. `uniform` is the best
    uniform plan within the same limits, None where none fits; `hand` that plan with the best single
    upgrade that fits, and `hand_about` what that is, in words (see `byhand`).
    """

    budget: Budget
    candidate: Candidate | None
    drop_bound: float | None = None
    uniform: Candidate | None = None
    hand: Candidate | None = None
    hand_about: str = ""


@dataclass(frozen=True)
class Event:
    """Progress: what just happened, and the evaluations spent and allowed."""

    kind: str  # "evaluated", "stopped" or "interrupted"
    text: str
    spent: float
    allowed: float
    candidate: Candidate | None = None


@dataclass(frozen=True)
class SearchResult:
    """Everything a search did. `front` holds the candidates no other beats on score and bytes."""

    method: str
    candidates: tuple[Candidate, ...]
    choices: tuple[Choice, ...]
    front: tuple[Candidate, ...]
    spent: float
    interrupted: bool = False


def _check(decision: Decision) -> None:
    if not decision.options:
        raise UsageError(f"decision {decision.name} has no options; name at least one scheme.")
    for option in decision.options:
        if min(option.weight_bytes, option.state_bytes) < 0:
            raise UsageError(f"{decision.name} in {option.scheme} has negative bytes.")
        if isnan(option.loss) or isnan(option.stderr) or isnan(option.bits):
            raise UsageError(
                f"the sensitivity of {decision.name} in {option.scheme} is not a number; "
                "profile it again."
            )


def _check_pair(pair: Pair, decisions: tuple[Decision, ...]) -> None:
    ends = ((pair.i, pair.a), (pair.j, pair.b))
    inside = all(
        0 <= d < len(decisions) and 0 <= option < len(decisions[d].options) for d, option in ends
    )
    if not inside or pair.i == pair.j or not np.isfinite(pair.extra):
        raise UsageError(f"{pair} does not join two options of two decisions of this problem.")
