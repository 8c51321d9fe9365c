"""Documents, tokenized and cut into windows: what every source of text makes its splits of."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache

import numpy as np

from sensprobe.data.dataset import (
    Dataset,
    LazySplit,
    Split,
    Splits,
    build_split,
    hash_arrays,
)
from sensprobe.data.documents import Document
from sensprobe.data.splitting import Members
from sensprobe.data.tokens import Tokenizer
from sensprobe.data.windows import Windowing, cut, scored_bytes
from sensprobe.errors import DataError

LEAST = 3
"""Documents that a calibration, a search and a confirmation need."""


def _encoded(document: Document, tokenizer: Tokenizer) -> tuple[np.ndarray, np.ndarray]:
    """Tokens and where each ends. Tokens that a tokenizer puts before every text stand at the
    beginning of a document, where a model meets them, and count no byte; those that it puts
    after are left out."""
    tokens, ends = tokenizer.encode(document.content)
    before = tokenizer.added[0] if document.begins else ()
    return np.insert(tokens, 0, before), np.insert(ends, 0, [0] * len(before))


class Corpus:
    """Documents as tokens, and every window there is: position i is the same window in every run.

    `group` (windows,): the document of each. DataError where fewer than `LEAST` are long enough.
    """

    def __init__(
        self, spec: str, documents: Sequence[Document], windowing: Windowing, tokenizer: Tokenizer
    ) -> None:
        self.spec, self.documents, self.windowing = spec, documents, windowing
        self._vocabulary = tokenizer.size
        self._encoded = [_encoded(d, tokenizer) for d in documents]
        starts = [windowing.starts(len(tokens)) for tokens, _ in self._encoded]
        self._start = np.concatenate(starts)
        self.group = np.repeat(np.arange(len(starts)), [len(s) for s in starts])
        self.require(LEAST, self.group)

    def __len__(self) -> int:
        return len(self.group)

    def require(self, count: int, group: np.ndarray) -> None:
        """DataError unless windows of these groups come from so many documents."""
        found = len(np.unique(group))
        if found >= count:
            return
        longest = max(len(tokens) for tokens, _ in self._encoded)
        raise DataError(
            f"{self.spec}: {found} document(s) or stretches are as long as a window, and "
            f"calibration, search and confirmation need {count}. A window of length="
            f"{self.windowing.length} takes {self.windowing.length + 1} tokens, the longest has "
            f"{longest:,}. Give more text, or a smaller length (text:FILE,length=64,context=8)"
        )

    def told(self) -> str:
        """A sentence on how much of the text is scored."""
        total = sum(len(d.content) for d in self.documents)
        scored = sum(int(self._scored(k, at).sum()) for k, at in self._by_document())
        w = self.windowing
        return (
            f"{len(self):,} windows of {w.length} tokens ({w.context} of them context), which "
            f"score {100 * scored / total:.0f} % of {total:,} bytes"
        )

    def dataset(
        self, members: Members, seed: int, note: str, train: LazySplit | None = None
    ) -> Dataset:
        """The windows of `members`, in an order that mixes documents; and those of `train`."""
        rng = np.random.default_rng(seed)
        shuffled = {name: rng.permutation(index) for name, index in members.items()}
        splits = {name: self._lazy(name, index) for name, index in shuffled.items()}
        return Dataset(
            name=self.spec,
            task="language",
            splits=Splits(splits if train is None else {"train": train, **splits}),
            classes=None,
            outputs=self._vocabulary,
            length=self.windowing.length,
            d_input=self._vocabulary,
            notes=(note,),
            tokens=True,
            per_step=True,
        )

    def _by_document(self) -> list[tuple[int, np.ndarray]]:
        """Every document that has windows, and where they start."""
        return [(int(k), self._start[self.group == k]) for k in np.unique(self.group)]

    def _scored(self, document: int, starts: np.ndarray) -> np.ndarray:
        return scored_bytes(self._encoded[document][1], starts, self.windowing)

    def _lazy(self, name: str, members: np.ndarray) -> LazySplit:
        @cache
        def build() -> Split:
            return self._split(name, members)

        return LazySplit(len(members), build, lambda: build().fingerprint)

    def train(self, seed: int) -> LazySplit:
        """All windows as the train split of another corpus. It may be many times larger than what
        is judged on, so its fingerprint is of the tokens and it is built only to be trained on."""
        order = np.random.default_rng(seed).permutation(len(self))
        windowing = self.windowing
        sizes = np.array([windowing.length, windowing.context, windowing.step, seed])

        @cache
        def mark() -> str:
            return hash_arrays(sizes, *(part for pair in self._encoded for part in pair))

        return LazySplit(len(self), cache(lambda: self._split("train", order, mark())), mark)

    def _split(self, name: str, members: np.ndarray, mark: str | None = None) -> Split:
        x = np.empty((len(members), self.windowing.length), np.int32)
        y, scored = np.empty_like(x), np.empty(len(members), np.int64)
        group, start = self.group[members], self._start[members]
        for k in np.unique(group):
            rows = np.flatnonzero(group == k)
            x[rows], y[rows] = cut(self._encoded[k][0], start[rows], self.windowing)
            scored[rows] = self._scored(k, start[rows])
        offset = np.cumsum([0, *(len(tokens) for tokens, _ in self._encoded[:-1])])
        index = offset[group] + start
        source = "text" if mark is None else "text to train on"
        return build_split(name, x, y, index, source, group, mark, scored)
