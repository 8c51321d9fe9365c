"""ListOps: nested operations on lists of digits, whose result is the class (ten of them).

    listops[,length=2000]

The task is that of Nangia and Bowman (2018, arXiv 1804.06028) in the sizes of the Long Range Arena
(Tay et al. 2021, arXiv 2011.04006), drawn here instead of read from a file:

    expression = digit | [MIN list ] | [MAX list ] | [MED list ] | [SM list ]
    list       = two to ten expressions

An expression is an operation with probability 1/4 and a digit otherwise, at depth 10 always a
digit, and at depth 1 always an operation, because a digit alone is too short. Operations, digits
and numbers of arguments are uniform. MED is the median, of an even number of values the mean of
the middle two rounded down; SM is the sum modulo 10. Kept are expressions of more than length / 4
and fewer than `length` tokens, 501 to 1,999 by default, each once. An operation with its bracket
is a token, a digit is one, and so is a closing bracket. `length` is at most 10,000.

A sequence is filled up before its expression, so that it ends with the last bracket. Tokens: 0
fills up, 1 to 10 are the digits 0 to 9, then come [MIN, [MAX, [MED, [SM and ].

In the order in which they are drawn the expressions are confirmation (2,000), search (2,000),
calibration (500) and train (96,000). Bits are those of numpy's Philox, whose raw stream is the
same everywhere and for good, with a key of the seed 0 and the length.
"""

from __future__ import annotations

import hashlib
from functools import cache
from typing import NamedTuple

import numpy as np

from sensprobe.data.dataset import Dataset, LazySplit, Split, Splits, build_split, hash_arrays
from sensprobe.data.options import read_options
from sensprobe.errors import UsageError

NAME = "listops"
LENGTH, LEAST_LENGTH, MOST_LENGTH = 2000, 16, 10_000
"""Expressions long enough for more than the last are too rare to be drawn."""
SIZES = {"confirmation": 2000, "search": 2000, "calibration": 500, "train": 96_000}
HELD_OUT = sum(SIZES.values()) - SIZES["train"]
SEED = 0
DEPTH, ARGUMENTS, CLASSES = 10, 10, 10
MIN, MAX, MED, SM, DIGIT = range(5)
"""The kinds of expressions."""
FILL, FIRST_DIGIT, FIRST_OPERATION, CLOSE = 0, 1, 11, 15
VOCABULARY = CLOSE + 1
TREES = 2048
"""Expressions drawn together; with another number other ones would be drawn."""


class Level(NamedTuple):
    """The expressions of one depth, those of a list next to each other in its order.

    tree, kind (n,): the whole expression they are of, and their kind. number (n,): the digit, or
    how many arguments there are.
    """

    tree: np.ndarray
    kind: np.ndarray
    number: np.ndarray

    @property
    def operations(self) -> np.ndarray:
        """The places of those that have arguments, in the order in which these come one level
        deeper."""
        return np.flatnonzero(self.kind != DIGIT)

    def kept(self, trees: np.ndarray) -> Level:
        """Those of some trees, a bool each."""
        mask = trees[self.tree]
        return Level(self.tree[mask], self.kind[mask], self.number[mask])


def load(spec: str) -> Dataset:
    """`listops` data under the options of `spec`."""
    options = read_options(spec.removeprefix(NAME), spec, numbers=("length",))
    length = options.numbers.get("length", LENGTH)
    if not LEAST_LENGTH <= length <= MOST_LENGTH:
        raise UsageError(
            f"{spec}: length={length}: give at least {LEAST_LENGTH} and at most {MOST_LENGTH:,}."
        )
    splits, start = {}, 0
    for name, count in SIZES.items():
        splits[name] = _lazy(name, start, start + count, length)
        start += count
    return Dataset(
        spec, "classification", Splits(splits), CLASSES, CLASSES, length, VOCABULARY, tokens=True
    )


def _lazy(name: str, start: int, stop: int, length: int) -> LazySplit:
    """One split. Drawing 96,000 expressions takes a while, so the fingerprint of train is made of
    what decides them and of the held-out ones, which the same stream begins with."""

    @cache
    def build() -> Split:
        x, y = _held_out(length) if stop <= HELD_OUT else expressions(length, stop)
        mark = fingerprint() if name == "train" else None
        rows = slice(start, stop)
        return build_split(
            name, x[rows].astype(np.int32), y[rows], np.arange(start, stop), NAME, fingerprint=mark
        )

    def fingerprint() -> str:
        if name != "train":
            return build().fingerprint
        return hash_arrays(*_held_out(length), np.array([SEED, length, start, stop]))

    return LazySplit(stop - start, build, fingerprint)


@cache
def _held_out(length: int) -> tuple[np.ndarray, np.ndarray]:
    return expressions(length, HELD_OUT)


