"""npz files and users' functions: kinds, splits, and every way arrays can be wrong."""

import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from npz_files import announcing, described, member

from sensprobe.data import SPLIT_NAMES, Dataset, load_data
from sensprobe.data.arrays import from_mapping
from sensprobe.errors import DataError, UsageError

RNG = np.random.default_rng(3)


def fields(n: int = 40, **more: Any) -> dict[str, Any]:
    return {"x": RNG.normal(size=(n, 5)), "y": np.arange(n) % 4, **more}


def npz(folder: Path, **arrays: Any) -> str:
    path = folder / "data.npz"
    np.savez(path, **arrays)
    return f"npz:{path}"


def positions(data: Dataset) -> list[int]:
    return sorted(int(i) for split in data.splits.values() for i in split.index)


def test_integers_are_classes(tmp_path: Path) -> None:
    data = load_data(npz(tmp_path, **fields()))
    assert (data.task, data.classes, data.outputs) == ("classification", 4, 4)
    assert (data.length, data.d_input) == (5, 1)
    split = data.splits["search"]
    assert split.x.shape == (18, 5, 1)
    assert split.y.dtype == torch.int64


def test_floats_are_targets() -> None:
    data = from_mapping(fields(y=RNG.normal(size=(40, 3))), "f", 0)
    assert (data.task, data.classes, data.outputs) == ("regression", None, 3)
    assert data.splits["search"].y.dtype == torch.float32
    assert data.splits["search"].y.shape == (18, 3)


@pytest.mark.parametrize("dtype", ["f2", "f4", "f8", "i1", "u2", "i8", "?", ">f4"])
def test_any_real_dtype_becomes_float32(dtype: str) -> None:
    x = (RNG.normal(size=(40, 5, 2)) * 3).astype(dtype)
    data = from_mapping(fields(x=x), "f", 0)
    assert data.d_input == 2
    for split in data.splits.values():
        assert split.x.dtype == torch.float32
        assert np.array_equal(split.x.numpy(), x[split.index.numpy()].astype(np.float32))


def test_torch_tensors_and_lists_are_taken() -> None:
    x = torch.arange(12.0, requires_grad=True).reshape(6, 2)
    data = from_mapping({"x": x, "y": [0, 1, 0, 1, 0, 1]}, "f", 0)
    assert positions(data) == list(range(6))


@given(n=st.integers(3, 200), seed=st.integers(0, 5))
def test_a_shuffled_cut_uses_every_sample_once(n: int, seed: int) -> None:
    data = from_mapping({"x": np.zeros((n, 2)), "y": np.zeros(n, int)}, "f", seed)
    assert positions(data) == list(range(n))
    data.check_disjoint()
    sizes = data.sizes()
    assert list(sizes) == ["calibration", "search", "confirmation"]
    for name, share in (("calibration", 0.1), ("search", 0.45), ("confirmation", 0.45)):
        assert abs(sizes[name] - share * n) <= 1.0
        assert sizes[name] >= 1


def test_the_seed_decides_the_cut_and_the_fingerprint() -> None:
    given_fields = fields()
    zero, again, one = (from_mapping(given_fields, "f", seed) for seed in (0, 0, 1))
    assert zero.fingerprint == again.fingerprint != one.fingerprint


@given(groups=st.lists(st.integers(0, 9), min_size=3, max_size=80), seed=st.integers(0, 3))
def test_groups_never_straddle(groups: list[int], seed: int) -> None:
    n = len(groups)
    given_fields = {"x": np.zeros((n, 2)), "y": np.zeros(n, int), "group": np.array(groups)}
    if len(set(groups)) < 3:
        with pytest.raises(DataError, match=r"group\(s\); calibration, search and confirmation"):
            from_mapping(given_fields, "f", seed)
        return
    data = from_mapping(given_fields, "f", seed)
    assert positions(data) == list(range(n))
    seen: set[int] = set()
    for split in data.splits.values():
        assert split.group is not None
        here = {groups[int(i)] for i in split.index}
        assert not here & seen
        assert len(here) == len(split.group.unique())
        seen |= here


