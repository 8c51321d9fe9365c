"""scikit-learn's handwritten digits (8x8 pixels) read as sequences of 64 steps.

The 1,797 images come with scikit-learn, so this data is on every machine that has this package.
One fixed permutation cuts them: 900 train, 97 calibration, 400 search, 400 confirmation.
"""

from __future__ import annotations

import numpy as np

from sensprobe.data.dataset import Dataset, Splits, build_split, loaded

SIZES = {"train": 900, "calibration": 97, "search": 400, "confirmation": 400}
COUNT = sum(SIZES.values())  # 1,797
PEAK = 16.0  # pixels count 0 to 16


def load() -> Dataset:
    """The whole data set; it is small enough to hold. x (n, 64, 1) in [0, 1], row-major."""
    from sklearn.datasets import load_digits  # takes a second, and only this source needs it

    bunch = load_digits()
    x = (bunch.images.reshape(COUNT, 64, 1) / PEAK).astype(np.float32)
    y = bunch.target.astype(np.int64)
    order = np.random.default_rng(0).permutation(COUNT)
    splits, start = {}, 0
    for name, size in SIZES.items():
        index = order[start : start + size]
        splits[name] = loaded(build_split(name, x[index], y[index], index, "digits"))
        start += size
    return Dataset("digits", "classification", Splits(splits), 10, 10, 64, 1)
