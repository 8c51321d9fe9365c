"""Sizes and durations as people write them."""

from __future__ import annotations

import re
from decimal import Decimal

from sensprobe.errors import UsageError

_UNITS = {
    "": 1,
    "b": 1,
    "byte": 1,
    "bytes": 1,
    "kb": 1000,
    "mb": 10**6,
    "gb": 10**9,
    "kib": 2**10,
    "mib": 2**20,
    "gib": 2**30,
}


LARGEST = 2**62
"""Bytes: more than any machine holds, and whole in every number here."""
LONGEST = 40
"""Characters of a number, more than any memory needs."""
_NUMBER = r"([0-9]+(?:,[0-9]{3})*(?:\.[0-9]+)?)"
EXACT_BELOW = 10_240
"""Bytes; sizes from here on are printed rounded."""


def byte_count(size: int | str) -> int:
    """12288, "12288", "12KiB", "12.5kB", "12,288 bytes": bytes as an integer. UsageError for
    anything else."""
    if isinstance(size, int) and not isinstance(size, bool) and 0 <= size <= LARGEST:
        return size
    if not isinstance(size, str):
        raise UsageError(
            f"{_short(size)} is not a size; give bytes as an integer, or text as in 12KiB."
        )
    match = re.fullmatch(rf"\s*{_NUMBER}\s*([A-Za-z]*)\s*", size)
    if not match or match[2].lower() not in _UNITS or len(size) > 2 * LONGEST:
        raise UsageError(f"{_short(size)} is not a size; write 12288, 12KiB or 12kB.")
    count = int(Decimal(match[1].replace(",", "")) * _UNITS[match[2].lower()])
    if count > LARGEST:
        raise UsageError(f"{_short(size)} is more than any machine holds; write 12288 or 12KiB.")
    return count


def limit_bytes(size: int | str, full: int) -> int:
    """Bytes as `byte_count` reads them, or a part of `full` bytes: "25%", or "8x" smaller."""
    text = size if isinstance(size, str) else ""
    match = re.fullmatch(rf"\s*{_NUMBER}\s*(%|[xX×])\s*", text[: 2 * LONGEST])
    if not match:
        try:
            return byte_count(size)
        except UsageError as error:
            raise UsageError(
                f"{str(error).removesuffix('.')}; or, of full precision, 25% or 8x."
            ) from None
    value = Decimal(match[1].replace(",", ""))
    if not value:
        raise UsageError(f"{text!r} is no part of full precision; write 25%, or 8x.")
    return int(full * value / 100) if match[2] == "%" else int(full / value)


def size_text(count: float) -> str:
    """Bytes for people, exact below 10 KiB; `byte_count` reads it."""
    if count < EXACT_BELOW:
        return f"{count:,.0f} B"
    unit, size = ("KiB", 2**10) if count < 10 * 2**20 else ("MiB", 2**20)
    return f"{count / size:,.1f} {unit}"


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
