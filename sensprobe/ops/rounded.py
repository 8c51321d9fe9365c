"""Rounding activations: `sensprobe.numerics.taps.rounded` is the reference."""

from __future__ import annotations

import torch
from torch import Tensor

from sensprobe.numerics.storage import Rounded
from sensprobe.numerics.taps import StaticScale
from sensprobe.numerics.taps import rounded as reference
from sensprobe.ops.choice import array, is_plain
from sensprobe.ops.rotate import rotate, rotate_back
from sensprobe.ops.specs import spec_of_columns
from sensprobe.plans.scheme import Rounding, Scheme
from sensprobe.plans.sites import Site

SMALL = 1 << 12
"""Up to so many numbers PyTorch is as fast."""


def rounded(
    x: Tensor, scheme: Scheme, site: Site, static: StaticScale | None, noise: Tensor | None
) -> Tensor:
    """`reference` in one pass over memory.

    The reference runs for stochastic rounding, for what needs a gradient, off the CPU, for scales
    that are not shared by neighbours in memory, and for few numbers.
    """
    spec = None
    if is_plain(x) and x.numel() > SMALL and scheme.rounding is not Rounding.STOCHASTIC:
        spec = spec_of_columns(Rounded(scheme, site, *(static or (None, None))))
    if spec is None:
        return reference(x, scheme, site, static, noise)
    from sensprobe_kernels.ops.rounded.cpu import rounded as kernel

    basis = rotate(x) if scheme.hadamard else x
    columns = array(basis).reshape(-1, site.reals)
    out = torch.from_numpy(kernel(columns, spec, torch.get_num_threads())).view(x.shape)
    return rotate_back(out) if scheme.hadamard else out
