"""Hadamard transforms of the last axis: `sensprobe.numerics.transforms` has the references."""

from __future__ import annotations

import torch
from torch import Tensor

from sensprobe.numerics import transforms
from sensprobe.ops.choice import differentiated


def rotate(x: Tensor) -> Tensor:
    """`sensprobe.numerics.transforms.rotate` by the fastest implementation of it."""
    return _by_kernel(x, transpose=False) if _has_kernel(x) else transforms.rotate(x)


def rotate_back(x: Tensor) -> Tensor:
    """`sensprobe.numerics.transforms.rotate_back` by the fastest implementation of it."""
    return _by_kernel(x, transpose=True) if _has_kernel(x) else transforms.rotate_back(x)


def _has_kernel(x: Tensor) -> bool:
    return x.device.type == "cpu" and x.dtype == torch.float32 and not differentiated([x])


def _by_kernel(x: Tensor, *, transpose: bool) -> Tensor:
    from sensprobe_kernels.ops.rotate.cpu import rotated

    base, power = transforms.factors(x.shape[-1])
    signs = None
    if base > 1:
        rows = transforms.paley(base).float()
        signs = (rows.mT if transpose else rows).contiguous().numpy()
    whole = x.detach().contiguous().numpy()
    return torch.from_numpy(rotated(whole, signs, power, torch.get_num_threads()))
