"""Digits, taking a part, widths, and the checks that hold for every data set."""

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits

from sensprobe.data import SPLIT_NAMES, Dataset, Split, Splits, check_fits, load_data
from sensprobe.data.dataset import build_split, hash_arrays, loaded
from sensprobe.errors import DataError


@pytest.fixture(scope="module")
def digits() -> Dataset:
    return load_data("digits")


def split_of(n: int, name: str = "search", start: int = 0) -> Split:
    x = np.arange(start, start + n, dtype=np.float32)[:, None, None]
    return build_split(name, x, np.zeros(n, np.int64), np.arange(start, start + n), "made")


def test_digits_are_cut_by_one_permutation(digits: Dataset) -> None:
    assert list(digits.sizes().items()) == list(zip(SPLIT_NAMES, (900, 97, 400, 400), strict=True))
    order = np.concatenate([digits.splits[name].index.numpy() for name in SPLIT_NAMES])
    assert np.array_equal(order, np.random.default_rng(0).permutation(1797))
    digits.check_disjoint()


def test_digits_are_the_images_row_by_row(digits: Dataset) -> None:
    bunch = load_digits()
    split = digits.splits["confirmation"]
    index = split.index.numpy()
    assert split.x.dtype == torch.float32
    expected = bunch.images.reshape(1797, 64)[index] / 16
    assert np.array_equal(split.x[:, :, 0].numpy(), expected)
    assert np.array_equal(split.y.numpy(), bunch.target[index])


def test_loading_twice_gives_one_identity(digits: Dataset) -> None:
    assert load_data("digits").fingerprint == digits.fingerprint
    assert len({split.fingerprint for split in digits.splits.values()}) == 4


def test_describe_says_sizes(digits: Dataset) -> None:
    assert digits.describe() == (
        "digits: 10 classes, length 64 x 1 in; "
        "train 900, calibration 97, search 400, confirmation 400"
    )


def test_an_unknown_split_is_told(digits: Dataset) -> None:
    with pytest.raises(DataError, match="no split is called 'test'; this data has train, cal"):
        digits.splits["test"]


def test_shared_samples_are_found() -> None:
    splits = Splits({"search": loaded(split_of(5)), "confirmation": loaded(split_of(5, start=4))})
    data = Dataset("made", "classification", splits, 1, 1, 1, 1)
    with pytest.raises(DataError, match=r"share 1 sample\(s\) of made, the first at position 4"):
        data.check_disjoint()


def test_check_fits(digits: Dataset) -> None:
    check_fits(digits, d_input=1, outputs=10)
    check_fits(digits, d_input=1, outputs=12)
    with pytest.raises(DataError, match=r"1 value\(s\) a step, the model takes 3"):
        check_fits(digits, d_input=3, outputs=10)
    with pytest.raises(DataError, match="labels up to 9, the model has 4 classes"):
        check_fits(digits, d_input=1, outputs=4)
    targets = Dataset("made", "regression", Splits({}), None, 2, 5, 1)
    with pytest.raises(DataError, match=r"2 target\(s\) a sample, the model gives 3"):
        check_fits(targets, d_input=1, outputs=3)


def test_the_hash_sees_values_shape_dtype_and_absence() -> None:
    base = np.arange(6, dtype=np.float32)
    others = [
        hash_arrays(base),
        hash_arrays(base.reshape(2, 3)),
        hash_arrays(base.astype(np.float64)),
        hash_arrays(base, None),
        hash_arrays(base[::-1]),
        hash_arrays(base[:0]),
    ]
    assert len(set(others)) == len(others)
    assert hash_arrays(base) == hash_arrays(base.astype(">f4")) == hash_arrays(np.r_[base, 0][:6])
