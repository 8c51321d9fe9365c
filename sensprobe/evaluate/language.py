"""Per-window arrays from a language model's outputs: loss, bits a byte, divergence.

Tokens count alike: the means of a window are over its scored tokens, of which every window has as
many. Bits are divided by the bytes that a window of the split scores on average, not by its own.
So the mean over all windows of a split is exactly their bits over their bytes, whatever the
tokenizer; of the first windows alone it is that with bytes counted at the split's average. Where a
token is a byte the two are one. An error takes the bytes as given.

Positions are told apart by how many tokens the model had read: `NAME@64` is over predictions made
after 33 to 64 tokens. There bytes are counted at the split's average a token.
"""

from __future__ import annotations

from collections.abc import Iterator
from math import log

import numpy as np
import torch
from torch import Tensor

from sensprobe.evaluate.outcomes import AGREES, CAP

ROOM = 2**18
"""Numbers in a temporary, which a cache holds: positions are worked through in pieces."""
BY_POSITION = ("bits_per_byte", "kl")


def language(
    logits: Tensor,
    y: Tensor,
    bytes_a_window: float,
    baseline: Tensor | None,
    more: frozenset[str] = frozenset(),
) -> dict[str, np.ndarray]:
    """Per-window arrays (b,) float32 from logits (b, l, v) and targets y (b, l), -1: not scored.

    correct (share of tokens), cross_entropy (nats a token), bits_per_byte and, against baseline
    logits, kl = KL(baseline || model) in nats a token; the last two also by position. A token costs
    at most `CAP` nats, and that much where an output is not finite. `more` may want agrees: the
    share of tokens whose likeliest next one is the baseline's.
    """
    tokens = _tokens(logits, y, baseline, more)
    scored = y >= 0
    count = scored.sum(1)
    out = {
        "correct": _mean(tokens["correct"], scored),
        "cross_entropy": _mean(tokens["nll"], scored),
        "bits_per_byte": _sum(tokens["nll"], scored) / log(2) / bytes_a_window,
    }
    if baseline is not None:
        out["kl"] = _mean(tokens["kl"], scored)
        if AGREES in more:
            out[AGREES] = _mean(tokens[AGREES], scored)
    for name, here in _buckets(scored):
        bits = _mean(tokens["nll"], here) / log(2)
        out[f"bits_per_byte@{name}"] = bits * count / bytes_a_window
        if baseline is not None:
            out[f"kl@{name}"] = _mean(tokens["kl"], here)
    return {name: values.to(torch.float32).numpy() for name, values in out.items()}


def bucket_of(name: str) -> tuple[str, int] | None:
    """Array and last position of `kl@64`; None where a name is no array by position."""
    array, mark, last = name.partition("@")
    return (array, int(last)) if mark and array in BY_POSITION else None


def _buckets(scored: Tensor) -> Iterator[tuple[int, Tensor]]:
    """Last position (tokens read) of each bucket, a power of two, and what is scored in it."""
    read = torch.arange(1, scored.shape[1] + 1)
    before, last = 0, 1
    while before < scored.shape[1]:
        here = scored & (read > before) & (read <= last)
        if here.any():
            yield last, here
        before, last = last, 2 * last


def _tokens(
    logits: Tensor, y: Tensor, baseline: Tensor | None, more: frozenset[str]
) -> dict[str, Tensor]:
    """The arrays of `positions` for every position (b, l), float64; 0 where it is not scored."""
    scored = (y >= 0).flatten()
    places = scored.nonzero().squeeze(1)
    flat = logits.flatten(0, 1)
    exact = None if baseline is None else baseline.flatten(0, 1)
    targets = y.flatten().long()
    out: dict[str, Tensor] = {}
    for rows in places.split(max(1, ROOM // logits.shape[-1])):
        base = None if exact is None else exact[rows]
        found = positions(flat[rows], targets[rows], base, more)
        for name, values in found.items():
            out.setdefault(name, torch.zeros(len(flat), dtype=torch.float64))[rows] = values
    return {name: values.view(y.shape) for name, values in out.items()}


def positions(
    logits: Tensor, y: Tensor, baseline: Tensor | None, more: frozenset[str] = frozenset()
) -> dict[str, Tensor]:
    """nll, correct and, against baseline logits, kl and, where wanted, agrees of positions (n, v)
    and targets (n,); float64.

    With p the softmax of a, q that of b:  KL(q || p) = Σ q (b - a) - (log Σ exp b - log Σ exp a).
    """
    finite = torch.isfinite(logits).all(-1)
    a = torch.where(finite[:, None], logits, 0.0).double()
    total = a.logsumexp(-1)
    nll = (total - a.gather(1, y[:, None]).squeeze(1)).clamp(max=CAP)
    out = {
        "nll": torch.where(finite, nll, CAP),
        "correct": ((a.argmax(-1) == y) & finite).double(),
    }
    if baseline is not None:
        b = baseline.double()
        weights = torch.exp(b - b.amax(-1, keepdim=True))
        mean = (weights * (b - a)).sum(-1) / weights.sum(-1)
        kl = (mean - (b.logsumexp(-1) - total)).clamp(0, CAP)
        whole = finite & torch.isfinite(baseline).all(-1)
        out["kl"] = torch.where(whole, kl, CAP)
        if AGREES in more:
            out[AGREES] = ((a.argmax(-1) == b.argmax(-1)) & whole).double()
    return out


def _sum(values: Tensor, where: Tensor) -> Tensor:
    return torch.where(where, values, 0.0).sum(1)


def _mean(values: Tensor, where: Tensor) -> Tensor:
    return _sum(values, where) / where.sum(1)
