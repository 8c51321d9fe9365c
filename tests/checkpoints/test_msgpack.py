"""flax's msgpack and .npz: what is read of them, and that a damaged or hostile file is refused."""

from __future__ import annotations

import io
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import s5_files as s5
import torch
from hypothesis import given
from hypothesis import strategies as st
from npz_files import announcing, described, member

from sensprobe.checkpoints import read_checkpoint
from sensprobe.checkpoints.arrays import Array, read_npz
from sensprobe.checkpoints.msgpack import DEPTH, begins_map, read_msgpack
from sensprobe.errors import CheckpointError

LITTLE = 2**20
"""Bytes that a refusal may take, far below what hostile files announce."""


def read(path: Path, content: bytes) -> Any:
    path.write_bytes(content)
    return read_msgpack(path)


def refusal(path: Path, content: bytes) -> str:
    """What is said of a file, for which little RAM is taken."""
    path.write_bytes(content)
    tracemalloc.start()
    try:
        with pytest.raises(CheckpointError) as error:
            read_npz(path) if path.suffix == ".npz" else read_msgpack(path)
        assert tracemalloc.get_traced_memory()[1] < LITTLE + 4 * len(content)
    finally:
        tracemalloc.stop()
    said = str(error.value)
    assert path.name in said
    assert "it is truncated, damaged or of another kind. Copy it again" in said
    assert len(said) < 500
    return said


# -- values ---------------------------------------------------------------------------------------

VALUES: s5.Tree = {
    "": None, "truths": [True, False], "whole": [0, 127, 128, -1, -(2**63), 2**64 - 1],
    "real": [0.0, -1e300, float("inf")], "complex": 1.5 - 2j, "bytes": b"\x00\xff", "é": "ü" * 40,
    "texts": ["", "x" * 31, "x" * 32, "x" * 255], "nothing": [{}, []],
    "deep": {"a": {"b": {"c": [[1]]}}},
    "map of many": {str(i): i for i in range(70)},
}  # fmt: skip


def test_values_are_read_as_they_were_written(tmp_path):
    assert read(tmp_path / "m.msgpack", s5.packed(VALUES)) == VALUES


NUMBERS = [b"\xff", b"\xe0", b"\xcc\x80", b"\xcd\x01\x00", b"\xce\x00\x01\x00\x00", b"\xd0\x80",
           b"\xd1\x80\x00", b"\xd2\x80\x00\x00\x00"]  # fmt: skip


def test_numbers_of_every_width(tmp_path):
    content = bytes([0x80 + len(NUMBERS)])
    for i, number in enumerate(NUMBERS):
        content += s5.text(str(i)) + number
    found = read(tmp_path / "m.msgpack", content)
    assert list(found.values()) == [-1, -32, 128, 256, 65536, -128, -32768, -(2**31)]
    single = read(tmp_path / "m.msgpack", b"\x81\xa1x\xca\x3f\x40\x00\x00")
    assert single == {"x": 0.75}


@pytest.mark.parametrize(
    "dtype", ["float32", "float64", "float16", "int64", "uint8", "bool", "complex64"]
)
@pytest.mark.parametrize("shape", [(), (0,), (3,), (2, 0, 4), (2, 3, 4)])
def test_an_array_keeps_its_numbers(tmp_path, dtype, shape):
    want = (np.arange(np.prod(shape, dtype=int)) % 7).astype(dtype).reshape(shape)
    for value in (want, want[()]):
        found = read(tmp_path / "m.msgpack", s5.packed({"a": value}))["a"]
        assert found.header.shape == shape
        assert found.header.dtype == f"torch.{dtype}"
        assert torch.equal(found.tensor(), torch.from_numpy(want))


def test_bfloat16_is_read_without_numpy_knowing_it(tmp_path):
    want = torch.tensor([1.0, -2.5, 3e38], dtype=torch.bfloat16)
    content = want.view(torch.uint8).numpy().tobytes()
    array = s5.extension(1, s5.packed([[3], "bfloat16", content]))
    found = read(tmp_path / "m.msgpack", b"\x81\xa1a" + array)["a"]
    assert torch.equal(found.tensor(), want)


