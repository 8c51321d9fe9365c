"""Formats list the numbers they can name; the lists are checked against their standards."""

from __future__ import annotations

import pytest
import torch

from sensprobe.errors import SchemeError
from sensprobe.plans.formats import (
    BF16,
    E2M1,
    E4M3,
    E5M2,
    FORMATS,
    FP16,
    FP32,
    Float,
    Int,
    Log,
    LogPolar,
    Polar,
    parse_format,
)

LISTED = [f for f in FORMATS.values() if f != FP32 and f != BF16]


def every_bit_pattern(dtype: torch.dtype, bits: int) -> list[float]:
    """All finite values of a torch format, by reading every pattern of its bits."""
    raw = torch.arange(2**bits, dtype=torch.int32).to(torch.uint16 if bits == 16 else torch.uint8)
    values = raw.view(dtype).to(torch.float64)
    return sorted(set(values[torch.isfinite(values)].tolist()))


@pytest.mark.parametrize("format", LISTED, ids=str)
def test_values_ascend_and_are_symmetric_about_one_zero(format):
    values = format.values()
    assert values == sorted(set(values))
    assert values == [-v for v in reversed(values)]
    assert values.count(0.0) == 1
    assert values[-1] == format.peak


@pytest.mark.parametrize("format", LISTED, ids=str)
def test_values_fit_their_codes(format):
    """A sign and a magnitude each: 2^bits codes, two of them zero, some reserved."""
    count = len(format.values())
    assert count <= 2**format.bits - 1
    assert count > 2 ** (format.bits - 1)


@pytest.mark.parametrize(
    ("format", "dtype", "bits"),
    [
        (E4M3, torch.float8_e4m3fn, 8),
        (E5M2, torch.float8_e5m2, 8),
        (FP16, torch.float16, 16),
        (BF16, torch.bfloat16, 16),
    ],
    ids=str,
)
def test_floats_name_what_the_hardware_format_names(format, dtype, bits):
    assert format.values() == every_bit_pattern(dtype, bits)


def test_the_four_bit_float_names_the_eight_magnitudes_of_the_microscaling_standard():
    assert E2M1.code_values() == [0, 0.5, 1, 1.5, 2, 3, 4, 6]


def test_the_eight_bit_floats_have_their_standard_peaks_and_counts():
    assert (E4M3.peak, len(E4M3.values())) == (448, 253)
    assert (E5M2.peak, len(E5M2.values())) == (57344, 247)


def test_peaks_of_wide_floats_are_those_of_torch():
    for format, dtype in [(FP16, torch.float16), (BF16, torch.bfloat16), (FP32, torch.float32)]:
        assert format.peak == torch.finfo(dtype).max
        assert 2.0**format.floor == torch.finfo(dtype).tiny
        assert format.bits == torch.finfo(dtype).bits


def test_powers_of_two_end_at_one():
    assert Log(4).code_values() == [0, 2**-6, 2**-5, 2**-4, 2**-3, 2**-2, 2**-1, 1]
    assert Log(8).code_values()[1] == 2.0**-126  # still a normal float32


def test_integers_are_symmetric():
    assert Int(2).values() == [-1, 0, 1]
    assert (Int(8).peak, Int(8).levels) == (127, 255)
    assert Int(16).values()[0] == -32767


@pytest.mark.parametrize("name", FORMATS)
def test_names_parse_back(name):
    assert str(parse_format(name)) == name


def test_polar_names_parse_back_and_count_bits_a_complex_number():
    assert parse_format("polar(m4,p8)") == Polar(4, 8)
    assert parse_format("logpolar(m1,p11)") == LogPolar(1, 11)
    assert str(LogPolar(1, 11)) == "logpolar(m1,p11)"
    assert Polar(4, 8).bits == LogPolar(1, 11).bits == 12


def test_exact_is_another_word_for_fp32():
    assert parse_format("exact") == FP32


@pytest.mark.parametrize("name", ["int1", "int17", "int", "e3m4", "log2", "log9", "", "INT8"])
def test_unknown_names_are_answered_with_those_that_exist(name):
    with pytest.raises(SchemeError, match=r"no format .*Formats: int2 to int16, e4m3"):
        parse_format(name)


@pytest.mark.parametrize("name", ["polar(m0,p8)", "polar(m4,p17)", "logpolar(m17,p1)"])
def test_polar_bits_are_limited(name):
    with pytest.raises(SchemeError, match="1 to 16 bits each"):
        parse_format(name)


def test_a_value_missing_from_a_format_is_noticed():
    """The comparison with the hardware formats can fail: e4m3 with a wrong peak does."""
    assert Float("wrong", 4, 3, 480.0).values() != every_bit_pattern(torch.float8_e4m3fn, 8)
