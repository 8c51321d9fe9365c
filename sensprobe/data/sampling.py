"""Taking a part of a split that represents the whole: the beginning of a seeded order.

Data often lies in an order, by class or by day, and its first N samples are no sample of it. In the
order made here every beginning holds each class in nearly its share, and groups (recordings,
documents) whole and in a random order. So the first N are a stratified sample of whole groups, the
first M > N hold them, and the same data and seed give the same samples on every machine.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from sensprobe.data.dataset import Split
from sensprobe.errors import UsageError

Order = NDArray[np.int64]
CLEAR = 6.0
"""Standard errors beyond which a beginning is called unlike the rest."""


@dataclass(frozen=True, eq=False)
class Reordered:
    """A whole split in another order; `order` holds the positions that its samples had before.

    Its fingerprint is its own, because samples are addressed by position.
    """

    split: Split
    order: Order
    seed: int


def reordered(split: Split, seed: int) -> Reordered:
    """The split in the seeded order that this module is about."""
    group = None if split.group is None else split.group.numpy()
    order = _order(_labels(split), group, len(split), seed)

    def moved(x: Tensor | None) -> Tensor | None:
        return None if x is None else x[order]

    mark = hashlib.sha256(f"{split.fingerprint}:order 1:{seed}".encode()).hexdigest()
    found = replace(
        split,
        x=split.x[order],
        y=split.y[order],
        group=moved(split.group),
        index=split.index[order],
        scored_bytes=moved(split.scored_bytes),
        fingerprint=mark,
    )
    return Reordered(found, order, seed)


def check_limit(name: str, count: int, limit: int) -> None:
    """UsageError for a limit that leaves none of a split's samples."""
    if limit < 1:
        raise UsageError(
            f"--limit {limit} leaves no samples of {name}; "
            f"give 1 to {count:,}, or leave it out to use all"
        )


def beginning(split: Split, limit: int) -> int:
    """The number of first samples of a reordered split to take: `limit`, or a little less where
    that leaves groups whole. The last group is cut where less than half would be left, or but one
    group, of which no error of a difference could be told."""
    if split.group is None or limit >= len(split):
        return min(limit, len(split))
    group = split.group.numpy()
    ends = (np.flatnonzero(np.diff(group)) + 1)[1:]  # of the second group and later ones
    whole = int(ends[ends <= limit].max(initial=0))
    return whole if 2 * whole >= limit else limit


def missing_classes(split: Split, stop: int) -> list[int]:
    """Classes that the split has and its first `stop` samples do not."""
    labels = _labels(split)
    if labels is None:
        return []
    return [int(c) for c in np.setdiff1d(labels, labels[:stop])]


def is_ordered(split: Split, first: int) -> bool:
    """True if the labels (or targets) of the first samples are clearly not those of the rest."""
    y = split.y.numpy()
    if not 0 < first < len(y) or y.dtype == np.int32 or y.size == 0:
        return False
    share = first / len(y)
    if y.dtype == np.int64:
        _, of, counts = np.unique(y, return_inverse=True, return_counts=True)
        here = np.bincount(of[:first], minlength=len(counts))
        spread = counts * share * (1 - share)
        chi2 = float(((here - counts * share) ** 2 / spread).sum())
        return chi2 - len(counts) > CLEAR * np.sqrt(2 * len(counts))
    values = y.reshape(len(y), -1).astype(np.float64)
    away = values[:first].mean(0) - values.mean(0)
    error = values.std(0) * np.sqrt((1 - share) / first)
    return bool((np.abs(away) > CLEAR * error).any())


def _labels(split: Split) -> NDArray[np.int64] | None:
    """Class labels (n,); None where the task is another."""
    y = split.y.numpy()
    return y if y.ndim == 1 and y.dtype == np.int64 else None


def _order(
    labels: NDArray[np.int64] | None, group: NDArray[np.int64] | None, n: int, seed: int
) -> Order:
    """Units (samples, or groups) dealt out so that each class advances by its share.

    A unit counts for the class most common in it. Within a class, in random order, a unit of s
    samples that follows b of the class's m has position (b + s/2) / m; units of equal position are
    in random order.
    """
    rng = np.random.default_rng(seed)
    unit = np.arange(n) if group is None else np.unique(group, return_inverse=True)[1]
    count = int(unit.max()) + 1 if n else 0
    sizes = np.bincount(unit, minlength=count)
    stratum = np.zeros(count, np.int64) if labels is None else _commonest(labels, unit)
    place = np.empty(count)
    shuffled = rng.permutation(count)
    for one in np.unique(stratum):
        mine = shuffled[stratum[shuffled] == one]
        place[mine] = (np.cumsum(sizes[mine]) - sizes[mine] / 2) / sizes[mine].sum()
    rank = np.empty(count, np.int64)
    rank[np.lexsort((rng.permutation(count), place))] = np.arange(count)
    return np.argsort(rank[unit], kind="stable")


def _commonest(labels: NDArray[np.int64], unit: NDArray[np.int64]) -> NDArray[np.int64]:
    """The class of most samples of each unit; of equals the first."""
    pairs, counts = np.unique(np.stack([unit, labels], 1), axis=0, return_counts=True)
    rows = np.lexsort((pairs[:, 1], -counts, pairs[:, 0]))
    _, first = np.unique(pairs[rows, 0], return_index=True)
    return np.asarray(pairs[rows[first], 1])
