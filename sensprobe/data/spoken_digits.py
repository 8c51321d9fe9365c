"""The Free Spoken Digit Dataset, read sample by sample: ten classes, 8 kHz, one channel.

    spoken-digits:PATH[,length=8000]

PATH is the folder `recordings` of github.com/Jakobovski/free-spoken-digit-dataset, with files
DIGIT_SPEAKER_INDEX.wav, or an .npz file of the same: audio (all recordings in a row, int16), and of
each recording its length, label, speaker and index.

A recording is cut after `length` steps (8,000 are a second; 20 of 3,000 recordings are longer), or
zeros follow it. Its samples, 16-bit integers, are divided by 32,768 and lie in [-1, 1).

The index of a recording, from 0 to 49 for each speaker and digit, says its split. The official test
recordings, of index below 5, are `confirmation`; 5 is `calibration`, 6 to 10 are `search`, and from
11 on they are `train`. So every split has every speaker, and scores are of these speakers.
"""

from __future__ import annotations

import re
import wave
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np

from sensprobe.data.dataset import Dataset, LazySplit, Split, Splits, build_split, hash_arrays
from sensprobe.data.npz import npz_arrays
from sensprobe.data.options import read_options, split_options
from sensprobe.documents.files import named_path
from sensprobe.errors import DataError, UsageError

CLASSES = 10
LENGTH = 8000
RATE_HZ = 8000
PEAK = np.float32(2**15)
FIRST_INDEX = {"confirmation": 0, "calibration": 5, "search": 6, "train": 11}
NAME = re.compile(r"([0-9])_([A-Za-z]+)_([0-9]{1,6})\.wav")
HOW_TO_GET = (
    "get github.com/Jakobovski/free-spoken-digit-dataset and name its folder `recordings`, with "
    "files such as 7_jackson_32.wav"
)
ABSENT = (
    "recordings of index 0 to 4 are confirmation, 5 calibration, 6 to 10 search, the others train"
)


class Recording(NamedTuple):
    """One recording; sorted by what comes first here. audio (l,) int16, cut after `length`."""

    digit: int
    speaker: str
    number: int
    audio: np.ndarray


def load(rest: str, spec: str) -> Dataset:
    """`spoken-digits:` data; `rest` is what follows the colon."""
    name, options = split_options(rest)
    length = read_options(options, spec, numbers=("length",)).numbers.get("length", LENGTH)
    if length < 1:
        raise UsageError(f"{spec}: length={length}: a sequence has at least one step.")
    path = named_path(name)
    if not path.exists():
        raise DataError(f"{spec}: {path} does not exist; {HOW_TO_GET}")
    every = _from_folder(path, length, spec) if path.is_dir() else _from_npz(path, length, spec)
    every.sort(key=lambda recording: recording[:3])
    x = np.zeros((len(every), length), np.int16)
    for row, recording in zip(x, every, strict=True):
        row[: len(recording.audio)] = recording.audio
    y = np.array([recording.digit for recording in every], dtype=np.int64)
    index = [recording.number for recording in every]
    which = np.searchsorted(list(FIRST_INDEX.values()), index, "right") - 1
    sources: dict[str, LazySplit] = {}
    for k, split in enumerate(FIRST_INDEX):
        if (rows := np.flatnonzero(which == k)).size:
            part = x[rows], y[rows], rows
            sources[split] = LazySplit(
                len(rows), partial(_split, split, *part), partial(_fingerprint, *part)
            )
    splits = Splits(sources, dict.fromkeys(FIRST_INDEX, ABSENT))
    return Dataset(spec, "classification", splits, CLASSES, CLASSES, length, 1)


def _split(name: str, x: np.ndarray, y: np.ndarray, rows: np.ndarray) -> Split:
    values = (x.astype(np.float32) / PEAK)[:, :, None]  # (n, l, 1)
    return build_split(name, values, y, rows, "recordings", fingerprint=_fingerprint(x, y, rows))


def _fingerprint(x: np.ndarray, y: np.ndarray, rows: np.ndarray) -> str:
    """The fingerprint of the integers: half as much to hash as the floats they become."""
    return hash_arrays(x, y, None, rows)


def _from_folder(folder: Path, length: int, spec: str) -> list[Recording]:
    matches = [match for path in folder.iterdir() if (match := NAME.fullmatch(path.name))]
    if not matches:
        raise DataError(f"{spec}: {folder} holds no recording; {HOW_TO_GET}")
    return [
        Recording(int(m[1]), m[2], int(m[3]), _read_wave(folder / m[0], length, spec))
        for m in matches
    ]


def _read_wave(path: Path, length: int, spec: str) -> np.ndarray:
    """The first `length` samples (l,) int16 of a recording."""
    try:
        with wave.open(str(path), "rb") as file:
            kind = file.getnchannels(), file.getsampwidth(), file.getframerate()
            if kind != (1, 2, RATE_HZ):
                raise DataError(
                    f"{spec}: {path.name} has {kind[0]} channel(s) of {kind[1]} byte(s) at "
                    f"{kind[2]} Hz; recordings have one of 2 bytes at {RATE_HZ} Hz. {HOW_TO_GET}"
                )
            content = file.readframes(length)
    except (wave.Error, EOFError, OSError, RuntimeError) as error:
        reason = str(error) or type(error).__name__
        raise DataError(f"{spec}: {path} cannot be read ({reason}); get it again") from error
    return np.frombuffer(content[: len(content) // 2 * 2], "<i2")


def _from_npz(path: Path, length: int, spec: str) -> list[Recording]:
    audio, *columns = npz_arrays(path, spec, ("audio", "length", "label", "speaker", "index"))
    count = columns[0].size
    if not (
        (audio.dtype, audio.ndim) == (np.int16, 1)
        and all(c.dtype.kind in "iu" and c.shape == (count,) for c in columns)
    ):
        raise DataError(
            f"{spec}: in {path} audio must be int16 in a row, and the others whole numbers, one a "
            f"recording. Or {HOW_TO_GET}"
        )
    sizes, digits, speakers, index = (c.astype(np.int64) for c in columns)
    right = {
        "there are recordings": count > 0,
        "lengths are positive and sum up to that of audio": (sizes > 0).all()
        and sum(sizes.tolist()) == len(audio),
        "labels are 0 to 9": ((digits >= 0) & (digits < CLASSES)).all(),
        "indices count from 0": (index >= 0).all(),
    }
    if wrong := [rule for rule, holds in right.items() if not holds]:
        raise DataError(f"{spec}: {path} breaks a rule: {'; '.join(wrong)}. Or {HOW_TO_GET}")
    starts = np.cumsum(sizes) - sizes
    return [
        Recording(
            int(digits[k]), f"{speakers[k]:05d}", int(index[k]), audio[at : at + size][:length]
        )
        for k, (at, size) in enumerate(zip(starts.tolist(), sizes.tolist(), strict=True))
    ]
