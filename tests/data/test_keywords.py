"""Keywords: no speaker in two splits, bands on one scale, and clear errors."""

from pathlib import Path

import numpy as np
import pytest

from sensprobe.data import load_data
from sensprobe.errors import DataError


def save(path: Path, **changes: np.ndarray) -> str:
    rng = np.random.default_rng(5)
    group = np.repeat(np.arange(40), 5)
    x = rng.normal((-30, 4, 0), (20, 1, 0), (200, 7, 3)).astype(np.float16)
    fields = {"x": x, "y": rng.integers(0, 4, 200), "group": group, "names": np.array(list("abcd"))}
    np.savez(path, **{**fields, **changes})
    return f"keywords:{path}"


def test_no_speaker_is_in_two_splits(tmp_path: Path) -> None:
    data = load_data(save(tmp_path / "k.npz"))
    assert data.sizes() == {"train": 120, "calibration": 10, "search": 30, "confirmation": 40}
    assert (data.classes, data.length, data.d_input) == (4, 7, 3)
    speakers = [set(split.group.tolist()) for split in data.splits.values()]  # type: ignore[union-attr]
    assert sum(map(len, speakers)) == len(set.union(*speakers)) == 40
    data.check_disjoint()


def test_the_cut_is_no_matter_of_the_seed(tmp_path: Path) -> None:
    spec = save(tmp_path / "k.npz")
    assert load_data(spec, seed=7).fingerprint == load_data(spec).fingerprint


def test_bands_are_scaled_by_the_train_split(tmp_path: Path) -> None:
    data = load_data(save(tmp_path / "k.npz"))
    train = data.splits["train"].x.numpy()
    assert np.allclose(train.mean((0, 1)), 0, atol=1e-5)
    assert np.allclose(train.std((0, 1)), (1, 1, 0), atol=1e-5)  # the last band is constant
    with np.load(tmp_path / "k.npz") as file:
        raw = file["x"].astype(np.float64)
    train_rows, rows = data.splits["train"].index, data.splits["search"].index
    mean, spread = raw[train_rows].mean((0, 1)), raw[train_rows].std((0, 1))
    want = (raw[rows] - mean)[:, :, :2] / spread[:2]
    assert np.allclose(data.splits["search"].x[:, :, :2], want, atol=1e-5)


def test_what_is_absent_says_how_to_get_it(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="does not exist; compute log-mel features"):
        load_data(f"keywords:{tmp_path / 'none.npz'}")
    np.savez(tmp_path / "k.npz", x=np.zeros((9, 2, 2)), y=np.zeros(9, int))
    with pytest.raises(DataError, match=r"k\.npz has no group; it has x, y"):
        load_data(f"keywords:{tmp_path / 'k.npz'}")


def test_labels_and_speakers_are_needed(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="y must be class labels"):
        load_data(save(tmp_path / "k.npz", y=np.zeros(200)))
    with pytest.raises(DataError, match=r"has 3 group\(s\); train, calibration, search and"):
        load_data(save(tmp_path / "k.npz", group=np.arange(200) % 3))
