"""Spoken digits: the splits by index, padding and scale, and what a folder can have wrong."""

import wave
from pathlib import Path

import numpy as np
import pytest

from sensprobe.data import load_data
from sensprobe.errors import DataError, UsageError

SPEAKERS = ("anna", "bert")


def recordings() -> list[tuple[int, int, int, np.ndarray]]:
    """(digit, speaker, index, audio) of 3 digits, 2 speakers and 13 recordings each."""
    rng = np.random.default_rng(3)
    return [
        (d, s, i, rng.integers(-(2**15), 2**15, rng.integers(3, 20)).astype(np.int16))
        for d in range(3)
        for s in range(2)
        for i in range(13)
    ]


def write_wave(path: Path, audio: np.ndarray, rate: int = 8000) -> None:
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(rate)
        file.writeframes(audio.astype("<i2").tobytes())


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "recordings").mkdir()
    for d, s, i, audio in recordings():
        write_wave(tmp_path / "recordings" / f"{d}_{SPEAKERS[s]}_{i}.wav", audio)
    (tmp_path / "recordings" / "README.md").write_text("not a recording")
    return tmp_path / "recordings"


def save(path: Path, **changes: np.ndarray) -> str:
    every = recordings()
    columns = {
        "audio": np.concatenate([audio for *_, audio in every]),
        "length": np.array([len(audio) for *_, audio in every]),
        "label": np.array([d for d, *_ in every], np.uint8),
        "speaker": np.array([s for _, s, *_ in every], np.uint8),
        "index": np.array([i for _, _, i, _ in every], np.uint8),
    }
    np.savez(path, **{**columns, **changes})
    return f"spoken-digits:{path}"


def test_the_index_says_the_split(folder: Path) -> None:
    data = load_data(f"spoken-digits:{folder}")
    assert data.sizes() == {"train": 12, "calibration": 6, "search": 30, "confirmation": 30}
    assert (data.task, data.classes, data.length, data.d_input) == ("classification", 10, 8000, 1)
    data.check_disjoint()
    heard = {i: audio for d, s, i, audio in recordings() if (d, s) == (2, 1)}
    for name, indices in {"confirmation": range(5), "calibration": [5], "train": [11, 12]}.items():
        split = data.splits[name]
        for row, i in enumerate(indices, start=len(split) - len(indices)):  # the last are 2, bert
            x = split.x[row, :, 0].numpy()
            assert np.array_equal(x[: len(heard[i])] * 2**15, heard[i].astype(np.float32))
            assert not x[len(heard[i]) :].any()
            assert split.y[row] == 2
    everything = data.splits["search"].x
    assert -1 <= float(everything.min()) < 0 < float(everything.max()) < 1


def test_a_recording_is_cut_after_the_length(folder: Path) -> None:
    long, short = (load_data(f"spoken-digits:{folder},length={n}") for n in (8000, 7))
    assert short.splits["search"].x.shape == (30, 7, 1)
    assert np.array_equal(short.splits["search"].x, long.splits["search"].x[:, :7])
    assert short.fingerprint != long.fingerprint


def test_a_folder_and_an_npz_file_are_the_same_data(folder: Path, tmp_path: Path) -> None:
    packed = load_data(save(tmp_path / "digits.npz"))
    assert packed.fingerprint == load_data(f"spoken-digits:{folder}").fingerprint


def test_what_is_absent_says_how_to_get_it(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"does not exist; get github\.com/Jakobovski"):
        load_data(f"spoken-digits:{tmp_path / 'none'}")
    with pytest.raises(DataError, match=r"holds no recording; get github\.com"):
        load_data(f"spoken-digits:{tmp_path}")
    write_wave(tmp_path / "4_anna_2.wav", np.ones(5))
    data = load_data(f"spoken-digits:{tmp_path}")
    with pytest.raises(DataError, match="no train split, it has confirmation; recordings of index"):
        data.splits["train"]


def test_other_recordings_are_refused(folder: Path) -> None:
    write_wave(folder / "0_anna_3.wav", np.ones(5), rate=16_000)
    with pytest.raises(DataError, match=r"0_anna_3.wav has 1 channel\(s\) of 2 .* at 16000 Hz"):
        load_data(f"spoken-digits:{folder}")
    write_wave(folder / "0_anna_3.wav", np.ones(5))
    whole = (folder / "0_anna_3.wav").read_bytes()
    for damaged in (b"RIFF", whole[:30], whole[:16] + b"\xff" * 4 + whole[20:]):
        (folder / "0_anna_3.wav").write_bytes(damaged)
        with pytest.raises(DataError, match=r"0_anna_3.wav cannot be read \(\w"):
            load_data(f"spoken-digits:{folder}")


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"audio": np.zeros(5)}, "audio must be int16 in a row"),
        ({"length": np.array(78)}, "whole numbers, one a recording"),
        ({"length": np.full(78, "3")}, "whole numbers, one a recording"),
        ({"length": np.full(78, 2**62)}, "lengths are positive and sum up"),
        ({"label": np.full(78, 10)}, "labels are 0 to 9"),
        ({"index": np.full(78, -1)}, "indices count from 0"),
        ({"length": np.full(78, 3)}, "lengths are positive and sum up"),
        ({"speaker": np.zeros(7, int)}, "one a recording"),
        ({"index": np.zeros(78)}, "whole numbers"),
    ],
    ids=str,
)
def test_arrays_that_do_not_fit_are_named(
    changes: dict[str, np.ndarray], says: str, tmp_path: Path
) -> None:
    with pytest.raises(DataError, match=says):
        load_data(save(tmp_path / "digits.npz", **changes))


def test_whole_numbers_may_be_of_any_type(folder: Path, tmp_path: Path) -> None:
    spec = save(tmp_path / "digits.npz")
    with np.load(tmp_path / "digits.npz") as file:
        columns = {n: a.astype(np.uint64) for n, a in file.items() if n != "audio"}
    signed = load_data(spec).fingerprint
    assert load_data(save(tmp_path / "digits.npz", **columns)).fingerprint == signed


def test_a_length_below_one(folder: Path) -> None:
    with pytest.raises(UsageError, match="length=0: a sequence has at least one step"):
        load_data(f"spoken-digits:{folder},length=0")