def test_an_array_in_chunks(tmp_path):
    want = np.arange(24, dtype=np.float32).reshape(4, 6)
    parts = {str(i): part for i, part in enumerate(np.split(want.reshape(-1), [9, 18]))}
    table = {"__msgpack_chunked_array__": True, "shape": {"0": 4, "1": 6}, "chunks": parts}
    found = read(tmp_path / "m.msgpack", s5.packed({"a": table}))["a"]
    assert torch.equal(found.tensor(), torch.from_numpy(want))
    for change, says in (
        ({"shape": {"0": 5, "1": 6}}, "has 96 bytes"),
        ({"chunks": {"0": parts["0"], "2": parts["2"]}}, "an array in chunks is damaged"),
        ({"chunks": {}}, "an array in chunks lacks them"),
        ({"chunks": {"0": 1}}, "an array in chunks lacks them"),
        ({"chunks": parts | {"1": parts["1"].astype(np.int32)}}, "chunks of several types"),
    ):
        assert says in refusal(tmp_path / "m.msgpack", s5.packed({"a": table | change}))


# -- damaged and hostile files --------------------------------------------------------------------


def holding(value: bytes) -> bytes:
    return b"\x81\xa1a" + value


def array_of(shape: Any, dtype: Any, numbers: bytes) -> bytes:
    return holding(s5.extension(1, s5.packed([shape, dtype, numbers])))


ARRAYS = b"".join(
    b"\xc9" + (7 * n - 6).to_bytes(4, "big") + b"\x01\x91" for n in range(2_000, 0, -1)
)
NESTED = b"\x81\xa1a" * 5_000 + b"\xc0"
HOSTILE = {
    "bytes": (holding(b"\xc6\xff\xff\xff\xff"), "4,294,967,295 bytes are announced where 0"),
    "text": (holding(b"\xdb\xff\xff\xff\xff"), "4,294,967,295 bytes are announced"),
    "list": (holding(b"\xdd\xff\xff\xff\xff"), "4,294,967,295 values are announced and the"),
    "map": (b"\xdf\xff\xff\xff\xff\xa1a\x01", "4,294,967,295 values are announced"),
    "extension": (holding(b"\xc9\xff\xff\xff\xff\x01"), "bytes are announced where 0 are left"),
    "array": (array_of([2**40, 2**20], "float32", b"1234"), "has 4 bytes"),
    "negative": (array_of([-1, -4], "uint8", b"1234"), "an array has the shape [-1, -4]"),
    "axes": (array_of([1] * 15, "uint8", b"12"), "has 2 bytes"),
    "truth": (array_of([True, 4], "uint8", b"1234"), "an array has the shape [True, 4]"),
    "object": (array_of([1], "object", b"12345678"), "an array is of type 'object', which is not"),
    "fields": (array_of([1], "f4,f4", b"12345678"), "an array is of type 'f4,f4', which"),
    "typeless": (array_of([1], 3, b"1"), "extension 1 is damaged"),
    "another": (holding(b"\xc7\x02\x05ab"), "extension 5 is none of flax's"),
    "time": (holding(b"\xd6\xff1234"), "extension 255 is none of flax's"),
    "inside": (holding(s5.extension(1, s5.extension(1, b"\x90") * 400)), "extension 1 is damaged"),
    "half complex": (holding(s5.extension(2, s5.packed([1.0]))), "extension 2 is damaged"),
    "more in it": (holding(s5.extension(2, s5.packed([1.0, 2.0]) + b"\x01")), "or is damaged"),
    "nested": (NESTED, f"it is nested more than {DEPTH} deep"),
    "nested lists": (holding(b"\x91" * 5_000 + b"\xc0"), "it is nested more than"),
    "nested arrays": (holding(ARRAYS), f"nested more than {DEPTH} deep"),
    "unused": (holding(b"\xc1"), "byte 0xc1 begins no value"),
    "twice": (b"\x82\xa1a\x01\xa1a\x02", "a map has the name 'a', which is no text or there twice"),
    "numbered": (b"\x81\x01\x02", "a map has the name 1, which is no text"),
    "not UTF-8": (holding(b"\xa2\xff\xfe"), "a text is not UTF-8"),
    "more": (holding(b"\x01") + b"\x00\x00", "2 bytes follow its end"),
    "list alone": (b"\x91\x01", "it holds a list, not a map of names"),
    "nothing": (b"\x81", "1 values are announced"),
}  # fmt: skip


