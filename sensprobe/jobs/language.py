"""Facts of a score of text beyond its headline: perplexity, amount of text, loss by position."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from math import exp
from typing import Any

import numpy as np

from sensprobe.evaluate import Score, bucket_of, mean
from sensprobe.scores.metrics import LABEL, PREDICTED
from sensprobe.session.session import Session

Arrays = Mapping[str, np.ndarray]


def text_facts(
    session: Session, arrays: Arrays, split: str, groups: np.ndarray | None
) -> dict[str, Any]:
    """Windows, tokens and bytes scored, perplexity a token, and the loss by position.

    Perplexity is exp(nats / tokens); its standard error is that of the cross-entropy times it (the
    delta method). A position is how many tokens the model had read when it predicted; `positions`
    go up to powers of two, from the first to the last that is scored.
    """
    found = session.samples.split(split)
    count = len(arrays["cross_entropy"])
    assert found.scored_bytes is not None
    loss = mean(arrays["cross_entropy"], groups)
    value = exp(loss.value)
    scored = found.y[:count] >= 0
    context = session.dataset.length - int(scored[0].sum())
    return {
        "windows": count,
        "length": session.dataset.length,
        "tokens": int(scored.sum()),
        "bytes": int(found.scored_bytes[:count].sum()),
        "perplexity": {"value": value, "stderr": value * loss.stderr},
        "positions": _positions(arrays, groups, context, session.dataset.length),
    }


def whole(arrays: Arrays) -> dict[str, np.ndarray]:
    """The arrays of whole samples: without those of some positions alone, and without labels."""
    named = (PREDICTED, LABEL)
    return {n: values for n, values in arrays.items() if bucket_of(n) is None and n not in named}


def _positions(
    arrays: Arrays, groups: np.ndarray | None, context: int, length: int
) -> list[dict[str, Any]]:
    rows: dict[int, dict[str, Any]] = {}
    for name, values in arrays.items():
        if (bucket := bucket_of(name)) is not None:
            array, last = bucket
            first = max(last // 2, context) + 1
            row = rows.setdefault(last, {"first": first, "last": min(last, length)})
            row[array] = _plain(mean(values, groups))
    return [rows[last] for last in sorted(rows)]


def _plain(score: Score) -> dict[str, float]:
    found = asdict(score)
    return {key: found[key] for key in ("value", "stderr")}
