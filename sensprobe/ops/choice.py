"""Whether a kernel may run, and the messages where it may not."""

from __future__ import annotations

import logging
from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from sensprobe.numerics.storage import Custom, Noisy, Rounded, Storage
from sensprobe.plans.scheme import Rounding

logger = logging.getLogger("sensprobe.ops")
said: set[str] = set()
"""Reasons that were logged: each is logged once a process."""


def obstacle(
    operation: str, tensors: Sequence[Tensor], storages: Sequence[Storage]
) -> tuple[int, str] | None:
    """The level and the text of the message that says why no kernel can run; None where one can."""
    if any(isinstance(storage, Custom) for storage in storages):
        return logging.INFO, "states passed through a function run on the reference loop"
    if any(isinstance(storage, Noisy) for storage in storages):
        return logging.INFO, "no kernel adds noise to a state at every step"
    for t in tensors:
        if t.device.type != "cpu":
            return logging.WARNING, f"no kernel for the {operation} on {t.device.type}"
        if t.dtype not in (torch.float32, torch.complex64):
            return logging.WARNING, f"no kernel for the {operation} on {t.dtype}"
    return None


def unstorable(what: str, storage: Storage) -> tuple[int, str]:
    """The level and the text of the message that no kernel stores a state or a decay in this
    scheme."""
    scheme = storage.scheme if isinstance(storage, Rounded) else None
    return logging.WARNING, f"no kernel for a {what} stored as {scheme}"


def say(level: int, reason: str) -> None:
    """Log a reason, unless this process has logged it before."""
    if reason not in said:
        said.add(reason)
        logger.log(level, "%s; the slow reference computes it", reason)


def differentiated(tensors: Sequence[Tensor]) -> bool:
    """Whether a gradient will be asked of results that are computed from these tensors."""
    return torch.is_grad_enabled() and any(t.requires_grad for t in tensors)


def is_plain(x: Tensor) -> bool:
    """Whether a tensor is float32 in RAM that no gradient will be asked of."""
    return x.device.type == "cpu" and x.dtype == torch.float32 and not differentiated([x])


def feeds_back(storage: Storage) -> bool:
    """Whether the storage adds the rounding error back at the next step."""
    return isinstance(storage, Rounded) and storage.scheme.rounding is Rounding.FEEDBACK


def array(x: Tensor | None) -> NDArray[np.float32]:
    """A tensor, which must not be None, as kernels take it: a contiguous array without gradient."""
    assert x is not None
    return x.detach().contiguous().numpy()
