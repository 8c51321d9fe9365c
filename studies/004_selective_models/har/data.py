"""UCI-HAR's 561 features a window, as the published weights read them: 10 steps of 57.

    SENSPROBE_DATA=FOLDER sensprobe eval model.toml --data python:data.py:windows

FOLDER holds har_mamba/uci_har_561feat_recomputed_f16.npz: x (10299, 561), y 0 to 5, subject, and
is_test, the official split by subject. The features are padded with zeros to 570 and cut in steps.
The official test windows are the confirmation split; the others are carved out of the rest, whole
subjects at a time.
"""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np

STEPS, WIDTH = 10, 57
FILE = "uci_har_561feat_recomputed_f16.npz"


def windows() -> dict[str, np.ndarray]:
    """x (n, 10, 57) float32, y, split and group (the subject), in the file's order."""
    with np.load(Path(os.environ["SENSPROBE_DATA"]) / "har_mamba" / FILE) as archive:
        x, y, subject, is_test = (archive[k] for k in ("x", "y", "subject", "is_test"))
    padded = np.zeros((len(x), STEPS * WIDTH), np.float32)
    padded[:, : x.shape[1]] = x
    return {
        "x": padded.reshape(-1, STEPS, WIDTH),
        "y": y.astype(np.int64),
        "split": np.where(is_test, "confirmation", "train"),
        "group": subject.astype(np.int64),
    }
