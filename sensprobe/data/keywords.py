"""Spoken keywords, or other clips as features of short frames, split by who speaks.

    keywords:FILE.npz

The file has x (n, frames, bands), y (n,) class labels from 0, and group (n,), the speaker of each
clip: for example log-mel features of Google's Speech Commands, 100 frames of 40 bands a second.

Speakers are shuffled with one fixed seed and cut so that, as near as whole speakers allow, 60 % of
the clips are `train`, 5 % `calibration`, 15 % `search` and 20 % `confirmation`. No speaker is in
two splits. Each band has the mean of the train split subtracted and is divided by the standard
deviation there.
"""

from __future__ import annotations

import numpy as np

from sensprobe.data.arrays import check_samples, from_fields
from sensprobe.data.dataset import Dataset
from sensprobe.data.npz import npz_arrays
from sensprobe.data.splitting import cut_units
from sensprobe.documents.files import named_path
from sensprobe.errors import DataError

SHARES = {"train": 0.60, "calibration": 0.05, "search": 0.15, "confirmation": 0.20}
SEED = 0
FIELDS = ("x", "y", "group")
HOW_TO_GET = (
    "compute log-mel features of your clips and save them with numpy.savez(FILE, x=features of "
    "(clips, frames, bands), y=labels from 0, group=speakers)"
)


def load(rest: str, spec: str) -> Dataset:
    """`keywords:` data; `rest` is what follows the colon."""
    path = named_path(rest)
    if not path.exists():
        raise DataError(f"{spec}: {path} does not exist; {HOW_TO_GET}")
    fields = dict(zip(FIELDS, npz_arrays(path, spec, FIELDS), strict=True))
    found = check_samples(fields, spec, list(FIELDS))
    if found.task != "classification":
        raise DataError(f"{spec}: y must be class labels, whole numbers from 0; {HOW_TO_GET}")
    members = cut_units(len(found.x), found.group, SEED, SHARES, spec)
    split = np.empty(len(found.x), dtype="<U12")
    for name, rows in members.items():
        split[rows] = name
    train = found.x[split == "train"].astype(np.float64)
    spread = train.std((0, 1))
    x = (found.x - train.mean((0, 1))) / np.where(spread > 0, spread, 1)
    return from_fields({**fields, "x": x, "split": split}, spec, SEED, [*FIELDS, "split"])
