"""Data sets: named splits of sequences, each with an identity, whatever the source.

The steps of the main job must not see each other's samples, so the names are fixed:

    train         fits weights; may be absent where a model arrives trained
    calibration   fixes ranges and scales
    search        prices sensitivities and candidate plans
    confirmation  seen by no step before; its score is the result

**Identity.** `Split.fingerprint` covers the samples of one split (values, labels, groups and where
in the source they lie), so an evaluation on one split is keyed, and can be repeated, without the
files of the others. `Dataset.fingerprint` covers every split that exists, so it needs all of them;
it is what a run folder is bound to. Both hash decoded values: packing a file again changes neither.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from itertools import combinations
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from sensprobe.errors import DataError

Task = Literal["classification", "regression", "language", "unlabelled"]
SPLIT_NAMES = ("train", "calibration", "search", "confirmation")


@dataclass(frozen=True, eq=False)
class Split:
    """Samples in a fixed order; position i is the same sample in every run.

    x (n, l, c) float32, or tokens (n, l) int32; y (n,) int64 class labels, (n, ...) float32
    targets, or (n, 0) where there are none; group (n,) int64 or None: samples of one group are
    correlated and cluster in error bars; index (n,) int64: positions in `source`, which tells apart
    files that each count from 0.

    Of language x and y are tokens (n, l) int32: y is what follows each of x, -1 where that is not
    scored; scored_bytes (n,) int64 counts the text that is.
    """

    name: str
    x: Tensor
    y: Tensor
    group: Tensor | None
    index: Tensor
    source: str
    fingerprint: str
    scored_bytes: Tensor | None = None

    def __len__(self) -> int:
        return self.x.shape[0]


@dataclass(frozen=True)
class LazySplit:
    """A split that is read when first asked for; its size and place are known beforehand."""

    count: int
    load: Callable[[], Split]
    fingerprint: Callable[[], str]


class Splits(Mapping[str, Split]):
    """The splits that exist, in the order of `SPLIT_NAMES`; each is loaded once, on first access.

    `absent` says why a split is missing; asking for it is a `DataError` with that reason.
    """

    def __init__(self, sources: Mapping[str, LazySplit], absent: Mapping[str, str] | None = None):
        self._sources = {name: sources[name] for name in SPLIT_NAMES if name in sources}
        self._absent = dict(absent or {})
        self._loaded: dict[str, Split] = {}

    def __getitem__(self, name: str) -> Split:
        if name not in self._sources:
            raise DataError(self._missing(name))
        if name not in self._loaded:
            self._loaded[name] = self._sources[name].load()
        return self._loaded[name]

    def __contains__(self, name: object) -> bool:
        return name in self._sources

    def __iter__(self) -> Iterator[str]:
        return iter(self._sources)

    def __len__(self) -> int:
        return len(self._sources)

    def count(self, name: str) -> int:
        """Samples of a split, without loading it."""
        if name not in self._sources:
            raise DataError(self._missing(name))
        return self._sources[name].count

    def fingerprint(self, name: str) -> str:
        """`self[name].fingerprint`, without building the tensors where the source can."""
        if name not in self._sources:
            raise DataError(self._missing(name))
        return self._sources[name].fingerprint()

    def _missing(self, name: str) -> str:
        has = ", ".join(self._sources)
        if name not in SPLIT_NAMES:
            return f"no split is called {name!r}; this data has {has}"
        reason = self._absent.get(name, "name it in the data's `split` array to have one")
        return f"this data has no {name} split, it has {has}; {reason}"


@dataclass(frozen=True, eq=False)
class Dataset:
    """Sequences of one length and their labels or targets, cut into disjoint splits.

    `name` is the spec it was loaded from. `outputs` is what a model must give a sample: one logit a
    class, one value a target, none without labels; of language it and `d_input` are the vocabulary
    of the tokenizer. `notes` record what was decided for the user (a split carved out). With
    `tokens` x is not numbers but tokens (n, l) int32 below `d_input`; with `per_step` y has targets
    at every step, which a model must give outputs for. Language is both.
    """

    name: str
    task: Task
    splits: Splits
    classes: int | None
    outputs: int
    length: int
    d_input: int
    notes: tuple[str, ...] = ()
    tokens: bool = False
    per_step: bool = False

    @cached_property
    def fingerprint(self) -> str:
        """sha256 over the fingerprints of all splits; reads every file the splits need."""
        parts = {name: self.splits.fingerprint(name) for name in self.splits}
        layout = {"task": self.task, "classes": self.classes, "splits": parts}
        return hashlib.sha256(json.dumps(layout, sort_keys=True).encode()).hexdigest()

    def sizes(self) -> dict[str, int]:
        """Samples a split, without loading any."""
        return {name: self.splits.count(name) for name in self.splits}

    def describe(self) -> str:
        """One line that names the data and its splits."""
        kind = f"{self.classes} classes" if self.task == "classification" else self.task
        cut = ", ".join(f"{name} {count:,}" for name, count in self.sizes().items())
        return f"{self.name}: {kind}, length {self.length} x {self.d_input} in; {cut}"

    def check_disjoint(self) -> None:
        """Raise `DataError` if two splits share a sample of one source. Loads every split."""
        for a, b in combinations(self.splits.values(), 2):
            if a.source != b.source:
                continue
            shared = np.intersect1d(a.index.numpy(), b.index.numpy())
            if shared.size:
                raise DataError(
                    f"{a.name} and {b.name} share {shared.size} sample(s) of {a.source}, "
                    f"the first at position {shared[0]}; splits must be disjoint"
                )


def check_fits(dataset: Dataset, *, d_input: int, outputs: int) -> None:
    """Raise `DataError` unless a model of these widths can be run on the data and scored by it."""
    if dataset.task == "language":
        known = min(d_input, outputs)
        if dataset.d_input > known:
            raise DataError(
                f"{dataset.name}: the tokenizer does not fit: it makes tokens up to "
                f"{dataset.d_input - 1:,}, the model knows 0 to {known - 1:,}; put the "
                "tokenizer.json of this very model into its folder"
            )
        return
    if dataset.tokens:
        if dataset.d_input > d_input:
            raise DataError(
                f"{dataset.name} has tokens 0 to {dataset.d_input - 1}, the model knows 0 to "
                f"{d_input - 1}; name a model of as many"
            )
    elif dataset.d_input != d_input:
        raise DataError(
            f"{dataset.name} has {dataset.d_input} value(s) a step, the model takes {d_input}; "
            "name data of the model's width"
        )
    if dataset.task == "classification" and (dataset.classes or 0) > outputs:
        raise DataError(
            f"{dataset.name} has labels up to {(dataset.classes or 0) - 1}, the model has "
            f"{outputs} classes (labels 0 to {outputs - 1}); name data with the model's labels"
        )
    if dataset.task == "unlabelled" and outputs < 2:
        raise DataError(
            f"{dataset.name} has no y, so outputs can only be compared with full precision's, as "
            "logits, and the model gives one number; give y"
        )
    if dataset.task == "regression" and dataset.outputs != outputs:
        each = "step" if dataset.per_step else "sample"
        raise DataError(
            f"{dataset.name} has {dataset.outputs} target(s) a {each}, the model gives {outputs}; "
            "name data with the model's targets. Floats in y mean regression: labels are integers"
        )


def hash_arrays(*arrays: np.ndarray | None) -> str:
    """sha256 over dtype, shape and values of each array, in order; None counts as a value."""
    digest = hashlib.sha256()
    for array in arrays:
        if array is None:
            digest.update(b"none;")
            continue
        little = np.ascontiguousarray(array, dtype=array.dtype.newbyteorder("<"))
        digest.update(f"{little.dtype.str}{little.shape};".encode())
        digest.update(little.reshape(-1).view(np.uint8).data)
    return digest.hexdigest()


def build_split(
    name: str,
    x: np.ndarray,
    y: np.ndarray,
    index: np.ndarray,
    source: str,
    group: np.ndarray | None = None,
    fingerprint: str | None = None,
    scored_bytes: np.ndarray | None = None,
) -> Split:
    """A `Split` from arrays that are checked already and in their final dtypes."""
    more = () if scored_bytes is None else (scored_bytes,)
    return Split(
        name=name,
        x=torch.from_numpy(np.ascontiguousarray(x)),
        y=torch.from_numpy(np.ascontiguousarray(y)),
        group=None if group is None else torch.from_numpy(np.ascontiguousarray(group)),
        index=torch.from_numpy(np.ascontiguousarray(index, dtype=np.int64)),
        source=source,
        fingerprint=fingerprint or hash_arrays(x, y, group, index, *more),
        scored_bytes=None if scored_bytes is None else torch.from_numpy(scored_bytes),
    )


def loaded(split: Split) -> LazySplit:
    """A split that is in memory already, as an entry of `Splits`."""
    return LazySplit(len(split), lambda: split, lambda: split.fingerprint)
