"""What a kernel keeps for its backward pass, as tensors that its graph saves.

A graph's saved tensors can be counted, and freed to be computed again
(`torch.utils.checkpoint`); what a context merely holds can be neither.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor


class _Saved(NamedTuple):
    """The place of an array among the saved tensors."""

    place: int


def keep(ctx: Any, run: Any) -> None:
    """Save a run, of arrays in named tuples and lists, for the backward pass of `ctx`."""
    tensors: list[Tensor] = []
    ctx.without_arrays = _parted(run, tensors)
    ctx.save_for_backward(*tensors)


def kept(ctx: Any) -> Any:
    """The run that `keep` saved: the same arrays, or equal ones where they were recomputed."""
    return _joined(ctx.without_arrays, ctx.saved_tensors)


def _parted(value: Any, tensors: list[Tensor]) -> Any:
    if isinstance(value, np.ndarray):
        tensors.append(torch.from_numpy(value))
        return _Saved(len(tensors) - 1)
    return _each(value, lambda part: _parted(part, tensors))


def _joined(value: Any, tensors: Sequence[Tensor]) -> Any:
    if isinstance(value, _Saved):
        return tensors[value.place].numpy()
    return _each(value, lambda part: _joined(part, tensors))


def _each(value: Any, change: Any) -> Any:
    """A named tuple or a list with each part changed; anything else as it is."""
    if isinstance(value, list):
        return [change(part) for part in value]
    if isinstance(value, tuple) and hasattr(value, "_fields"):
        return type(value)(*map(change, value))
    return value
