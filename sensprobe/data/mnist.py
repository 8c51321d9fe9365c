"""MNIST, or any data in its four IDX files, read pixel by pixel as sequences.

    mnist:FOLDER[,order=rows|permuted]

Pixels come row by row or, permuted, in one fixed random order, the same for every image: that of
`numpy.random.RandomState(92916).permutation(784)` for images of 784 pixels (Helfrich, Willmott and
Ye 2018, arXiv 1707.09520, and others after them). numpy keeps that stream of numbers for good.

Of the 60,000 images that come for training, the first 55,000 are `train`, the next 500
`calibration`, the last 4,500 `search`; `confirmation` is the test file in file order. Other counts
are cut in the same proportions, and a note says so. Each split reads only its own pair of files,
when first asked for: evaluating on `confirmation` never opens the 47 MB of training images.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path

import numpy as np

from sensprobe.data.dataset import Dataset, LazySplit, Split, Splits, build_split, hash_arrays
from sensprobe.data.idx import read_shape, read_values
from sensprobe.data.options import read_options, split_options
from sensprobe.documents.files import named_path
from sensprobe.errors import DataError

CLASSES = 10
ROWS = "rows"
PEAK = np.float32(255)
ORDERS = (ROWS, "permuted")
PERMUTATION_SEED = 92916
TRAIN_COUNT, TRAIN_END, CALIBRATION_END = 60_000, 55_000, 55_500
HOW_TO_GET = (
    "put the four MNIST IDX files (from their usual mirrors, .gz or not) into one folder, for "
    "example SENSPROBE_DATA/mnist: train-images-idx3-ubyte, train-labels-idx1-ubyte, "
    "t10k-images-idx3-ubyte, t10k-labels-idx1-ubyte"
)


@dataclass(frozen=True)
class _Pair:
    """One file of images and its file of labels; values are read once, headers on construction."""

    source: str  # "train" or "t10k"
    images_path: Path
    labels_path: Path
    shape: tuple[int, ...]  # (n, rows, columns)
    order: str  # of the pixels, one of `ORDERS`

    @property
    def count(self) -> int:
        return self.shape[0]

    @property
    def length(self) -> int:
        return self.shape[1] * self.shape[2]

    @cached_property
    def images(self) -> np.ndarray:
        """(n, l) uint8."""
        images = read_values(self.images_path, "images").reshape(self.count, self.length)
        return images if self.order == ROWS else images[:, permutation(self.length)]

    @cached_property
    def labels(self) -> np.ndarray:
        """(n,) uint8, each below `CLASSES`."""
        labels = read_values(self.labels_path, "labels")
        wrong = np.flatnonzero(labels >= CLASSES)
        if wrong.size:
            raise DataError(
                f"{self.labels_path} has {wrong.size} label(s) out of range, the first is "
                f"{labels[wrong[0]]} at position {wrong[0]}; labels must be 0 to {CLASSES - 1}"
            )
        return labels

    def split(self, name: str, start: int, stop: int) -> LazySplit:
        return LazySplit(
            stop - start,
            partial(self._load, name, start, stop),
            partial(self._fingerprint, start, stop),
        )

    def _load(self, name: str, start: int, stop: int) -> Split:
        images, labels = self.images[start:stop], self.labels[start:stop]
        return build_split(
            name,
            (images.astype(np.float32) / PEAK)[:, :, None],  # (n, l, 1) in [0, 1]
            labels.astype(np.int64),
            np.arange(start, stop),
            self.source,
            fingerprint=self._fingerprint(start, stop),
        )

    def _fingerprint(self, start: int, stop: int) -> str:
        """The fingerprint of the bytes: four times less to hash than the floats they become."""
        where = np.array([start, stop], dtype=np.int64)
        return hash_arrays(self.images[start:stop], self.labels[start:stop], None, where)


def permutation(length: int) -> np.ndarray:
    """The positions (length,) in the rows that permuted pixels come from."""
    return np.random.RandomState(PERMUTATION_SEED).permutation(length)


def load(rest: str, spec: str) -> Dataset:
    """Reads headers only. Absent pairs make their splits absent; half a pair is an error."""
    path, options = split_options(rest)
    order = read_options(options, spec, words={"order": ORDERS}).words.get("order", ROWS)
    folder = named_path(path)
    if not folder.is_dir():
        what = "is not a folder" if folder.exists() else "does not exist"
        raise DataError(f"{spec}: folder {folder} {what}; {HOW_TO_GET}")
    train, test = (_pair(folder, name, order, spec) for name in ("train", "t10k"))
    known = train or test
    if known is None:
        raise DataError(f"{spec}: no MNIST file in {folder}, {_listing(folder)}; {HOW_TO_GET}")
    if train and test and train.shape[1:] != test.shape[1:]:
        raise DataError(
            f"{spec}: train images are {train.shape[1]}x{train.shape[2]} pixels, t10k images "
            f"{test.shape[1]}x{test.shape[2]}; they must come from one data set"
        )
    sources: dict[str, LazySplit] = {}
    absent = dict.fromkeys(("train", "calibration", "search"), _absent(folder, "train"))
    notes: tuple[str, ...] = ()
    if train:
        sources, notes = _cut(train)
    if test:
        sources["confirmation"] = test.split("confirmation", 0, test.count)
    absent["confirmation"] = _absent(folder, "t10k")
    splits = Splits(sources, absent)
    return Dataset(spec, "classification", splits, CLASSES, CLASSES, known.length, 1, notes)


def _cut(train: _Pair) -> tuple[dict[str, LazySplit], tuple[str, ...]]:
    n = train.count
    if n < 3:
        raise DataError(
            f"{train.images_path} holds {n} image(s); train, calibration and search need one each"
        )
    first = min(n * TRAIN_END // TRAIN_COUNT, n - 2)
    second = min(max(n * CALIBRATION_END // TRAIN_COUNT, first + 1), n - 1)
    sources = {
        "train": train.split("train", 0, first),
        "calibration": train.split("calibration", first, second),
        "search": train.split("search", second, n),
    }
    if n == TRAIN_COUNT:
        return sources, ()
    note = f"{train.images_path.name} holds {n:,} images, not 60,000: cut at {first:,}, {second:,}"
    return sources, (note,)


def _pair(folder: Path, source: str, order: str, spec: str) -> _Pair | None:
    images = _find(folder, f"{source}-images", "idx3-ubyte")
    labels = _find(folder, f"{source}-labels", "idx1-ubyte")
    if images is None and labels is None:
        return None
    if images is None or labels is None:
        lacks = f"{source}-images-idx3-ubyte" if images is None else f"{source}-labels-idx1-ubyte"
        raise DataError(f"{spec}: {lacks}[.gz] is missing, {_listing(folder)}; {HOW_TO_GET}")
    shape, labelled = read_shape(images, "images"), read_shape(labels, "labels")[0]
    if shape[0] != labelled:
        raise DataError(
            f"{spec}: {images.name} holds {shape[0]:,} images, {labels.name} {labelled:,} labels; "
            "they must come from one data set"
        )
    if 0 in shape:
        raise DataError(f"{spec}: {images.name} holds no pixels (shape {shape}); {HOW_TO_GET}")
    return _Pair(source, images, labels, shape, order)


def _find(folder: Path, stem: str, suffix: str) -> Path | None:
    names = (f"{stem}{mark}{suffix}{packed}" for mark in "-." for packed in ("", ".gz"))
    return next((folder / name for name in names if (folder / name).is_file()), None)


def _listing(folder: Path) -> str:
    names = sorted(entry.name for entry in folder.iterdir())
    if not names:
        return "the folder is empty"
    more = f" and {len(names) - 8} more" if len(names) > 8 else ""
    return f"it holds {', '.join(names[:8])}{more}"


def _absent(folder: Path, source: str) -> str:
    return f"add {source}-images-idx3-ubyte and {source}-labels-idx1-ubyte to {folder}"
