"""Numbers as people read them."""

from __future__ import annotations

import subprocess
import sys
from math import inf, isnan, nan

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sensprobe.report.values import (
    ACCURACY,
    KL,
    Measured,
    byte_ticks,
    decimals,
    digits,
    flagged,
    in_bytes,
    level_text,
    measured,
    metric_named,
    plus_minus,
    quantity_of,
    short,
    shortened,
)
from sensprobe.scores.metrics import MetricInfo


@pytest.mark.parametrize(
    ("value", "stderr", "text"),
    [
        (-1.2534, 0.4012, "−1.3 ± 0.4"),
        (-1.2534, 0.2512, "−1.25 ± 0.25"),
        (98.21, 0.66, "98.2 ± 0.7"),
        (1234.5, 21.0, "1,234 ± 21"),
        (0.0144, 0.00116, "0.0144 ± 0.0012"),
        (3.12e-6, 2.1e-7, "(3.12 ± 0.21)e−6"),
        (0.0, 0.0, "0"),
        (-0.25, 0.0, "−0.250"),
        (800 / 9, 4e-15, "88.9"),
        (0.5, nan, "0.500 ± ?"),
        (0.5, inf, "0.500 ± ?"),
        (nan, 1.0, "–"),
        (inf, nan, "∞"),
        (-inf, 1.0, "−∞"),
        (-0.001, 0.3, "0.00 ± 0.30"),
    ],
)
def test_a_value_shows_the_digits_its_error_bears(value: float, stderr: float, text: str) -> None:
    assert plus_minus(Measured(value, stderr)) == text


@given(st.floats(1e-9, 1e6))
def test_an_error_bar_is_shown_within_a_fifth_of_itself(stderr: float) -> None:
    """One or two digits: rounding a leading digit of 3.55 and more is at most 0.5 in 3.55."""
    assert abs(round(stderr, decimals(stderr)) - stderr) <= 0.5 / 3.55 * stderr * 1.0001


@pytest.mark.parametrize(
    ("value", "stderr", "differs"),
    [
        (1.97, 1.0, True),
        (1.95, 1.0, False),
        (-1.97, 1.0, True),
        (0.0, 0.0, False),
        (-0.1, 0.0, True),
        (5.0, nan, False),
        (5.0, inf, False),
        (nan, 1.0, False),
        (-inf, nan, True),
    ],
)
def test_noise_is_not_called_a_difference(value: float, stderr: float, differs: bool) -> None:
    shown = Measured(value, stderr)
    assert shown.differs is differs
    if shown.known:
        assert flagged("x", shown) == ("x" if differs else "· x")


def test_what_is_missing_in_a_document_is_nan() -> None:
    assert isnan(measured(None).value)
    assert isnan(measured({"value": None, "stderr": 0.1}).value)
    assert isnan(measured({"value": True}).value)
    assert measured({"value": 1, "stderr": 2, "n": 3}) == Measured(1.0, 2.0, 3)


def test_units_of_metrics() -> None:
    assert ACCURACY.shown(Measured(0.5, 0.01)) == Measured(50.0, 1.0)
    assert metric_named("accuracy").heading == "accuracy (%)"
    assert metric_named("mse").sign == -1
    assert metric_named("auc", -1).sign == -1
    assert metric_named("auc").change_heading == "auc change"


def test_rounding_of_the_arithmetic_is_not_shown_as_a_loss() -> None:
    assert level_text(KL, Measured(1e-9, 1e-10)) == "< 1e−6"
    assert level_text(KL, Measured(1e-9, 1e-3)) != "< 1e−6"


def test_small_and_large_numbers() -> None:
    assert digits(0.000012) == "1.2e−5"
    assert digits(0.0) == "0"
    assert digits(1234567.0, 3) == "1,230,000"
    assert short(Measured(3.12e-6, 2.1e-7)) == "3.1e−6"
    assert short(Measured(-19.53, 2.0), signed=True) == "−19.5"


def test_bytes() -> None:
    assert in_bytes(312) == "312 bytes"
    assert in_bytes(12288) == "12.00 KiB"
    assert in_bytes(3 * 2**20) == "3.00 MiB"
    assert in_bytes(nan) == "–"


@given(st.floats(1, 1e12), st.floats(1.01, 1e5))
def test_byte_ticks_lie_on_the_axis_and_do_not_crowd(low: float, ratio: float) -> None:
    _, ticks = byte_ticks(low, low * ratio)
    assert all(low <= size <= low * ratio for size, _ in ticks)
    assert len(ticks) <= 18
    assert len({name for _, name in ticks}) == len(ticks)


def test_byte_ticks_of_a_wide_axis_reach_both_ends() -> None:
    unit, ticks = byte_ticks(70e3, 1.1e6)  # at the end of the axis MiB, at its start much less
    assert (unit, [name for _, name in ticks]) == (
        "KiB",
        ["96", "128", "192", "256", "384", "512", "768", "1024"],
    )
    unit, ticks = byte_ticks(300e3, 3e6)
    assert unit == "KiB"
    unit, ticks = byte_ticks(600e3, 9e6)
    assert (unit, [name for _, name in ticks]) == (
        "MiB",
        ["0.75", "1", "1.5", "2", "3", "4", "6", "8"],
    )


@given(st.text(max_size=80), st.integers(8, 40))
def test_a_short_name_is_one_line_that_fits(text: str, width: int) -> None:
    cut = shortened(text, width)
    assert len(cut) <= width
    assert "\n" not in cut


def test_a_test_that_suits_its_tails_decides_where_a_result_carries_one():
    long_tailed = measured({"value": 4.8, "stderr": 2.5, "p": 1e-9})
    assert long_tailed.differs
    assert long_tailed.times(100).differs
    assert not measured({"value": 4.8, "stderr": 2.5}).differs
    assert not measured({"value": 4.8, "stderr": 2.4, "p": 0.09}).differs


def test_an_older_document_means_what_its_metrics_name_meant():
    assert metric_named("accuracy").change_heading == "accuracy change (points)"
    declared = MetricInfo("accuracy", "dB", "dB", higher_is_better=False)
    assert quantity_of(declared).heading == "accuracy (dB)"
    assert quantity_of(declared).sign == -1


@pytest.mark.parametrize(
    ("module", "slow"),
    [
        ("values", {"pandas", "plotly", "matplotlib", "scipy", "torch"}),
        ("drawing.text", {"plotly", "matplotlib", "torch"}),
        ("drawing.screen", {"matplotlib", "torch"}),
        ("writing", {"matplotlib", "optuna", "torch"}),
    ],
)
def test_a_module_waits_for_no_library_that_it_does_not_need(module: str, slow: set[str]) -> None:
    code = f"import sys, sensprobe.report.{module}; sys.exit(str({slow} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stderr.strip() == "set()"
