"""MNIST's IDX files: the cut, laziness, and every way a folder can be wrong."""

import gzip
import struct
from pathlib import Path

import numpy as np
import pytest
import torch

from sensprobe.data import Dataset, load_data
from sensprobe.data.mnist import permutation
from sensprobe.errors import DataError, UsageError

FILES = {
    "train-images-idx3-ubyte": "train-labels-idx1-ubyte",
    "t10k-images-idx3-ubyte": "t10k-labels-idx1-ubyte",
}


def idx(array: np.ndarray) -> bytes:
    header = bytes((0, 0, 8, array.ndim)) + struct.pack(f">{array.ndim}I", *array.shape)
    return header + array.astype(np.uint8).tobytes()


def write(folder: Path, train: int = 120, test: int = 9, packed: bool = False) -> Path:
    rng = np.random.default_rng(7)
    folder.mkdir(exist_ok=True)
    for (images, labels), n in zip(FILES.items(), (train, test), strict=True):
        content = {
            images: idx(rng.integers(0, 256, (n, 4, 3))),
            labels: idx(rng.integers(0, 10, n)),
        }
        for name, body in content.items():
            path = folder / (f"{name}.gz" if packed else name)
            path.write_bytes(gzip.compress(body, mtime=0) if packed else body)
    return folder


def load(folder: Path) -> Dataset:
    return load_data(f"mnist:{folder}")


def test_the_cut_keeps_the_proportions_and_the_order(tmp_path: Path) -> None:
    data = load(write(tmp_path / "m"))
    assert data.sizes() == {"train": 110, "calibration": 1, "search": 9, "confirmation": 9}
    assert (data.classes, data.outputs, data.length, data.d_input) == (10, 10, 12, 1)
    assert data.splits["calibration"].index.tolist() == [110]
    assert data.splits["search"].index.tolist() == list(range(111, 120))
    assert any("120 images" in note for note in data.notes)
    data.check_disjoint()


def test_60000_images_are_cut_where_it_is_written(tmp_path: Path) -> None:
    folder = write(tmp_path / "m")
    (folder / "train-images-idx3-ubyte").write_bytes(idx(np.zeros((60_000, 1, 1))))
    (folder / "train-labels-idx1-ubyte").write_bytes(idx(np.zeros(60_000)))
    (folder / "t10k-images-idx3-ubyte").write_bytes(idx(np.zeros((10_000, 1, 1))))
    (folder / "t10k-labels-idx1-ubyte").write_bytes(idx(np.zeros(10_000)))
    data = load(folder)
    assert list(data.sizes().values()) == [55_000, 500, 4_500, 10_000]
    assert data.splits["calibration"].index[[0, -1]].tolist() == [55_000, 55_499]
    assert data.notes == ()


def test_pixels_become_a_column_in_zero_to_one(tmp_path: Path) -> None:
    folder = write(tmp_path / "m")
    pixels = np.arange(9 * 12).reshape(9, 4, 3) * 2
    (folder / "t10k-images-idx3-ubyte").write_bytes(idx(pixels))
    split = load(folder).splits["confirmation"]
    assert split.x.dtype == torch.float32
    assert split.y.dtype == torch.int64
    assert split.x.shape == (9, 12, 1)
    expected = pixels.reshape(9, 12).astype(np.float32) / np.float32(255)
    assert np.array_equal(split.x[:, :, 0].numpy(), expected)


def test_packing_does_not_change_identity_and_one_pixel_does(tmp_path: Path) -> None:
    raw, packed = load(write(tmp_path / "a")), load(write(tmp_path / "b", packed=True))
    assert raw.fingerprint == packed.fingerprint
    path = tmp_path / "a" / "t10k-images-idx3-ubyte"
    body = bytearray(path.read_bytes())
    body[-1] ^= 1
    path.write_bytes(body)
    changed = load(tmp_path / "a")
    assert changed.fingerprint != raw.fingerprint
    assert changed.splits.fingerprint("search") == raw.splits.fingerprint("search")
    assert changed.splits.fingerprint("confirmation") != raw.splits.fingerprint("confirmation")
    assert changed.splits["search"].fingerprint == changed.splits.fingerprint("search")


def test_the_test_split_needs_only_its_own_pair(tmp_path: Path) -> None:
    whole = load(write(tmp_path / "m"))
    for path in (tmp_path / "m").glob("train-*"):
        path.unlink()
    data = load(tmp_path / "m")
    assert list(data.splits) == ["confirmation"]
    assert data.splits["confirmation"].fingerprint == whole.splits.fingerprint("confirmation")
    with pytest.raises(DataError, match=r"no calibration split.*add train-images-idx3-ubyte"):
        data.splits["calibration"]


def test_the_test_split_does_not_read_damaged_training_pixels(tmp_path: Path) -> None:
    folder = write(tmp_path / "m")
    path = folder / "train-images-idx3-ubyte"
    path.write_bytes(path.read_bytes()[:-5])
    data = load(folder)
    assert len(data.splits["confirmation"]) == 9
    with pytest.raises(DataError, match=r"truncated: its header promises 1,440 values"):
        data.splits["search"]


def test_the_dotted_names_of_some_mirrors_are_found(tmp_path: Path) -> None:
    folder = write(tmp_path / "m")
    for path in list(folder.iterdir()):
        path.rename(folder / path.name.replace("-idx", ".idx"))
    assert load(folder).sizes()["confirmation"] == 9


def test_missing_folder_names_the_four_files(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="does not exist; put the four MNIST IDX files") as caught:
        load(tmp_path / "nowhere")
    for images, labels in FILES.items():
        assert images in str(caught.value)
        assert labels in str(caught.value)
    assert "SENSPROBE_DATA/mnist" in str(caught.value)