def test_groups_may_have_names() -> None:
    data = from_mapping(fields(group=np.repeat(["ann", "bob", "cy", "dee"], 10)), "f", 0)
    for split in data.splits.values():
        assert split.group is not None
        assert torch.equal(split.group, split.index // 10)


def test_a_split_array_is_followed() -> None:
    names = np.array(["train"] * 10 + ["calibration"] * 5 + ["search"] * 15 + ["test"] * 10)
    data = from_mapping(fields(split=names), "f", 0)
    assert list(data.sizes().items()) == list(zip(SPLIT_NAMES, (10, 5, 15, 10), strict=True))
    assert data.splits["confirmation"].index.tolist() == list(range(30, 40))
    assert data.notes == ()


@pytest.mark.parametrize("alias", ["val", "valid", "validation", "Search"])
def test_aliases_of_search(alias: str) -> None:
    names = np.array(["calibration"] * 10 + [alias] * 20 + ["test"] * 10)
    assert from_mapping(fields(split=names), "f", 0).sizes()["search"] == 20


@pytest.mark.parametrize(
    ("counts", "sizes", "note"),
    [
        (
            {"train": 20, "val": 10, "test": 10},
            {"train": 18, "calibration": 2, "search": 10, "confirmation": 10},
            "no calibration split: 2 samples carved out of train",
        ),
        (
            {"val": 20, "test": 20},
            {"calibration": 2, "search": 18, "confirmation": 20},
            "no calibration split: 2 samples carved out of search",
        ),
        (
            {"train": 20, "test": 20},
            {"train": 16, "calibration": 2, "search": 2, "confirmation": 20},
            "no search split: 2 samples carved out of train",
        ),
        (
            {"test": 40},
            {"calibration": 2, "search": 18, "confirmation": 20},
            "no search split: 20 samples carved out of confirmation",
        ),
        (
            {"calibration": 20, "search": 20},
            {"calibration": 20, "search": 10, "confirmation": 10},
            "no confirmation split: 10 samples carved out of search",
        ),
    ],
)
def test_missing_splits_are_carved_and_told(
    counts: dict[str, int], sizes: dict[str, int], note: str
) -> None:
    names = np.concatenate([np.full(count, name) for name, count in counts.items()])
    data = from_mapping(fields(split=names), "f", 0)
    assert data.sizes() == sizes
    assert note in data.notes
    assert positions(data) == list(range(40))


def test_carving_keeps_groups_whole() -> None:
    names = np.repeat(["train", "val", "test"], [20, 10, 10])
    data = from_mapping(fields(split=names, group=np.arange(40) // 5), "f", 0)
    assert data.sizes()["calibration"] == 5
    assert len({int(i) // 5 for i in data.splits["calibration"].index}) == 1


def test_a_group_the_user_spread_over_splits_is_told() -> None:
    names = np.repeat(["calibration", "val", "test"], [10, 20, 10])
    data = from_mapping(fields(split=names, group=np.zeros(40, int)), "f", 0)
    assert data.notes == ("1 group(s) have samples in more than one split",)


def test_a_function_may_return_splits() -> None:
    parts = {"validation": fields(20), "test": fields(10)}
    data = from_mapping(parts, "f", 0)
    assert data.sizes() == {"calibration": 2, "search": 18, "confirmation": 10}
    assert np.allclose(data.splits["confirmation"].x[:, :, 0], parts["test"]["x"], atol=1e-6)


def test_a_split_that_repeats_another_is_told_or_refused() -> None:
    one, other = fields(20), fields(10)
    mixed = {key: np.concatenate([one[key][3:4], other[key]]) for key in ("x", "y")}
    data = from_mapping({"search": one, "test": mixed}, "f", 0)
    assert any(note.startswith("1 of 11 confirmation samples repeat") for note in data.notes)
    same = {key: one[key][3:6] for key in ("x", "y")}
    with pytest.raises(DataError, match="every sample of confirmation is in another split"):
        from_mapping({"search": one, "test": same}, "f", 0)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"x": np.full((40, 5), np.nan)}, r"x has 200 value\(s\) that are NaN.*first at \(0, 0\)"),
        ({"x": np.full((40, 5), 1e300)}, "beyond float32"),
        ({"x": np.full((40, 5), np.inf)}, "NaN, infinite"),
        ({"x": np.zeros(40)}, r"x has shape \(40,\); it must be \(samples, length\)"),
        ({"x": np.zeros((40, 0))}, "none of them 0"),
        ({"x": np.zeros((40, 1, 2, 3))}, "x has shape"),
        ({"x": np.full((40, 5), "a")}, "x holds strings"),
        ({"x": np.zeros((40, 5), complex)}, "x has dtype complex128"),
        ({"x": [[1, 2], [3]]}, "x is not one array"),
        ({"y": np.arange(39)}, "x has 40 samples, y has 39 samples"),
        ({"y": np.float64(3.0)}, "y has one value"),
        ({"y": np.arange(40) - 3}, r"3 label\(s\) out of range, the first is -3 at position 0"),
        ({"y": np.full(40, 2**63, np.uint64)}, "out of range"),
        ({"y": np.zeros((40, 1), int)}, r"y holds integers in shape \(40, 1\)"),
        ({"y": np.full(40, "cat")}, "y holds strings; number the classes"),
        ({"y": np.full(40, np.nan)}, "y has 40 value"),
        ({"y": np.array([object()] * 40)}, "y has dtype object.*objects are refused"),
        ({"split": np.array(["train"] * 39 + ["trian"])}, "names a split 'trian'; use train, cal"),
        ({"split": np.zeros(40, int)}, "split has dtype int64"),
        ({"split": np.array(["test"] * 7)}, "split has 7 samples"),
        ({"group": np.zeros((40, 2))}, r"group has shape \(40, 2\)"),
    ],
)
def test_bad_arrays_say_what_and_where(change: dict[str, Any], message: str) -> None:
    with pytest.raises(DataError, match=message):
        from_mapping(fields(**change), "mine", 0)


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ([1, 2], "returned list; return a mapping"),
        ({}, "x and y missing; it has nothing"),
        ({"X": 1, "y": np.zeros(3)}, "x missing; it has X, y"),
        ({"train": fields(), "tset": fields()}, "names a split 'tset'"),
        ({"val": fields(), "validation": fields()}, "returned the split search twice"),
        ({"val": fields(split=["a"] * 40)}, "`split` array of its own"),
        ({"val": fields(), "test": fields(x=np.ones((40, 6)))}, "must agree in the shapes"),
        ({"val": fields(), "test": fields(y=np.ones(40))}, "must agree in the shapes and kinds"),
        ({"val": fields(group=np.ones(40)), "test": fields()}, "some splits have `group`"),
    ],
)
def test_bad_returns_say_what_is_wrong(value: Any, message: str) -> None:
    with pytest.raises(DataError, match=message):
        from_mapping(value, "mine", 0)


