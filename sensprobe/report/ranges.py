"""How large the values of tensors are, as `sensprobe sites --data` prints it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from math import isfinite
from typing import Any

LARGEST = 128
"""Exponents of a float32 lie between minus this and this."""


@dataclass(frozen=True, slots=True)
class Values:
    """The extremes of a tensor's values, how many are zero, and how many have a size in
    [2^k, 2^(k+1)), k in growing order."""

    site: str
    low: float
    high: float
    zeros: int
    octaves: tuple[tuple[int, int], ...]

    @property
    def count(self) -> int:
        return self.zeros + sum(count for _, count in self.octaves)


def read_values(rows: Iterable[Any]) -> dict[str, Values]:
    """Site -> its values; a row that tells none, or is damaged, is left out."""
    out = {}
    for row in rows:
        try:
            octaves = tuple((int(k), int(count)) for k, count in row["octaves"])
            values = Values(
                str(row["site"]), float(row["low"]), float(row["high"]), int(row["zeros"]), octaves
            )
        except (KeyError, TypeError, ValueError, OverflowError):
            continue
        if not (isfinite(values.low) and isfinite(values.high) and values.zeros >= 0):
            continue
        if octaves and all(abs(k) <= LARGEST and count > 0 for k, count in octaves):
            out[values.site] = values
    return out
