"""Normal numbers at counters: `sensprobe.numerics.noise.numbers` is the reference."""

from __future__ import annotations

from math import prod

import torch
from torch import Tensor

from sensprobe.numerics.noise import Key
from sensprobe.numerics.noise import numbers as reference
from sensprobe.numerics.philox import Grid

SMALL = 1 << 12
"""Up to so many numbers PyTorch is as fast."""


def normals(grid: Grid, key: Key, pairs: bool) -> Tensor:
    """`reference` in one pass, by a kernel; the reference for few numbers."""
    if prod(grid.sizes) <= SMALL:
        return reference(grid, key, pairs)
    from sensprobe_kernels.ops.normals.cpu import numbers as kernel

    return torch.from_numpy(kernel(*grid, key, pairs, torch.get_num_threads()))
