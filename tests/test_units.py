"""Sizes as people write them, and as they are printed: what is printed is read back."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sensprobe.errors import UsageError
from sensprobe.jobs.budgets import budgets_of
from sensprobe.report.values import in_bytes
from sensprobe.units import byte_count, limit_bytes, size_text

FULL = {"total": 10_000, "weight": 8_000, "state": 2_000}


@pytest.mark.parametrize(
    ("text", "bytes_"),
    [("12288", 12288), ("12KiB", 12288), ("12.5kB", 12500), ("12,288 bytes", 12288),
     ("1 MiB", 2**20)],
)  # fmt: skip
def test_sizes_are_read(text: str, bytes_: int) -> None:
    assert byte_count(text) == limit_bytes(text, 7) == bytes_


@pytest.mark.parametrize(
    ("text", "bytes_"),
    [("25%", 2500), ("8x", 1250), ("12.5 %", 1250), ("1.6X", 6250), ("3×", 3333)],
)
def test_parts_of_full_precision(text: str, bytes_: int) -> None:
    assert limit_bytes(text, 10_000) == bytes_


@pytest.mark.parametrize(
    "text",
    ["", "x", "%", "0x", "0%", "-1", "1.57e+03KiB", "12 KB/s", "1,23", "9" * 4000, True, 1.5],
)
def test_what_is_no_size_says_what_is(text: object) -> None:
    with pytest.raises(UsageError, match=r"8x") as told:
        limit_bytes(text, 10_000)  # type: ignore[arg-type]
    assert len(str(told.value)) < 200


@given(st.integers(0, 2**50))
def test_printed_sizes_are_read_back(count: int) -> None:
    for said in (size_text, in_bytes):
        text = said(count)
        again = byte_count(text)
        assert said(again) == text
        assert abs(again - count) <= 1 + 0.006 * count  # half of a last digit


@given(
    st.one_of(
        st.builds("{}%".format, st.integers(1, 99)),
        st.builds("weights<={}".format, st.integers(1, 10**9)),
        st.builds("weights<={}KiB state<={}x".format, st.integers(1, 99), st.integers(1, 9)),
        st.builds("loss<={:g}".format, st.floats(0, 100)),
    )
)
def test_a_budget_is_what_its_label_says(label: str) -> None:
    (budget,) = budgets_of([label], None, None, None, FULL)
    assert str(budget) == label
    assert budgets_of([str(budget)], None, None, None, FULL) == (budget,)


def test_labels_of_budgets_by_option_are_read_back() -> None:
    by_option = budgets_of([], "50%", 100, None, FULL) + budgets_of([], None, None, 0.5, FULL)
    for budget in by_option:
        assert budgets_of([str(budget)], None, None, None, FULL) == (budget,)
    assert (by_option[0].weight, by_option[0].state) == (4_000, 100)
    for wrong in ("size<=3", "loss<=low", "loss<=-1", "weights<="):
        with pytest.raises(UsageError):
            budgets_of([wrong], None, None, None, FULL)


BAD = ("9" * 400, "9" * 305 + "GiB", "9" * 5000, 10**5000, -1, True, None, "1 XiB", "٣KiB", "1e5")


@pytest.mark.parametrize("place", range(len(BAD)))
def test_what_is_no_size(place: int) -> None:
    with pytest.raises(UsageError) as caught:
        byte_count(BAD[place])
    assert len(str(caught.value)) < 200
