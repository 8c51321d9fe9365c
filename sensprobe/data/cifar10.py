"""CIFAR-10 read pixel by pixel, row by row: 1,024 steps, ten classes.

    cifar10:FOLDER[,colour=gray|rgb]

FOLDER holds the binary version (Krizhevsky 2009), data_batch_1.bin to data_batch_5.bin and
test_batch.bin, or the images as JPEGs: cifar10_train.tar.gz and cifar10_test.tar.gz, with 5,000
and 1,000 members such as train/frog/0123.jpg a class. JPEGs are lossy, so scores on them are near
those on the originals, not equal. Nothing is unpacked to disk.

Gray is one channel, the luma of ITU-R BT.601 in whole numbers; rgb has three. Pixels, from 0 to 1,
are normalised as models of state-spaces/s4 want them: gray by mean 122.6 / 255 and deviation
61 / 255, colour by means 0.4914, 0.4822, 0.4465 and deviations 0.2023, 0.1994, 0.2010.

Of the 50,000 training images the first 45,000 are `train`, the next 500 `calibration`, the last
4,500 `search`; `confirmation` is the test images. Binary images count in the order of their files,
JPEGs by their number and then by class. Fingerprints are of what the files hold, because machines
may decode a JPEG a little differently.
"""

from __future__ import annotations

import re
import tarfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property, partial
from hashlib import sha256
from io import BytesIO
from pathlib import Path

import numpy as np

from sensprobe.data.dataset import Dataset, LazySplit, Split, Splits, build_split, hash_arrays
from sensprobe.data.options import read_options, split_options
from sensprobe.documents.files import named_path
from sensprobe.errors import DataError

NAMES = ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"]
SIDE, PIXELS = 32, 32 * 32
COUNTS = {"train": 50_000, "test": 10_000}
EDGES = {"train": 0.0, "calibration": 0.90, "search": 0.91}
"""Where each split begins among the training images, as a share of them."""
GRAY, RGB = "gray", "rgb"
MEAN = {GRAY: (122.6 / 255,), RGB: (0.4914, 0.4822, 0.4465)}
DEVIATION = {GRAY: (61 / 255,), RGB: (0.2023, 0.1994, 0.2010)}
LUMA = (19595, 38470, 7471)  # of 65,536
BINARY = {"train": [f"data_batch_{k}.bin" for k in range(1, 6)], "test": ["test_batch.bin"]}
RECORD_BYTES = 1 + 3 * PIXELS
LARGEST_BYTES = 2**16
"""The most bytes that a JPEG of so few pixels may have."""
MEMBER = re.compile(rf"(?:\./)?(train|test)/({'|'.join(NAMES)})/([0-9]{{1,5}})\.jpg")
HOW_TO_GET = (
    "get the binary version of CIFAR-10 (cifar-10-binary.tar.gz), unpack it and name the folder "
    "that holds data_batch_1.bin to data_batch_5.bin and test_batch.bin"
)


@dataclass(frozen=True)
class _Part:
    """The training or the test images, which are read once, when first asked for."""

    name: str
    files: tuple[Path, ...]  # .bin files, or one tar
    spec: str

    @property
    def jpeg(self) -> bool:
        return self.files[0].suffix != ".bin"

    @cached_property
    def contents(self) -> tuple[np.ndarray, list[bytes]]:
        """Labels (n,) int64, and what the files hold of each image."""
        pairs = list(
            _members(self.files[0], self.name, self.spec) if self.jpeg else self._records()
        )
        if len(pairs) != COUNTS[self.name]:
            raise DataError(
                f"{self.spec}: {self.files[0]} holds {len(pairs):,} images, not "
                f"{COUNTS[self.name]:,}; {HOW_TO_GET}"
            )
        return np.array([label for label, _ in pairs]), [content for _, content in pairs]

    def _records(self) -> Iterator[tuple[int, bytes]]:
        size = COUNTS[self.name] // len(self.files) * RECORD_BYTES
        for path in self.files:
            if path.stat().st_size != size:
                raise DataError(
                    f"{self.spec}: {path} has {path.stat().st_size:,} bytes, not {size:,}; get it "
                    "again"
                )
            content = path.read_bytes()
            for start in range(0, size, RECORD_BYTES):
                if (label := content[start]) >= len(NAMES):
                    raise DataError(f"{self.spec}: {path} has a label {label}; get it again")
                yield label, content[start + 1 : start + RECORD_BYTES]

    def split(self, name: str, start: int, stop: int, colour: str) -> LazySplit:
        rows = slice(start, stop)
        return LazySplit(
            stop - start,
            partial(self._load, name, rows, colour),
            partial(self._fingerprint, rows, colour),
        )

    def _load(self, name: str, rows: slice, colour: str) -> Split:
        labels, contents = self.contents
        decode = partial(_decoded, spec=self.spec) if self.jpeg else _planes
        pixels = np.stack([decode(content) for content in contents[rows]])  # (n, l, 3) uint8
        if colour == GRAY:
            pixels = ((pixels @ np.array(LUMA) + 2**15) >> 16)[:, :, None]  # (n, l, 1)
        x = pixels.astype(np.float32) / np.float32(255)
        x -= np.array(MEAN[colour], np.float32)
        x /= np.array(DEVIATION[colour], np.float32)
        index, mark = np.arange(rows.start, rows.stop), self._fingerprint(rows, colour)
        return build_split(name, x, labels[rows], index, self.name, fingerprint=mark)

    def _fingerprint(self, rows: slice, colour: str) -> str:
        labels, contents = self.contents
        marks = b"".join(sha256(content).digest() for content in contents[rows])
        where = np.array([rows.start, rows.stop, len(MEAN[colour])])
        return hash_arrays(np.frombuffer(marks, np.uint8), labels[rows], None, where)