@pytest.mark.parametrize("kind", HOSTILE)
def test_what_flax_does_not_write_is_refused(tmp_path, kind):
    content, says = HOSTILE[kind]
    assert says in refusal(tmp_path / "m.msgpack", content)


WHOLE = s5.packed(s5.train_state(s5.params(), s5.batch_stats()))


@given(st.integers(0, len(WHOLE) - 1))
def test_a_truncated_file(tmp_path_factory, keep):
    path = tmp_path_factory.getbasetemp() / "short.msgpack"
    path.write_bytes(WHOLE[:keep])
    with pytest.raises(CheckpointError, match=r"short\.msgpack"):
        read_checkpoint(path)


@given(st.integers(0, len(WHOLE) - 1), st.integers(0, 7), st.sampled_from([".msgpack", ".npz"]))
def test_a_flipped_bit_gives_a_model_or_a_checkpoint_error(tmp_path_factory, place, bit, kind):
    path = tmp_path_factory.getbasetemp() / f"flipped{kind}"
    content = bytearray(WHOLE if kind == ".msgpack" else zipped({"params": s5.params()}))
    content[place % len(content)] ^= 1 << bit
    path.write_bytes(content)
    try:
        model, _ = read_checkpoint(path)
    except CheckpointError as error:
        assert "\n" not in str(error)  # noqa: PT017
    else:
        assert model.family == "s5"


def test_other_files_do_not_begin_as_these_do(tmp_path):
    assert begins_map(WHOLE[:16])
    assert begins_map(b"\xde\x00\x10\xa4step\x01")
    torch.save({"a": torch.ones(2)}, tmp_path / "m.pth", _use_new_zipfile_serialization=False)
    others = (
        (tmp_path / "m.pth").read_bytes(),
        b"\x80\x04\x95",
        b"PK\x03\x04",
        b"<html>",
        b"\x88\x0a\0\0\0\0\0\0{",
    )
    assert not any(begins_map(other[:16]) for other in others)


# -- .npz -----------------------------------------------------------------------------------------


def zipped(tree: s5.Tree) -> bytes:
    out = io.BytesIO()
    np.savez(out, **s5.flat(tree))
    return out.getvalue()


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (member(described("(1099511627776,)"), b"1234"), "has 4 bytes"),
        (member(described("(2,)", "|O"), b"12345678"), "holds pickled objects, which are never"),
        (member(described("(2,)", "|V2"), b"1234"), "is of type 'void16', which is not read"),
        (member("__import__('os')", b""), "cannot be read as .npz"),
        (b"PK\x03\x04" + bytes(40), "cannot be read as .npz"),
        (b"no archive", "cannot be read as .npz"),
    ],
)
def test_what_is_no_plain_array_is_refused(tmp_path, content, says):
    assert says in refusal(tmp_path / "m.npz", content)


def test_an_archive_that_announces_more_than_it_can_hold(tmp_path):
    content = announcing(member(described("(1,)"), b"1234", compressed=True), 2**31)
    assert "larger than a file of this size can hold" in refusal(tmp_path / "m.npz", content)


def test_an_array_is_a_view_until_it_is_asked_for(tmp_path):
    path = tmp_path / "m.msgpack"
    path.write_bytes(s5.packed({"a": np.zeros(2**20, np.float32)}))
    found = read_msgpack(path)["a"]
    assert isinstance(found, Array)
    assert all(isinstance(piece, memoryview) for piece in found.pieces)
