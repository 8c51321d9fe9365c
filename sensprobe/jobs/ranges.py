"""How large the values of every tensor are: its extremes, and how many values each octave holds.

Weights as stored; activations and states of the full-precision model on the calibration split.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor

from sensprobe.models.apply import observe
from sensprobe.numerics.calibrate import BINS, Observer, Statistics, Wanted
from sensprobe.numerics.rounding import real_view
from sensprobe.session.session import Session

EXPONENTS, BIAS = 256, 127
"""The exponents of a float32, and the one that is 1."""


def ranges(session: Session) -> dict[str, dict[str, Any]]:
    """Site -> low, high, zeros (how many values are 0 or subnormal) and octaves: the sorted pairs
    (k, how many values lie in [2^k, 2^(k+1)) in size). A complex number is two values."""
    model = session.source.model
    wanted = Wanted(whole=frozenset(model.sites))
    seen = observe(model, session.calibration.sequences({}), wanted)
    weights = Observer(wanted)
    for name, weight in model.weights.items():
        if name in model.sites and name not in seen:
            weights.observe(model.sites[name], real_view(weight.detach()).float())
    every = seen | weights.seen
    return {name: _told(every[name]) for name in model.sites if name in every}


def _told(found: Statistics) -> dict[str, Any]:
    counts: Tensor | None = found.counts
    assert counts is not None, f"{found.site.name}: no histogram was asked for"
    octaves = counts.view(-1, 2, EXPONENTS, BINS // (2 * EXPONENTS)).sum((0, 1, 3)).tolist()
    return {
        "low": found.low.min().item(),
        "high": found.high.max().item(),
        "zeros": octaves[0],
        "octaves": [[k - BIAS, count] for k, count in enumerate(octaves) if k and count],
    }
