"""The samples of a split that a session uses, and their order."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from sensprobe.data import (
    Dataset,
    Reordered,
    Split,
    beginning,
    check_limit,
    is_ordered,
    missing_classes,
    reordered,
)
from sensprobe.evaluate import BATCH
from sensprobe.progress import SILENT, Progress

FEW_GROUPS = 30
"""Below this many groups an error estimated from them is itself uncertain."""


@dataclass(slots=True)
class Samples:
    """The splits of a data set, each as it lies or in a seeded order."""

    dataset: Dataset
    seed: int = 0  # of the order that a part of a split is the beginning of
    progress: Progress = SILENT
    _orders: dict[str, Reordered] = field(default_factory=dict)
    _used: dict[str, Reordered] = field(default_factory=dict)  # in place of the split as it lies

    def use(self, split: str, limit: int | None = None, *, raced: bool = False) -> int:
        """Choose which samples of a split are used from now on; returns how many.

        Without a limit all of them as they lie; with one the beginning of a seeded order, which is
        a stratified sample of whole groups. Where plans are raced over parts of the split (from
        `BATCH` samples on), a split that lies by class is taken in that order as well. Tells the
        progress what a user should know of the choice.
        """
        count = self.dataset.splits.count(split)
        if limit is not None:
            check_limit(split, count, limit)
        part = limit is not None and limit < count
        self.take(split, part or (raced and is_ordered(self.dataset.splits[split], BATCH)))
        stop = beginning(self.split(split), limit) if part and limit is not None else count
        for note in self._notes(split, stop, limit):
            self.progress.note(note)
        return stop

    def split(self, name: str) -> Split:
        """The split in the order in which it is used."""
        return self._used[name].split if name in self._used else self.dataset.splits[name]

    def order(self, split: str) -> np.ndarray | None:
        """The indices of the seeded order a split is used in; None where it is used as it lies."""
        return self._used[split].order if split in self._used else None

    def fingerprint(self, split: str) -> str:
        """Identifies a split's samples in the order in which they are used."""
        if split in self._used:
            return self._used[split].split.fingerprint
        return self.dataset.splits.fingerprint(split)

    def groups(self, split: str, stop: int) -> np.ndarray | None:
        """The group (n,) of each of the first `stop` samples; None where data has no groups."""
        group = self.split(split).group
        return None if group is None else group[:stop].numpy()

    def describe(self, split: str, stop: int) -> dict[str, Any]:
        """The choice of samples, as documents of a run record it."""
        groups = self.groups(split, stop)
        return {
            "order": "stratified" if split in self._used else "as it lies",
            "seed": self.seed,
            "n": stop,
            "of": self.dataset.splits.count(split),
            "groups": None if groups is None else len(np.unique(groups)),
            "missing_classes": missing_classes(self.split(split), stop),
        }

    @property
    def ordered(self) -> frozenset[str]:
        """The splits that are used in the seeded order now."""
        return frozenset(self._used)

    def take(self, split: str, in_order: bool) -> None:
        """Take a split in the seeded order from now on, or as it lies."""
        if not in_order:
            self._used.pop(split, None)
        elif split not in self._used:
            if split not in self._orders:
                self._orders[split] = reordered(self.dataset.splits[split], self.seed)
            self._used[split] = self._orders[split]

    def _notes(self, split: str, stop: int, limit: int | None) -> Iterator[str]:
        count = self.dataset.splits.count(split)
        if limit is not None and limit > count:
            yield f"--limit {limit:,} is beyond the end: {split} has {count:,} samples, all used"
        if stop == count and split in self._used:
            yield f"{split} lies in an order: plans are raced over it shuffled, by class"
        if missing := missing_classes(self.split(split), stop):
            few = ", ".join(map(str, missing[:5])) + (", …" if len(missing) > 5 else "")
            yield (
                f"the {stop:,} {split} samples used here hold nothing of {len(missing)} of its "
                f"classes ({few}): raise --limit"
            )
        groups = self.groups(split, stop)
        if groups is not None and (found := len(np.unique(groups))) < FEW_GROUPS:
            samples = f"the {stop:,} {split} samples"
            if found == 1:
                yield f"{samples} are all of one group, which tells no error{self._more(split)}"
            else:
                yield f"{samples} form only {found} groups: errors are rough"

    def _more(self, split: str) -> str:
        """The limit that takes two groups of a split whose beginning is all of one, in words."""
        group = self.groups(split, len(self.split(split)))
        ends = [] if group is None else [*(np.flatnonzero(np.diff(group)) + 1), len(group)]
        if len(ends) < 2:
            return f", and {split} has no other"
        return f" and allows no search: --limit {ends[1]:,} takes two"
