"""Splitting data that does not come with fixed splits.

A unit is a sample, or a whole group where the data names groups; units are never divided. All
shuffles come from one seed, so the same data and seed give the same splits on every machine.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import numpy as np

from sensprobe.data.dataset import SPLIT_NAMES
from sensprobe.errors import DataError

Members = dict[str, np.ndarray]  # split name -> sorted-by-shuffle positions, int64

ALIASES = {
    "val": "search",
    "valid": "search",
    "validation": "search",
    "dev": "search",
    "test": "confirmation",
    "calib": "calibration",
}
CALIBRATION_SHARE, SEARCH_SHARE = 0.10, 0.45
SHARES = {"calibration": CALIBRATION_SHARE, "search": SEARCH_SHARE, "confirmation": 0.45}
# A missing split is carved out of the first of these that exists, and this share of it.
DONORS: dict[str, tuple[tuple[str, float], ...]] = {
    "search": (("train", 0.10), ("confirmation", 0.50)),
    "calibration": (("train", 0.10), ("search", 0.10)),
    "confirmation": (("search", 0.50),),
}


def shuffled_splits(
    n: int, group: np.ndarray | None, seed: int, spec: str
) -> tuple[Members, tuple[str, ...]]:
    """10 % calibration, 45 % search, 45 % confirmation, as near as whole units allow."""
    members = cut_units(n, group, seed, SHARES, spec)
    return members, (f"no split array: {_listed(SHARES)} shuffled with seed {seed}",)


def cut_units(
    n: int, group: np.ndarray | None, seed: int, shares: Mapping[str, float], spec: str
) -> Members:
    """Shuffled samples in splits of these shares, as near as whole units allow."""
    units = _units(np.arange(n), group, np.random.default_rng(seed))
    if len(units) < len(shares):
        what = "sample(s)" if group is None else "group(s)"
        raise DataError(f"{spec} has {len(units)} {what}; {_listed(shares)} need at least one each")
    ends, members, start, share = np.cumsum([len(unit) for unit in units]), Members(), 0, 0.0
    for later, (name, part) in zip(range(len(shares))[::-1], shares.items(), strict=True):
        share += part
        stop = _nearest(ends, share * n, start + 1, len(units) - later) if later else len(units)
        members[name] = np.concatenate(units[start:stop])
        start = stop
    return members


def _listed(names: Iterable[str]) -> str:
    *first, last = names
    return f"{', '.join(first)} and {last}"


def name_splits(
    names: np.ndarray, group: np.ndarray | None, seed: int, spec: str
) -> tuple[Members, tuple[str, ...]]:
    """The splits a user named, and those they did not, carved out of the others (`DONORS`)."""
    canonical = {str(name): canonical_split(str(name), spec) for name in np.unique(names)}
    column = np.array([canonical[str(name)] for name in names])
    members = {name: np.flatnonzero(column == name) for name in SPLIT_NAMES}
    members = {name: index for name, index in members.items() if index.size}
    notes = _straddling(members, group)
    rng = np.random.default_rng(seed)
    for name in DONORS:
        if name not in members:
            notes += _carve(name, members, group, rng, spec)
    return members, notes


def canonical_split(name: str, spec: str) -> str:
    """The one name a split goes by; `DataError` lists the names there are."""
    lowered = name.strip().lower()
    canonical = ALIASES.get(lowered, lowered)
    if canonical not in SPLIT_NAMES:
        raise DataError(
            f"{spec} names a split {name!r}; use {', '.join(SPLIT_NAMES)} (or {', '.join(ALIASES)})"
        )
    return canonical


def _carve(
    name: str, members: Members, group: np.ndarray | None, rng: np.random.Generator, spec: str
) -> tuple[str, ...]:
    found = [pair for pair in DONORS[name] if pair[0] in members]
    if not found:
        raise DataError(
            f"{spec} has no {name} split, and none it could be carved out of: it has "
            f"{', '.join(members)}. Mark some samples as {name} or train"
        )
    donor, share = found[0]
    units = _units(members[donor], group, rng)
    if len(units) < 2:
        raise DataError(
            f"{spec} has no {name} split and its {donor} split is too small to give one up "
            f"({len(members[donor])} sample(s)); name more samples"
        )
    ends = np.cumsum([len(unit) for unit in units])
    taken = _nearest(ends, share * ends[-1], 1, len(units) - 1)
    members[name] = np.concatenate(units[:taken])
    members[donor] = np.sort(np.concatenate(units[taken:]))
    return (f"no {name} split: {len(members[name]):,} samples carved out of {donor}",)


def _units(
    positions: np.ndarray, group: np.ndarray | None, rng: np.random.Generator
) -> list[np.ndarray]:
    """Positions, shuffled, a unit an entry."""
    if group is None:
        return list(rng.permutation(positions)[:, None])
    here = group[positions]
    order = np.argsort(here, kind="stable")
    starts = np.flatnonzero(np.diff(here[order], prepend=here[order][0] - 1))
    units = np.split(positions[order], starts[1:])
    return [units[i] for i in rng.permutation(len(units))]


def _nearest(ends: np.ndarray, target: float, low: int, high: int) -> int:
    """The number of units nearest to `target` samples, between `low` and `high` units."""
    best = int(np.argmin(np.abs(ends - target))) + 1
    return min(max(best, low), high)


def _straddling(members: Members, group: np.ndarray | None) -> tuple[str, ...]:
    """Samples of one group in two splits are what the user asked for, but worth saying."""
    if group is None:
        return ()
    seen: dict[int, str] = {}
    both = set()
    for name, index in members.items():
        for code in np.unique(group[index]).tolist():
            if seen.setdefault(code, name) != name:
                both.add(code)
    return (f"{len(both)} group(s) have samples in more than one split",) if both else ()
