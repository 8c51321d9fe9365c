"""`pydoc`: the text on Python's language that CPython ships (`pydoc_data.topics`).

    pydoc[,length=512][,context=64][,stride=N]

It is on every machine; another Python has another edition of it, so its fingerprint tells editions
apart. Topics contain one another, so each paragraph is kept only in the shortest topic that has it.

A topic is held out where the SHA-256 of its name begins with an even byte. Held-out topics are cut
into calibration, search and confirmation, alike for every seed; the others are the train split.
"""

from __future__ import annotations

from functools import cache
from hashlib import sha256

import numpy as np

from sensprobe.data.corpus import LEAST, Corpus
from sensprobe.data.dataset import Dataset
from sensprobe.data.documents import Document
from sensprobe.data.splitting import shuffled_splits
from sensprobe.data.text import options
from sensprobe.data.tokens import Tokenizer
from sensprobe.errors import UsageError

NAME = "pydoc"


def held_out(topic: Document) -> bool:
    """True if training leaves a topic alone."""
    return sha256(topic.name.encode()).digest()[0] % 2 == 0


@cache
def topics() -> tuple[Document, ...]:
    """The text that pydoc has of each topic, no paragraph twice, in order of name."""
    from pydoc_data.topics import topics as shipped

    owner: dict[str, str] = {}
    for name in sorted(shipped, key=lambda name: (len(shipped[name]), name)):
        for paragraph in shipped[name].split("\n\n"):
            owner.setdefault(_words(paragraph), name)
    found = []
    for name, text in sorted(shipped.items()):
        own = [p for p in text.split("\n\n") if owner[_words(p)] == name]
        found.append(Document(name, "\n\n".join(own).encode()))
    return tuple(found)


def training_text() -> list[bytes]:
    """The topics that may be trained on."""
    return [topic.content for topic in topics() if not held_out(topic)]


def _words(paragraph: str) -> str:
    """A paragraph whatever its indentation and line breaks."""
    return " ".join(paragraph.split())


def load(spec: str, tokenizer: Tokenizer) -> Dataset:
    """`pydoc` data under the options of `spec`."""
    asked = options(spec.removeprefix(NAME), spec)
    if asked.part != "all":
        raise UsageError(f"{spec}: pydoc has a train split of its own; leave part out.")
    corpus = Corpus(spec, topics(), asked.windowing, tokenizer)
    kept = np.array([held_out(topic) for topic in corpus.documents])[corpus.group]
    held = np.flatnonzero(kept)
    corpus.require(LEAST, corpus.group[held])
    inner, _ = shuffled_splits(len(held), corpus.group[held], 0, spec)
    members = {name: held[index] for name, index in inner.items()}
    if len(train := np.flatnonzero(~kept)):
        members["train"] = train
    return corpus.dataset(members, 0, f"{len(topics())} topics: {corpus.told()}")
