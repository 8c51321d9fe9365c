"""Sequences in the order they are best run in, and what those that run together share.

A recurrent model keeps all it knows of what it has read in a state of fixed size, so the state
after a shared beginning serves every sequence that goes on from there. The two sentences of a
minimal pair share half of their text, the choices of a question all of the question.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

KIN = 0.25
"""Neighbours in sorted order that share this part of the shorter one are kept together."""


def arranged(sequences: Sequence[np.ndarray]) -> list[int]:
    """Places of sequences (n,) int32: kin together, by the length of the longest of the kin.

    The order of what is given says nothing: the same sequences make the same arrangement.
    """
    families: list[list[int]] = []
    for place in sorted(range(len(sequences)), key=lambda i: sequences[i].astype(">u4").tobytes()):
        if families and _kin(sequences[families[-1][-1]], sequences[place]):
            families[-1].append(place)
        else:
            families.append([place])
    families.sort(key=lambda family: max(len(sequences[place]) for place in family))
    return [place for family in families for place in family]


def apart(sequences: Sequence[np.ndarray]) -> int:
    """Tokens that are left to run where each sequence shares what the one before begins with."""
    order = arranged(sequences)
    count = sum(map(len, sequences))
    for one, other in pairwise(sequences[place] for place in order):
        least = min(len(one), len(other))
        differ = one[:least] != other[:least]
        count -= int(differ.argmax()) if differ.any() else least
    return count


def _kin(a: np.ndarray, b: np.ndarray) -> bool:
    part = int(np.ceil(KIN * min(len(a), len(b))))
    return np.array_equal(a[:part], b[:part])


@dataclass(frozen=True, slots=True)
class Stretch:
    """A stretch of inputs of a block of sequences, each different one once.

    rows (k,): of each sequence, where its stretch stands; -1 where it is over. tokens (m, w + 1)
    int32: inputs are all but the last column, targets all but the first; after a sequence's end,
    zeros. parents (m,): where each went on from, in the stretch before.
    """

    at: int  # inputs before it
    rows: np.ndarray
    tokens: np.ndarray
    parents: np.ndarray


def stretches(sequences: Sequence[np.ndarray], width: int) -> list[Stretch]:
    """A block of sequences (n,) int32, n at least 2, in stretches of `width` inputs.

    Stretches are one where all tokens up to their end are, the last target too.
    """
    keys = [tokens.tobytes() for tokens in sequences]
    size = sequences[0].itemsize
    before = np.zeros(len(sequences), np.int64)
    found = []
    for at in range(0, max(map(len, sequences)) - 1, width):
        seen: dict[bytes, int] = {}
        members: list[int] = []
        rows = np.full(len(sequences), -1)
        for k, tokens in enumerate(sequences):
            if len(tokens) - 1 > at:
                key = keys[k][: size * (at + width + 1)]
                rows[k] = seen.setdefault(key, len(seen))
                members += [k] if rows[k] == len(members) else []
        longest = min(width, max(len(sequences[k]) for k in members) - 1 - at)
        inputs = np.zeros((len(members), longest + 1), np.int32)
        for row, k in enumerate(members):
            own = sequences[k][at : at + longest + 1]
            inputs[row, : len(own)] = own
        found.append(Stretch(at, rows, inputs, before[members]))
        before = rows
    return found
