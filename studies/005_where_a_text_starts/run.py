"""What should stand before a text of bytes that nothing precedes? See README.md.

    SENSPROBE_DATA=DIR python studies/005_where_a_text_starts/run.py

DIR holds text/english_novels.tar.xz. Prints the table of README.md.
"""

from __future__ import annotations

import os
import random
import re
import tomllib
from collections.abc import Sequence
from math import log, sqrt
from pathlib import Path
from statistics import fmean, stdev

import numpy as np

from sensprobe.data import documents_of
from sensprobe.evaluate.lm_harness.scoring import Asked, Scorer
from sensprobe.numerics.taps import EXACT
from sensprobe.session.source import open_model

STUDY = tomllib.loads((Path(__file__).parent / "study.toml").read_text(encoding="utf-8"))
SENTENCE = re.compile(r'(?<=[.!?"]\s)[A-Z][^.!?"]{20,120}[.!?](?=\s)')


def sentences(text: str, count: int, draw: random.Random) -> list[str]:
    """Some of a novel's sentences, on a line each."""
    found = [" ".join(sentence.split()) for sentence in SENTENCE.findall(text)]
    return draw.sample(found, min(count, len(found)))


def bits(model: str, novels: Sequence[Sequence[str]], start: str) -> list[float]:
    """Bits a byte of each novel's sentences, each read after `start` alone."""
    before = start.encode()
    texts = [sentence.encode() for novel in novels for sentence in novel]
    asked = [
        Asked(np.frombuffer(before + text, np.uint8).astype(np.int32), len(before))
        for text in texts
    ]
    nats = iter(
        [-found.value for found in Scorer(open_model(model).model, EXACT).likelihoods(asked)]
    )
    return [
        sum(next(nats) for _ in novel) / log(2) / sum(len(s.encode()) for s in novel)
        for novel in novels
    ]


def main() -> None:
    folder = os.environ.get("SENSPROBE_DATA")
    if folder is None:
        raise SystemExit(f"set SENSPROBE_DATA to the folder that holds {STUDY['text']}")
    path, draw = str(Path(folder) / STUDY["text"]), random.Random(STUDY["seed"])
    documents = documents_of(path, "held-out", f"text:{path}")
    novels = [sentences(d.content.decode(), STUDY["sentences"], draw) for d in documents]
    print(f"{sum(map(len, novels)):,} sentences of {len(novels)} novels; ± over novels\n")
    print("| read after | " + " | ".join(STUDY["models"]) + " |")
    print("| --- |" + " ---: |" * len(STUDY["models"]))
    for start in STUDY["starts"]:
        cells = []
        for model in STUDY["models"]:
            found = bits(model, novels, start)
            cells.append(f"{fmean(found):.3f} ± {stdev(found) / sqrt(len(found)):.3f}")
        print(f"| `{start!r}` | " + " | ".join(cells) + " |", flush=True)


if __name__ == "__main__":
    main()
