"""Packing against its definition: bit j of code i is bit i * bits + j of the stream."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sensprobe_kernels.packing import layout
from sensprobe_kernels.packing.layout import pack, packed_bytes, unpack


def stream(packed: np.ndarray) -> list[int]:
    """The bits of packed bytes in stream order, by the definition."""
    return [(int(byte) >> place) & 1 for byte in packed for place in range(8)]


@st.composite
def packable(draw: st.DrawFn) -> tuple[list[int], int, bool]:
    bits, signed = draw(st.integers(1, 16)), draw(st.booleans())
    low, high = (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1) if signed else (0, 2**bits - 1)
    return draw(st.lists(st.integers(low, high), max_size=40)), bits, signed


def test_the_worked_example() -> None:
    assert pack(np.array([1, 2, 7, 4]), 3).tobytes() == bytes.fromhex("d109")


@given(packable())
def test_every_bit_lies_where_the_definition_says(case: tuple[list[int], int, bool]) -> None:
    codes, bits, signed = case
    packed = pack(np.array(codes, np.int32), bits, signed)
    wanted = [(code >> j) & 1 for code in codes for j in range(bits)]
    assert packed.size == packed_bytes(len(codes), bits) == (len(codes) * bits + 7) // 8
    assert stream(packed) == wanted + [0] * (packed.size * 8 - len(wanted))


@given(packable())
def test_unpack_is_the_inverse(case: tuple[list[int], int, bool]) -> None:
    codes, bits, signed = case
    packed = pack(np.array(codes, np.int32), bits, signed)
    assert unpack(packed, bits, len(codes), signed).tolist() == codes


@pytest.mark.parametrize("bits", [1, 3, 8, 13, 16])
def test_blocks_join_without_a_seam(monkeypatch: pytest.MonkeyPatch, bits: int) -> None:
    codes = np.random.default_rng(bits).integers(0, 2**bits, 1001)
    whole = pack(codes, bits)
    monkeypatch.setattr(layout, "_AT_ONCE", 16)
    assert np.array_equal(pack(codes, bits), whole)
    assert np.array_equal(unpack(whole, bits, codes.size), codes)


def test_codes_of_any_shape_and_dtype_are_taken_in_c_order() -> None:
    codes = np.arange(12, dtype=np.int64).reshape(3, 4)
    assert np.array_equal(pack(codes.T, 4), pack(codes.T.ravel().astype(np.uint8), 4))


@pytest.mark.parametrize(
    ("codes", "bits", "signed", "words"),
    [
        ([8], 3, False, r"8 to 8 do not fit 3 unsigned bits: 0 to 7"),
        ([-1], 3, False, r"-1 to -1 do not fit"),
        ([4], 3, True, r"do not fit 3 signed bits: -4 to 3"),
        ([0], 17, False, r"1 to 16 bits, not 17"),
        ([0.5], 3, False, r"whole numbers, not float64"),
    ],
)
def test_what_cannot_be_packed_is_refused(
    codes: list[float], bits: int, signed: bool, words: str
) -> None:
    with pytest.raises(ValueError, match=words):
        pack(np.array(codes), bits, signed)


@pytest.mark.parametrize("size", [1, 3])
def test_bytes_that_are_not_the_codes_are_refused(size: int) -> None:
    with pytest.raises(ValueError, match=r"5 codes of 3 bits take 2 bytes"):
        unpack(np.zeros(size, np.uint8), 3, 5)
