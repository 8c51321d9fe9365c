"""Sizes as people write them."""

from __future__ import annotations

from typing import Any

import pytest

from sensprobe.errors import UsageError
from sensprobe.units import byte_count


@pytest.mark.parametrize(
    ("size", "count"), [(12288, 12288), ("12288", 12288), ("12KiB", 12288), ("12.5kB", 12500)]
)
def test_sizes(size: Any, count: int) -> None:
    assert byte_count(size) == count


BAD = ("9" * 400, "9" * 305 + "GiB", "9" * 5000, 10**5000, -1, True, None, "1 XiB", "٣KiB", "1e5")


@pytest.mark.parametrize("place", range(len(BAD)))
def test_what_is_no_size(place: int) -> None:
    with pytest.raises(UsageError) as caught:
        byte_count(BAD[place])
    assert len(str(caught.value)) < 200
