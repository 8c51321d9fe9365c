"""Text as samples: windows of one length, each token scored at most once.

A window of `length` inputs predicts the `length` tokens that follow each of them. The first
`context` predictions only condition what follows; the others are scored. Windows advance by
`stride`, which is `length - context` unless more is asked for, so that the next window goes on
scoring where the one before stopped. A document of 12 tokens, length 4, context 1:

    tokens     a b c d e f g h i j k l
    window 0   reads a b c d,  predicts b c d e,  scores c d e
    window 1         reads d e f g,  predicts e f g h,  scores f g h
    window 2               reads g h i j,  predicts h i j k,  scores i j k

The first `context + 1` tokens of a document are never scored (nothing stands before them), nor is
the tail too short for one more window (here l). A document shorter than `length + 1` tokens gives
no window. Windows never reach over the end of a document.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from sensprobe.errors import UsageError

IGNORED = -1
"""The target of a prediction that is not scored."""


@dataclass(frozen=True, slots=True)
class Windowing:
    """The sizes by which documents are cut, in tokens; UsageError where a token could be scored
    twice or never."""

    length: int = 512
    context: int = 64
    stride: int | None = None

    def __post_init__(self) -> None:
        if self.length < 1:
            raise UsageError(f"length={self.length}: a window reads at least one token.")
        if not 0 <= self.context < self.length:
            raise UsageError(
                f"context={self.context}: it must be from 0 to {self.length - 1}, so that a window "
                f"of length {self.length} scores at least one token."
            )
        if self.stride is not None and self.stride < self.scored:
            raise UsageError(
                f"stride={self.stride}: windows that score {self.scored} tokens each would score "
                f"some twice; give {self.scored} or more, or leave it out."
            )

    @property
    def scored(self) -> int:
        """Tokens that a window scores."""
        return self.length - self.context

    @property
    def step(self) -> int:
        """Tokens from one window's start to the next one's."""
        return self.scored if self.stride is None else self.stride

    def starts(self, count: int) -> np.ndarray:
        """The first positions of the windows of a document of `count` tokens."""
        return np.arange(0, count - self.length, self.step)


def cut(
    tokens: np.ndarray, starts: np.ndarray, windowing: Windowing
) -> tuple[np.ndarray, np.ndarray]:
    """x, y (n, length) int32: the windows of a document's tokens that begin at `starts`.

    y holds what follows each of x, `IGNORED` where it is context.
    """
    at = starts[:, None] + np.arange(windowing.length)
    y = tokens[at + 1].astype(np.int32)
    y[:, : windowing.context] = IGNORED
    return tokens[at].astype(np.int32), y


def scored_bytes(ends: np.ndarray, starts: np.ndarray, windowing: Windowing) -> np.ndarray:
    """The bytes that each window scores (n,); `ends` has the bytes up to each token's end.

    They are the text from the end of a window's last unscored token to the end of its last one.
    """
    return ends[starts + windowing.length] - ends[starts + windowing.context]