def load(rest: str, spec: str) -> Dataset:
    """Opens no file. Absent images make their splits absent."""
    name, options = split_options(rest)
    colours = {"colour": (GRAY, RGB)}
    colour = read_options(options, spec, words=colours).words.get("colour", GRAY)
    folder = named_path(name)
    if not folder.is_dir():
        what = "is not a folder" if folder.exists() else "does not exist"
        raise DataError(f"{spec}: {folder} {what}; {HOW_TO_GET}")
    train, test = (_found(folder, part, spec) for part in COUNTS)
    if train is None and test is None:
        raise DataError(f"{spec}: no images of CIFAR-10 in {folder}; {HOW_TO_GET}")
    sources = {}
    if train is not None:
        starts = [round(COUNTS["train"] * share) for share in EDGES.values()]
        stops = [*starts[1:], COUNTS["train"]]
        for split, start, stop in zip(EDGES, starts, stops, strict=True):
            sources[split] = train.split(split, start, stop, colour)
    if test is not None:
        sources["confirmation"] = test.split("confirmation", 0, COUNTS["test"], colour)
    absent = dict.fromkeys((*EDGES, "confirmation"), HOW_TO_GET)
    classes, channels = len(NAMES), len(MEAN[colour])
    splits = Splits(sources, absent)
    return Dataset(spec, "classification", splits, classes, classes, PIXELS, channels)


def _found(folder: Path, part: str, spec: str) -> _Part | None:
    names = [BINARY[part], *([f"cifar10_{part}.tar{packed}"] for packed in (".gz", ""))]
    for files in ([folder / name for name in some] for some in names):
        if all(path.is_file() for path in files):
            return _Part(part, tuple(files), spec)
    return None


def _members(path: Path, part: str, spec: str) -> Iterator[tuple[int, bytes]]:
    """Label and bytes of every JPEG of a tar, in the order of number and class. DataError for a
    member that is none."""
    found: dict[tuple[int, int], bytes] = {}
    try:
        with tarfile.open(path, "r|*") as archive:
            for member in archive:
                if member.isdir():
                    continue
                match = MEMBER.fullmatch(member.name)
                if not (match and match[1] == part and member.isfile()):
                    raise DataError(
                        f"{spec}: {path} holds {member.name!r}; members are files such as "
                        f"{part}/frog/0123.jpg"
                    )
                if member.size > LARGEST_BYTES or len(found) >= COUNTS[part]:
                    raise DataError(
                        f"{spec}: {path} holds more than {COUNTS[part]:,} images of "
                        f"{LARGEST_BYTES:,} bytes at most ({member.name}); {HOW_TO_GET}"
                    )
                file = archive.extractfile(member)
                assert file is not None
                found[int(match[3]), NAMES.index(match[2])] = file.read()
    except (tarfile.TarError, EOFError, OSError, zlib.error) as error:
        raise DataError(f"{spec}: {path} is damaged ({error}); get it again") from error
    for (_, label), content in sorted(found.items()):
        yield label, content


def _decoded(content: bytes, spec: str) -> np.ndarray:
    """The pixels (l, 3) uint8 of a JPEG."""
    from PIL import Image

    try:
        with Image.open(BytesIO(content), formats=("JPEG",)) as image:
            if image.size == (SIDE, SIDE):  # known before anything is decoded
                return np.asarray(image.convert("RGB")).reshape(PIXELS, 3)
            kind = f"an image of {image.size[0]} x {image.size[1]}"
    except (OSError, ValueError, Image.DecompressionBombError) as error:
        kind = f"no JPEG ({error})"
    raise DataError(
        f"{spec}: a member is {kind}; images are JPEGs of {SIDE} x {SIDE}. {HOW_TO_GET}"
    )


def _planes(content: bytes) -> np.ndarray:
    """The pixels (l, 3) uint8 of a binary record."""
    return np.frombuffer(content, np.uint8).reshape(3, PIXELS).T
