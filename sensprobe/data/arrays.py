"""A user's own arrays, from an npz file or their own code, checked and brought to final dtypes.

x is (n, l) or (n, l, c) of any real numbers and becomes float32. y decides the task: integers
(n,) from 0 are class labels, floats (n,) or (n, ...) are regression targets; without y models can
still be compared with themselves at full precision. `group` (n,) marks
correlated samples. Pickled (object) arrays are refused: reading one can run code.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

import numpy as np

from sensprobe.data.dataset import (
    SPLIT_NAMES,
    Dataset,
    LazySplit,
    Splits,
    Task,
    build_split,
    loaded,
)
from sensprobe.data.npz import read_npz
from sensprobe.data.splitting import canonical_split, name_splits, shuffled_splits
from sensprobe.documents import shown
from sensprobe.errors import DataError

FIELDS = ("x", "y", "split", "group")


@dataclass(frozen=True)
class Samples:
    """Checked arrays of one length n: x (n, l, c) float32; y (n,) int64 or (n, ...) float32."""

    x: np.ndarray
    y: np.ndarray
    group: np.ndarray | None  # (n,) int64
    split: np.ndarray | None  # (n,) str

    @property
    def task(self) -> Task:
        if self.y.dtype == np.int64:
            return "classification"
        return "regression" if prod(self.y.shape[1:]) else "unlabelled"


def load_npz(path: Path, spec: str, seed: int) -> Dataset:
    """Arrays x and optionally y, split and group of one .npz file."""
    fields, found = read_npz(path, spec, FIELDS)
    if "y" not in fields and b"y.npy" in path.read_bytes():
        raise DataError(f"{spec}: {path} is damaged: it has a y that its index lacks")
    return from_fields(fields, spec, seed, found)


def from_mapping(value: object, spec: str, seed: int) -> Dataset:
    """The data set that a user's function returned: arrays x and y, or split name -> such."""
    if not isinstance(value, Mapping):
        raise DataError(
            f"{spec} returned {type(value).__name__}; return a mapping with x and y, "
            "or of split names to such mappings"
        )
    if value and all(isinstance(part, Mapping) for part in value.values()):
        return _from_parts(value, spec, seed)
    return from_fields(value, spec, seed, [str(key) for key in value])


def from_fields(fields: Mapping[str, Any], spec: str, seed: int, found: list[str]) -> Dataset:
    """One set of arrays, cut by its `split` array or, where it has none, by a seeded shuffle."""
    samples = check_samples(fields, spec, found)
    if samples.split is None:
        members, notes = shuffled_splits(len(samples.x), samples.group, seed, spec)
    else:
        members, notes = name_splits(samples.split, samples.group, seed, spec)
    sources = {name: _lazy(name, samples, index, "arrays") for name, index in members.items()}
    notes += _repeats(samples, members, spec)
    if samples.task == "unlabelled":
        notes += (f"{spec} has no y: outputs are only compared with those of full precision",)
    return _dataset(spec, [samples], sources, notes)


def _repeats(samples: Samples, members: Mapping[str, np.ndarray], spec: str) -> tuple[str, ...]:
    """A note for every split that repeats samples of earlier ones.

    DataError for a named split that holds no other samples: a confirmation on it proves nothing.
    """
    notes, seen = [], set[bytes]()
    for name in (name for name in SPLIT_NAMES if name in members):
        rows = [samples.x[i].tobytes() + samples.y[i].tobytes() for i in members[name]]
        again = sum(row in seen for row in rows)
        if again == len(rows) and samples.split is not None:
            raise DataError(
                f"{spec}: every sample of {name} is in another split too (same x and y); splits "
                "must be disjoint"
            )
        if again:
            notes.append(
                f"{again:,} of {len(rows):,} {name} samples repeat samples of other splits (same x "
                "and y): mark repeats by `group` to keep them together"
            )
        seen.update(rows)
    return tuple(notes)


def _from_parts(value: Mapping[Any, Mapping[str, Any]], spec: str, seed: int) -> Dataset:
    """Joins the splits a user named into one set of samples, so that one rule carves the rest."""
    parts = {}
    for key, fields in value.items():
        name = canonical_split(str(key), spec)
        if name in parts:
            raise DataError(f"{spec} returned the split {name} twice (second as {key!r})")
        if "split" in fields:
            raise DataError(f"{spec}: split {key!r} has a `split` array of its own; drop it")
        parts[name] = check_samples(fields, f"{spec} [{key}]", [str(k) for k in fields])
    _check_alike(parts, spec)
    names = [name for name in SPLIT_NAMES if name in parts]
    joined = {
        "x": np.concatenate([parts[name].x for name in names]),
        "split": np.concatenate([np.full(len(parts[name].x), name) for name in names]),
    }
    if parts[names[0]].task != "unlabelled":
        joined["y"] = np.concatenate([parts[name].y for name in names])
    groups = [parts[name].group for name in names]
    if all(group is not None for group in groups):
        joined["group"] = np.concatenate([group for group in groups if group is not None])
    elif any(group is not None for group in groups):
        raise DataError(f"{spec}: some splits have `group` and some do not; give all or none")
    return from_fields(joined, spec, seed, sorted(joined))


def _check_alike(parts: Mapping[str, Samples], spec: str) -> None:
    shapes = {name: (p.x.shape[1:], p.y.shape[1:], p.task) for name, p in parts.items()}
    if len(set(shapes.values())) > 1:
        told = "; ".join(
            f"{name}: x (n, {', '.join(map(str, x))}), {_kind(task, y)}"
            for name, (x, y, task) in shapes.items()
        )
        raise DataError(f"{spec}: splits must agree in the shapes and kinds of x and y; {told}")


