"""Text for language models, `text:PATH`, read with the model's tokenizer.

    text:PATH[,length=512][,context=64][,stride=N][,part=all|train|held-out|train+held-out]

PATH is a file, a folder or a tar (see `documents`). A sample is one window (see `windows`); its
group is the document it lies in. Windows of one document share its words and its author, so errors
cluster by document, and whole documents are shuffled into the splits by the data seed.

A paragraph is no document: neighbours are alike. So fewer than `FEW` documents are cut into
stretches of 8 KiB, which take the place of documents, and the splits are runs of neighbouring
stretches with one stretch left out between two of them.

Inside a split windows stand in shuffled order, so that the first ones come from many documents.
`part` keeps what is held out, or all the rest (see `documents`); of both, the rest is the train
split and what is held out makes the other three, as it does alone.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, fields

import numpy as np

from sensprobe.data.corpus import Corpus
from sensprobe.data.dataset import Dataset
from sensprobe.data.documents import Document, held_out, read_documents, stretches
from sensprobe.data.options import read_options, split_options
from sensprobe.data.splitting import CALIBRATION_SHARE, SEARCH_SHARE, Members, shuffled_splits
from sensprobe.data.tokens import Tokenizer
from sensprobe.data.windows import Windowing
from sensprobe.documents.files import named_path
from sensprobe.errors import DataError

FEW = 10
LEAST_STRETCHES = 5  # three splits and what lies between them
PARTS: dict[str, Callable[[Document], bool]] = {
    "all": lambda document: True,
    "train": lambda document: not held_out(document),
    "held-out": held_out,
}
BOTH = "train+held-out"
SIZES = tuple(f.name for f in fields(Windowing))


@dataclass(frozen=True, slots=True)
class Asked:
    """The options of a spec, without its path."""

    windowing: Windowing = field(default_factory=Windowing)
    part: str = "all"


def options(text: str, spec: str) -> Asked:
    """`,length=512,part=train`, checked; UsageError for what there is not."""
    given = read_options(text, spec, words={"part": (*PARTS, BOTH)}, numbers=SIZES)
    return Asked(Windowing(**given.numbers), given.words.get("part", "all"))


def documents_of(path: str, part: str, spec: str) -> list[Document]:
    """The documents at a path that belong to a part; DataError where none does."""
    every = read_documents(named_path(path), spec)
    found = [document for document in every if PARTS[part](document)]
    if not found:
        raise DataError(
            f"{spec}: none of its {len(every)} document(s) belongs to part={part}; leave it out to "
            "read all"
        )
    return found


def load(spec: str, rest: str, seed: int, tokenizer: Tokenizer) -> Dataset:
    """`text:` data; `rest` is what follows the colon."""
    path, tail = split_options(rest)
    asked = options(tail, spec)
    both = asked.part == BOTH
    documents = documents_of(path, "held-out" if both else asked.part, spec)
    learnt = documents_of(path, "train", spec) if both else []
    train = Corpus(spec, learnt, asked.windowing, tokenizer).train(seed) if both else None
    if len(documents) >= FEW:
        corpus = Corpus(spec, documents, asked.windowing, tokenizer)
        members, _ = shuffled_splits(len(corpus), corpus.group, seed, spec)
        how = f"{len(documents)} documents, shuffled with seed {seed}"
    else:
        pieces = stretches(documents)
        _require_stretches(pieces, spec)
        corpus = Corpus(spec, pieces, asked.windowing, tokenizer)
        members = _runs(corpus)
        how = f"{len(documents)} document(s), in {len(pieces)} stretches"
    if train is not None:
        how = f"{len(learnt)} documents to train on, {train.count:,} windows; held out {how}"
    return corpus.dataset(members, seed, f"{how}: {corpus.told()}", train)


def _require_stretches(pieces: list[Document], spec: str) -> None:
    if len(pieces) < LEAST_STRETCHES:
        size = sum(len(piece.content) for piece in pieces)
        raise DataError(
            f"{spec}: {size:,} bytes in fewer than {FEW} documents make {len(pieces)} stretch(es) "
            f"of 8 KiB, and three splits with gaps need {LEAST_STRETCHES}: give at least 40 KiB of "
            f"text, or {FEW} documents"
        )


def _runs(corpus: Corpus) -> Members:
    """Windows of a tenth of the stretches, a gap of one, nine twentieths, a gap, the rest."""
    count = len(corpus.documents)
    first = max(1, round(CALIBRATION_SHARE * (count - 2)))
    second = first + 1 + max(1, round(SEARCH_SHARE * (count - 2)))
    edges = {
        "calibration": (0, first),
        "search": (first + 1, second),
        "confirmation": (second + 1, count),
    }
    out = {}
    for name, (start, stop) in edges.items():
        out[name] = np.flatnonzero((corpus.group >= start) & (corpus.group < stop))
        corpus.require(1, corpus.group[out[name]])
    return out
