"""Hadamard transforms by the fastest implementation that gives what the reference gives."""

from __future__ import annotations

import torch
from torch import Tensor

from sensprobe.numerics import transforms
from sensprobe.runtime.choice import differentiated


def rotate(x: Tensor) -> Tensor:
    """`sensprobe.numerics.transforms.rotate`."""
    return _turned(x, transpose=False) if _may(x) else transforms.rotate(x)


def rotate_back(x: Tensor) -> Tensor:
    """`sensprobe.numerics.transforms.rotate_back`."""
    return _turned(x, transpose=True) if _may(x) else transforms.rotate_back(x)


def _may(x: Tensor) -> bool:
    return x.device.type == "cpu" and x.dtype == torch.float32 and not differentiated([x])


def _turned(x: Tensor, *, transpose: bool) -> Tensor:
    from sensprobe_kernels.ops.rotation.cpu import turned

    base, power = transforms.factors(x.shape[-1])
    signs = None
    if base > 1:
        rows = transforms.paley(base).float()
        signs = (rows.mT if transpose else rows).contiguous().numpy()
    whole = x.detach().contiguous().numpy()
    return torch.from_numpy(turned(whole, signs, power, torch.get_num_threads()))