def test_too_few_samples() -> None:
    with pytest.raises(DataError, match=r"mine has 2 sample\(s\)"):
        from_mapping(fields(2), "mine", 0)
    with pytest.raises(DataError, match="too small to give one up"):
        from_mapping(fields(1, split=np.array(["val"])), "mine", 0)


def test_pickles_are_never_loaded(tmp_path: Path) -> None:
    marker = tmp_path / "executed"

    class Trap:
        def __reduce__(self) -> tuple[Any, ...]:
            return (Path.touch, (marker,))

    path = tmp_path / "data.npz"
    np.savez(path, x=np.array([Trap()] * 3, dtype=object), y=np.arange(3))
    with pytest.raises(DataError, match="pickled objects, which are never loaded"):
        load_data(f"npz:{path}")
    assert not marker.exists()


@pytest.mark.parametrize(
    "content",
    [
        member(described("(2147483648,)"), bytes(4), name="x"),
        member(described("(-1, -1)"), bytes(4), name="x"),
        announcing(member(described("(1, 1)"), bytes(4), name="x"), 2**31),
    ],
    ids=["a large array", "a negative shape", "a large member"],
)
def test_sizes_that_a_file_announces_are_not_believed(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "data.npz").write_bytes(content)
    tracemalloc.start()
    try:
        with pytest.raises(DataError, match=r"data\.npz is damaged .*(has 4 bytes|can hold)"):
            load_data(f"npz:{tmp_path / 'data.npz'}")
        assert tracemalloc.get_traced_memory()[1] < 2**20
    finally:
        tracemalloc.stop()


def test_missing_and_damaged_npz(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"does not exist; save one with numpy.savez"):
        load_data(f"npz:{tmp_path / 'none.npz'}")
    path = tmp_path / "data.npz"
    np.savez_compressed(path, **fields())
    whole = path.read_bytes()
    for size in (0, 1, 30, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:size])
        with pytest.raises(DataError, match="truncated or no npz"):
            load_data(f"npz:{path}")


def test_no_flipped_byte_escapes_as_another_error(tmp_path: Path) -> None:
    path = tmp_path / "data.npz"
    np.savez(path, **fields(4))
    whole = path.read_bytes()
    truth = load_data(f"npz:{path}").fingerprint
    caught = 0
    for place in range(len(whole)):
        path.write_bytes(whole[:place] + bytes((whole[place] ^ 0xFF,)) + whole[place + 1 :])
        try:
            assert load_data(f"npz:{path}").fingerprint == truth  # a date, or another dead field
        except DataError:
            caught += 1
    assert caught > len(whole) // 2


def test_a_bare_npy_is_told(tmp_path: Path) -> None:
    path = tmp_path / "x.npz"
    with path.open("wb") as stream:
        np.save(stream, np.zeros((3, 3)))
    with pytest.raises(DataError, match="holds one bare array"):
        load_data(f"npz:{path}")


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("digit", "unknown data 'digit'; did you mean digits"),
        ("mnsit:/data", "did you mean mnist"),
        ("digits:x", "unknown data 'digits:x'"),
        ("", "unknown data ''; The forms are digits, mnist:FOLDER"),
        ("some/data.npz", "did you mean npz:some/data.npz"),
        ("npz:", "names nothing after npz:"),
        ("mnist:", "names nothing after mnist:"),
    ],
)
def test_unknown_specs_list_the_forms(spec: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        load_data(spec)


def test_a_bare_folder_suggests_mnist(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="did you mean mnist:"):
        load_data(str(tmp_path))