def _kind(task: Task, y: tuple[int, ...]) -> str:
    """A description of y in words."""
    return {"classification": "labels", "unlabelled": "no y"}.get(task, f"targets {y}")


def check_samples(fields: Mapping[str, Any], spec: str, found: list[str]) -> Samples:
    """The arrays of one mapping, checked against each other; raises `DataError`."""
    x_alone = "x" in fields and set(found) <= set(FIELDS)
    missing = [name for name in ("x", "y") if name not in fields]
    if missing and not x_alone:
        has = shown(", ".join(found), 200) or "nothing"
        raise DataError(
            f"{spec}: {' and '.join(missing)} missing; it has {has}; x and y are needed (x alone, "
            "to compare with full precision only)"
        )
    x = _inputs(as_array(fields["x"], "x", spec), spec)
    if "y" in fields:
        y = _targets(as_array(fields["y"], "y", spec), spec)
    else:
        y = np.zeros((len(x), 0), np.float32)
    columns = {"y": y}
    for name in ("split", "group"):
        if fields.get(name) is not None:
            columns[name] = as_array(fields[name], name, spec)
    for name, column in columns.items():
        if column.ndim == 0 or len(column) != len(x):
            size = "one value" if column.ndim == 0 else f"{len(column):,} samples"
            raise DataError(f"{spec}: x has {len(x):,} samples, {name} has {size}; give one each")
    return Samples(x, y, _groups(columns.get("group"), spec), _names(columns.get("split"), spec))


def as_array(value: Any, name: str, spec: str) -> np.ndarray:
    """A numpy array of plain values from an array, a torch tensor or nested lists."""
    if hasattr(value, "detach"):
        value = value.detach().cpu().numpy()
    try:
        array = np.asarray(value)
    except ValueError as error:  # nested lists of unequal lengths
        raise DataError(f"{spec}: {name} is not one array: {error}") from error
    if array.dtype.kind not in "biufUS":
        raise DataError(
            f"{spec}: {name} has dtype {array.dtype}; numbers (or strings for split and group) "
            "are needed, objects are refused"
        )
    return array


def _inputs(x: np.ndarray, spec: str) -> np.ndarray:
    if x.dtype.kind in "US":
        raise DataError(f"{spec}: x holds strings; it must hold numbers")
    if x.ndim not in (2, 3) or 0 in x.shape:
        raise DataError(
            f"{spec}: x has shape {x.shape}; it must be (samples, length) or "
            "(samples, length, channels), none of them 0"
        )
    with np.errstate(over="ignore"):
        values = x.astype(np.float32)
    _check_finite(values, "x", spec)
    return values[:, :, None] if values.ndim == 2 else values


def _targets(y: np.ndarray, spec: str) -> np.ndarray:
    if y.dtype.kind in "US":
        raise DataError(f"{spec}: y holds strings; number the classes 0, 1, 2 ...")
    if y.dtype.kind == "f":
        with np.errstate(over="ignore"):
            targets = y.astype(np.float32)
        _check_finite(targets, "y", spec)
        if prod(targets.shape[1:]) == 0:
            raise DataError(f"{spec}: y has shape {y.shape}: no target a sample")
        return targets
    if y.ndim != 1:
        raise DataError(
            f"{spec}: y holds integers in shape {y.shape}; class labels are (n,), regression "
            "targets are floats"
        )
    limit = np.iinfo(np.int32).max
    wrong = np.flatnonzero((y < 0) | (y > limit))
    if wrong.size:
        raise DataError(
            f"{spec}: y has {wrong.size} label(s) out of range, the first is {y[wrong[0]]} at "
            f"position {wrong[0]}; labels count from 0"
        )
    return y.astype(np.int64)


def _check_finite(values: np.ndarray, name: str, spec: str) -> None:
    finite = np.isfinite(values)
    if not finite.all():
        first = tuple(int(i) for i in np.argwhere(~finite)[0])
        count = int(values.size - finite.sum())
        raise DataError(
            f"{spec}: {name} has {count:,} value(s) that are NaN, infinite or beyond float32, the "
            f"first at {first}; remove or replace them"
        )


def _groups(group: np.ndarray | None, spec: str) -> np.ndarray | None:
    """int64 codes; names and floats are numbered in sorted order."""
    if group is None:
        return None
    if group.ndim != 1:
        raise DataError(f"{spec}: group has shape {group.shape}; it must be (n,)")
    return np.unique(group, return_inverse=True)[1].astype(np.int64)


def _names(split: np.ndarray | None, spec: str) -> np.ndarray | None:
    if split is None:
        return None
    if split.ndim != 1 or split.dtype.kind not in "US":
        raise DataError(
            f"{spec}: split has dtype {split.dtype} and shape {split.shape}; it must be (n,) names "
            f"out of {', '.join(SPLIT_NAMES)}"
        )
    return split.astype(str)


def _lazy(name: str, samples: Samples, index: np.ndarray, source: str) -> LazySplit:
    group = None if samples.group is None else samples.group[index]
    return loaded(build_split(name, samples.x[index], samples.y[index], index, source, group))


def _dataset(
    spec: str, parts: list[Samples], sources: dict[str, LazySplit], notes: tuple[str, ...]
) -> Dataset:
    first = parts[0]
    labelled = first.task == "classification"
    classes = max(int(part.y.max()) for part in parts) + 1 if labelled else None
    return Dataset(
        name=spec,
        task=first.task,
        splits=Splits(sources),
        classes=classes,
        outputs=classes or prod(first.y.shape[1:]),
        length=first.x.shape[1],
        d_input=first.x.shape[2],
        notes=notes,
    )