def expressions(length: int, count: int) -> tuple[np.ndarray, np.ndarray]:
    """The first `count` expressions: x (count, length) uint8 tokens, y (count,) int64 results."""
    bits = np.random.Philox(key=np.array([SEED, length], dtype=np.uint64))
    x, y = np.empty((count, length), np.uint8), np.empty(count, np.int64)
    seen, found = set[bytes](), 0
    while found < count:
        tokens, results = _some(bits, length)
        marks = [hashlib.blake2b(row.tobytes(), digest_size=16).digest() for row in tokens]
        for row, result, mark in zip(tokens, results, marks, strict=True):
            if mark not in seen and found < count:
                seen.add(mark)
                x[found], y[found] = row, result
                found += 1
    return x, y


def _some(bits: np.random.Philox, length: int) -> tuple[np.ndarray, np.ndarray]:
    """Tokens (n, length) uint8 and results (n,) of those of `TREES` expressions that have a right
    number of tokens."""
    levels, tokens = _drawn(bits, length)
    right = (tokens > length // 4) & (tokens < length)
    levels = [level.kept(right) for level in levels]
    where = np.cumsum(right) - 1
    return _written(levels, where, length), _results(levels)


def _drawn(bits: np.random.Philox, length: int) -> tuple[list[Level], np.ndarray]:
    """All expressions of `TREES` whole ones, by depth from 1 on, one word of 64 bits each; and the
    number of tokens of each whole one. One that has `length` or more goes no deeper."""
    tree, levels, tokens = np.arange(TREES), list[Level](), np.zeros(TREES, np.int64)
    for depth in range(1, DEPTH + 1):
        words = bits.random_raw(len(tree))
        kind = ((words >> 60) & 3).astype(np.int64)
        if depth > 1:
            kind[words >> 62 != 0] = DIGIT
        if depth == DEPTH:
            kind[:] = DIGIT
        among = np.where(kind == DIGIT, CLASSES, ARGUMENTS - 1).astype(np.uint64)
        number = ((words & 0xFFFFFFFF) * among >> 32).astype(np.int64) + 2 * (kind != DIGIT)
        levels.append(Level(tree, kind, number))
        tokens += np.bincount(tree, 1 + (kind != DIGIT), TREES).astype(np.int64)
        deeper = (kind != DIGIT) & (tokens < length)[tree]
        tree = np.repeat(tree[deeper], number[deeper])
    return levels, tokens


def _starts(level: Level) -> np.ndarray:
    """Where the arguments of each operation begin, one level deeper."""
    counts = level.number[level.operations]
    return np.cumsum(counts) - counts


def _tokens(levels: list[Level]) -> list[np.ndarray]:
    """The tokens that each expression has, by depth."""
    found = [np.ones(len(levels[-1].kind), np.int64)]
    for level in levels[-2::-1]:
        tokens = np.ones(len(level.kind), np.int64)
        if len(level.operations):
            tokens[level.operations] = 2 + np.add.reduceat(found[0], _starts(level))
        found.insert(0, tokens)
    return found


def _results(levels: list[Level]) -> np.ndarray:
    """The result of each whole expression (n,) int64."""
    values = levels[-1].number
    for level in levels[-2::-1]:
        at, starts, here = level.operations, _starts(level), level.number.copy()
        if len(at):
            counts, kind = level.number[at], level.kind[at]
            of = np.repeat(np.arange(len(at)), counts)
            ordered = np.sort(of * CLASSES + values) % CLASSES
            lower, upper = ordered[starts + (counts - 1) // 2], ordered[starts + counts // 2]
            total = np.add.reduceat(values, starts)
            choices = [
                ordered[starts],
                ordered[starts + counts - 1],
                (lower + upper) // 2,
                total % 10,
            ]
            here[at] = np.choose(kind, choices)
        values = here
    return values


def _written(levels: list[Level], where: np.ndarray, length: int) -> np.ndarray:
    """The tokens (n, length) uint8; `where` is the row of each tree."""
    sizes = _tokens(levels)
    out = np.full((len(sizes[0]), length), FILL, np.uint8)
    place = length - sizes[0]
    for level, size, deeper in zip(levels, sizes, [*sizes[1:], np.zeros(0, np.int64)], strict=True):
        row, is_digit = where[level.tree], level.kind == DIGIT
        token = np.where(is_digit, FIRST_DIGIT + level.number, FIRST_OPERATION + level.kind)
        out[row, place] = token
        at = level.operations
        out[row[at], place[at] + size[at] - 1] = CLOSE
        before = np.cumsum(deeper) - deeper
        counts = level.number[at]
        first = place[at] + 1 - before[_starts(level)] if len(at) else counts
        place = np.repeat(first, counts) + before
    return out
