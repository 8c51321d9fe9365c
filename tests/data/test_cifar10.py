"""CIFAR-10 in both forms: the cut, colour and gray, and every way an archive can be wrong."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from sensprobe.data import Dataset, cifar10, load_data
from sensprobe.errors import DataError, UsageError

FEW = {"train": 100, "test": 20}
"""Images of the data in these tests: the cut is 90, 1, 9."""
SIZE = cifar10.RECORD_BYTES


@pytest.fixture(autouse=True)
def _few(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cifar10, "COUNTS", FEW)


def drawn(count: int) -> np.ndarray:
    """Records (count, 3073) uint8: a label and the three planes of an image."""
    records = np.random.default_rng(count).integers(0, 256, (count, SIZE)).astype(np.uint8)
    records[:, 0] = np.arange(count) * 7 % 10
    return records


def write_binary(folder: Path) -> Path:
    folder.mkdir(exist_ok=True)
    for k, part in enumerate(np.split(drawn(100), 5), start=1):
        (folder / f"data_batch_{k}.bin").write_bytes(part.tobytes())
    (folder / "test_batch.bin").write_bytes(drawn(20).tobytes())
    return folder


def jpeg(shade: int, size: tuple[int, int] = (32, 32)) -> bytes:
    out = io.BytesIO()
    Image.new("RGB", size, (shade, 200 - shade, 40)).save(out, "JPEG")
    return out.getvalue()


def write_tar(path: Path, members: dict[str, bytes], kind: bytes = tarfile.REGTYPE) -> None:
    with tarfile.open(path, "w:gz") as archive:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size, info.type = len(content), kind
            if kind == tarfile.SYMTYPE:
                info.size, info.linkname = 0, "/etc/passwd"
            archive.addfile(info, io.BytesIO(content))


def images(part: str) -> dict[str, bytes]:
    """Members in order of class, as they come; shade says number and class."""
    each = FEW[part] // 10
    return {
        f"{part}/{name}/{number:04d}.jpg": jpeg(10 * number + label)
        for label, name in enumerate(cifar10.NAMES)
        for number in range(each)
    }


@pytest.fixture
def jpegs(tmp_path: Path) -> Path:
    for part in FEW:
        write_tar(tmp_path / f"cifar10_{part}.tar.gz", images(part))
    return tmp_path


def load(folder: Path, options: str = "") -> Dataset:
    return load_data(f"cifar10:{folder}{options}")


def test_binary_files_in_colour(tmp_path: Path) -> None:
    data = load(write_binary(tmp_path / "c"), ",colour=rgb")
    assert data.sizes() == {"train": 90, "calibration": 1, "search": 9, "confirmation": 20}
    assert (data.classes, data.outputs, data.length, data.d_input) == (10, 10, 1024, 3)
    data.check_disjoint()
    split, records = data.splits["search"], drawn(100)[91:]
    assert split.y.tolist() == records[:, 0].tolist()
    pixels = records[:, 1:].reshape(9, 3, 1024).transpose(0, 2, 1) / 255.0
    want = (pixels - (0.4914, 0.4822, 0.4465)) / (0.2023, 0.1994, 0.2010)
    assert np.allclose(split.x, want, atol=1e-5)


def test_gray_is_the_luma_that_pillow_has(tmp_path: Path) -> None:
    x = load(write_binary(tmp_path / "c")).splits["confirmation"].x
    assert x.shape == (20, 1024, 1)
    record = drawn(20)[3, 1:].reshape(3, 32, 32).transpose(1, 2, 0)
    luma = np.asarray(Image.fromarray(np.ascontiguousarray(record)).convert("L")).reshape(-1)
    assert np.allclose(x[3, :, 0] * (61 / 255) + 122.6 / 255, luma / 255.0, atol=1e-6)


def test_jpegs_are_in_the_order_of_number_and_class(jpegs: Path) -> None:
    data = load(jpegs, ",colour=rgb")
    assert data.splits["confirmation"].y.tolist() == [*range(10), *range(10)]
    assert data.splits["search"].y.tolist() == list(range(1, 10))
    red = data.splits["search"].x[:, 0, 0] * 0.2023 + 0.4914
    assert np.allclose(red * 255, 90 + np.arange(1, 10), atol=2.5)  # lossy
    assert load(jpegs).splits["train"].x.shape == (90, 1024, 1)


def test_the_fingerprint_is_of_what_the_files_hold(jpegs: Path) -> None:
    marks = {load(jpegs, o).splits.fingerprint("search") for o in ("", ",colour=rgb")}
    assert len(marks) == 2
    repacked = images("train")
    write_tar(jpegs / "cifar10_train.tar.gz", dict(sorted(repacked.items(), reverse=True)))
    assert load(jpegs).splits.fingerprint("search") in marks
    repacked["train/cat/0009.jpg"] = jpeg(1)
    write_tar(jpegs / "cifar10_train.tar.gz", repacked)
    changed = load(jpegs)
    assert changed.splits.fingerprint("search") not in marks
    assert changed.splits["search"].fingerprint == changed.splits.fingerprint("search")


def test_the_test_images_are_enough(jpegs: Path) -> None:
    (jpegs / "cifar10_train.tar.gz").write_bytes(b"damaged")
    data = load(jpegs)
    assert len(data.splits["confirmation"]) == 20
    with pytest.raises(DataError, match=r"cifar10_train\.tar\.gz is damaged .*get it again"):
        data.splits["train"]
    (jpegs / "cifar10_train.tar.gz").unlink()
    with pytest.raises(DataError, match="no train split, it has confirmation; get the binary"):
        load(jpegs).splits["train"]


@pytest.mark.parametrize(
    ("name", "content", "kind", "says"),
    [
        ("test/cat/../../evil.jpg", b"x", tarfile.REGTYPE, "members are files such as"),
        ("train/cat/0000.jpg", jpeg(1), tarfile.REGTYPE, "members are files such as test/frog"),
        ("test/lion/0000.jpg", jpeg(1), tarfile.REGTYPE, "members are files such as"),
        ("test/cat/0000.jpg", b"", tarfile.SYMTYPE, "members are files such as"),
        ("test/cat/0000.jpg", bytes(2**16 + 1), tarfile.REGTYPE, "of 65,536 bytes at most"),
        ("test/cat/0002.jpg", jpeg(1), tarfile.REGTYPE, "holds more than 20 images"),
        ("test/cat/0001.jpg", b"no image", tarfile.REGTYPE, "a member is no JPEG"),
        ("test/cat/0001.jpg", jpeg(1, (64, 16)), tarfile.REGTYPE, "is an image of 64 x 16"),
    ],
)
def test_other_members_are_refused(
    name: str, content: bytes, kind: bytes, says: str, jpegs: Path
) -> None:
    path = jpegs / "cifar10_test.tar.gz"
    if kind == tarfile.SYMTYPE or len(content) > 2**16:
        write_tar(path, {name: content}, kind)
    else:
        write_tar(path, {**images("test"), name: content})
    with pytest.raises(DataError, match=says):
        load(jpegs).splits["confirmation"]


def test_too_few_images(jpegs: Path, tmp_path: Path) -> None:
    write_tar(jpegs / "cifar10_test.tar.gz", dict([*images("test").items()][1:]))
    with pytest.raises(DataError, match="holds 19 images, not 20; get the binary version"):
        load(jpegs).splits["confirmation"]
    folder = write_binary(tmp_path / "c")
    (folder / "data_batch_3.bin").write_bytes(drawn(20)[:19].tobytes())
    with pytest.raises(DataError, match=r"data_batch_3.bin has 58,387 bytes, not 61,460"):
        load(folder).splits["train"]


def test_a_label_out_of_range(tmp_path: Path) -> None:
    folder = write_binary(tmp_path / "c")
    records = drawn(20)
    records[4, 0] = 10
    (folder / "test_batch.bin").write_bytes(records.tobytes())
    with pytest.raises(DataError, match=r"test_batch\.bin has a label 10"):
        load(folder).splits["confirmation"]


def test_what_is_absent_says_how_to_get_it(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"does not exist; get the binary version .*-binary\.tar"):
        load(tmp_path / "none")
    with pytest.raises(DataError, match="no images of CIFAR-10 in"):
        load(tmp_path)
    with pytest.raises(UsageError, match="colour=blue: there are gray, rgb"):
        load(tmp_path, ",colour=blue")


def test_training_images_need_no_test_images(tmp_path: Path) -> None:
    data = load(write_binary(tmp_path / "c"))
    (tmp_path / "c" / "test_batch.bin").unlink()
    assert data.sizes()["confirmation"] == 20
    assert data.splits["train"].x.dtype == torch.float32
