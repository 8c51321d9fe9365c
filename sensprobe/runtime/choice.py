"""Whether a kernel may run, and saying so where it may not."""

from __future__ import annotations

import logging
from collections.abc import Sequence

import torch
from torch import Tensor

from sensprobe.numerics.storage import Custom, Rounded, Storage

logger = logging.getLogger("sensprobe.runtime")
said: set[str] = set()


def obstacle(
    operation: str, tensors: Sequence[Tensor], storages: Sequence[Storage]
) -> tuple[int, str] | None:
    """Why no kernel can run, and how loud to say it; None where one can."""
    if any(isinstance(storage, Custom) for storage in storages):
        return logging.INFO, "states passed through a function run on the reference loop"
    for t in tensors:
        if t.device.type != "cpu":
            return logging.WARNING, f"no kernel for the {operation} on {t.device.type}"
        if t.dtype not in (torch.float32, torch.complex64):
            return logging.WARNING, f"no kernel for the {operation} on {t.dtype}"
    return None


def differentiated(tensors: Sequence[Tensor]) -> bool:
    """Whether a gradient will be asked of what is computed from these."""
    return torch.is_grad_enabled() and any(t.requires_grad for t in tensors)


def say(level: int, reason: str) -> None:
    """Once a reason."""
    if reason not in said:
        said.add(reason)
        logger.log(level, "%s; the slow reference computes it", reason)


def unstorable(what: str, storage: Storage) -> tuple[int, str]:
    """The reason where a kernel has no way to store a state or a decay so."""
    scheme = storage.scheme if isinstance(storage, Rounded) else None
    return logging.WARNING, f"no kernel for a {what} stored as {scheme}"
