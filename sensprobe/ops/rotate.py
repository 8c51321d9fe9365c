"""Hadamard transforms of the last axis: `sensprobe.numerics.transforms` has the references."""

from __future__ import annotations

import torch
from torch import Tensor

from sensprobe.numerics import transforms
from sensprobe.ops.choice import array, is_plain


def rotate(x: Tensor) -> Tensor:
    """`sensprobe.numerics.transforms.rotate` by the fastest implementation of it."""
    return _by_kernel(x, transpose=False) if is_plain(x) else transforms.rotate(x)


def rotate_back(x: Tensor) -> Tensor:
    """`sensprobe.numerics.transforms.rotate_back` by the fastest implementation of it."""
    return _by_kernel(x, transpose=True) if is_plain(x) else transforms.rotate_back(x)


def _by_kernel(x: Tensor, *, transpose: bool) -> Tensor:
    from sensprobe_kernels.ops.rotate.cpu import rotated

    base, power = transforms.factors(x.shape[-1])
    signs = None
    if base > 1:
        rows = transforms.paley(base).float()
        signs = array(rows.mT if transpose else rows)
    return torch.from_numpy(rotated(array(x), signs, power, torch.get_num_threads()))
