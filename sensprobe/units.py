"""Sizes and durations as people write them."""

from __future__ import annotations

import re

from sensprobe.errors import UsageError

_UNITS = {
    "": 1,
    "b": 1,
    "kb": 1000,
    "mb": 10**6,
    "gb": 10**9,
    "kib": 2**10,
    "mib": 2**20,
    "gib": 2**30,
}


LARGEST = 2**62
"""Bytes: more than any machine holds, and whole in every number here."""


def byte_count(size: int | str) -> int:
    """12288, "12288", "12KiB", "12.5kB": bytes as an integer. UsageError for anything else."""
    if isinstance(size, int) and not isinstance(size, bool) and 0 <= size <= LARGEST:
        return size
    if not isinstance(size, str):
        raise UsageError(
            f"{_short(size)} is not a size; give bytes as an integer, or text as in 12KiB."
        )
    match = re.fullmatch(r"\s*([0-9]+(?:\.[0-9]+)?)\s*([A-Za-z]*)\s*", size[:100])
    if not match or match[2].lower() not in _UNITS or len(size) > 100:
        raise UsageError(f"{_short(size)} is not a size; write 12288, 12KiB or 12kB.")
    count = float(match[1]) * _UNITS[match[2].lower()]
    if count > LARGEST:
        raise UsageError(f"{_short(size)} is more than any machine holds; write 12288 or 12KiB.")
    return int(count)


def _short(size: object) -> str:
    try:
        text = repr(size)
    except ValueError:  # Python prints no whole number of thousands of digits
        return f"a number of type {type(size).__name__}"
    return text if len(text) <= 60 else f"{text[:60]}…"


def duration(seconds: float) -> str:
    """Seconds as a person says them."""
    if seconds < 90:
        return f"{max(1, round(seconds))} s"
    if seconds < 5400:
        return f"{round(seconds / 60)} min"
    if seconds < 2 * 86400:
        return f"{seconds / 3600:.1f} h"
    return f"{seconds / 86400:.0f} days"