def test_a_file_where_a_folder_is_asked(tmp_path: Path) -> None:
    path = tmp_path / "f"
    path.touch()
    with pytest.raises(DataError, match="is not a folder"):
        load(path)


def test_empty_folder(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"no MNIST file in .*the folder is empty"):
        load(tmp_path)


@pytest.mark.parametrize("name", [*FILES, *FILES.values()])
def test_each_missing_file_is_named_beside_what_is_there(tmp_path: Path, name: str) -> None:
    folder = write(tmp_path / "m")
    (folder / name).unlink()
    with pytest.raises(DataError, match=rf"{name}\[.gz\] is missing, it holds t10k-"):
        load(folder)


def test_swapped_files_are_recognised(tmp_path: Path) -> None:
    folder = write(tmp_path / "m")
    images, labels = folder / "t10k-images-idx3-ubyte", folder / "t10k-labels-idx1-ubyte"
    labels.write_bytes(images.read_bytes())
    with pytest.raises(DataError, match=r"holds images where labels are expected.*0x00000803"):
        load(folder)


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b"", "is empty"),
        (b"PK\x03\x04something", "not an IDX file of images: it starts with 0x504b0304"),
        (b"\x00\x00\x0d\x03" + bytes(12), "not an IDX file of images"),
        (b"\x00\x00\x08\x03\x00\x00", "truncated inside its header"),
        (gzip.compress(idx(np.zeros((9, 4, 3))), mtime=0)[:12], "truncated or damaged"),
        (b"\x1f\x8b garbage, not gzip at all", "truncated or damaged"),
    ],
)
def test_damaged_headers_fail_at_once(tmp_path: Path, body: bytes, message: str) -> None:
    folder = write(tmp_path / "m")
    (folder / "t10k-images-idx3-ubyte").write_bytes(body)
    with pytest.raises(DataError, match=message):
        load(folder)


@pytest.mark.parametrize("packed", [False, True])
def test_every_truncation_of_the_values_is_noticed(tmp_path: Path, packed: bool) -> None:
    folder = write(tmp_path / "m", packed=packed)
    path = next(folder.glob("t10k-images*"))
    whole = path.read_bytes()
    for size in range(20, len(whole), 7):
        path.write_bytes(whole[:size])
        with pytest.raises(DataError, match=r"t10k-images.*(truncated|damaged)"):
            load(folder).splits["confirmation"]


def test_a_file_longer_than_its_header(tmp_path: Path) -> None:
    folder = write(tmp_path / "m")
    with (folder / "t10k-images-idx3-ubyte").open("ab") as stream:
        stream.write(b"more")
    with pytest.raises(DataError, match="longer than its header says"):
        load(folder).splits["confirmation"]


def test_counts_that_disagree(tmp_path: Path) -> None:
    folder = write(tmp_path / "m")
    (folder / "t10k-labels-idx1-ubyte").write_bytes(idx(np.zeros(8)))
    with pytest.raises(DataError, match="holds 9 images, t10k-labels-idx1-ubyte 8 labels"):
        load(folder)


def test_sizes_that_disagree(tmp_path: Path) -> None:
    folder = write(tmp_path / "m")
    (folder / "t10k-images-idx3-ubyte").write_bytes(idx(np.zeros((9, 5, 5))))
    with pytest.raises(DataError, match="train images are 4x3 pixels, t10k images 5x5"):
        load(folder)


def test_labels_out_of_range(tmp_path: Path) -> None:
    folder = write(tmp_path / "m")
    (folder / "t10k-labels-idx1-ubyte").write_bytes(idx(np.array([0, 1, 2, 3, 10, 5, 6, 7, 200])))
    with pytest.raises(
        DataError, match=r"2 label\(s\) out of range, the first is 10 at position 4"
    ):
        load(folder).splits["confirmation"]


def test_no_images(tmp_path: Path) -> None:
    folder = write(tmp_path / "m", test=0)
    with pytest.raises(DataError, match="holds no pixels"):
        load(folder)


def test_too_few_images_to_cut(tmp_path: Path) -> None:
    assert load(write(tmp_path / "three", train=3)).sizes()["train"] == 1
    with pytest.raises(DataError, match=r"holds 2 image\(s\)"):
        load(write(tmp_path / "two", train=2))


def test_permuted_pixels_are_those_of_the_rows_in_one_fixed_order(tmp_path: Path) -> None:
    folder = write(tmp_path / "m")
    rows, permuted = load(folder), load_data(f"mnist:{folder},order=permuted")
    order = permutation(12)
    assert sorted(order.tolist()) == list(range(12))
    for name in rows.splits:
        assert torch.equal(permuted.splits[name].x, rows.splits[name].x[:, order])
        assert torch.equal(permuted.splits[name].y, rows.splits[name].y)
        assert permuted.splits.fingerprint(name) != rows.splits.fingerprint(name)
    assert load_data(f"mnist:{folder},order=rows").fingerprint == rows.fingerprint


def test_the_permutation_is_the_one_that_others_publish_with() -> None:
    assert permutation(784)[:8].tolist() == [319, 576, 323, 107, 355, 716, 197, 20]


def test_an_order_there_is_not(tmp_path: Path) -> None:
    folder = write(tmp_path / "m")
    with pytest.raises(UsageError, match="order=columns: there are rows, permuted"):
        load_data(f"mnist:{folder},order=columns")
    with pytest.raises(UsageError, match="no option 'ordre=rows'; did you mean order"):
        load_data(f"mnist:{folder},ordre=rows")


def test_a_folder_may_have_a_name_like_an_option(tmp_path: Path) -> None:
    assert load(write(tmp_path / "m,order=permuted")).sizes()["confirmation"] == 9
