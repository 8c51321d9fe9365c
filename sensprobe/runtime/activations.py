"""Rounding activations by the fastest implementation that gives what the reference gives."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from sensprobe.numerics.storage import Rounded
from sensprobe.numerics.taps import StaticScale
from sensprobe.numerics.taps import rounded as reference
from sensprobe.plans.scheme import Rounding, Scheme
from sensprobe.plans.sites import Site
from sensprobe.runtime.choice import differentiated
from sensprobe.runtime.rotation import rotate, rotate_back
from sensprobe.runtime.stores import neighbours, scales_of, store_of

if TYPE_CHECKING:
    from sensprobe_kernels.quantize.store import Store

SMALL = 1 << 12
"""Numbers up to which PyTorch is as fast."""


def rounded(
    x: Tensor, scheme: Scheme, site: Site, static: StaticScale | None, noise: Tensor | None
) -> Tensor:
    """`sensprobe.numerics.taps.rounded` in one pass over memory.

    The reference runs for stochastic rounding, for what needs a gradient, off the CPU, for scales
    that neighbours in memory do not share, and for few numbers.
    """
    plain = x.device.type == "cpu" and x.dtype == torch.float32 and not differentiated([x])
    store = None
    if plain and x.numel() > SMALL and scheme.rounding is not Rounding.STOCHASTIC:
        scale, zero = static or (None, None)
        store = _store(Rounded(scheme, site, scale, zero))
    if store is None:
        return reference(x, scheme, site, static, noise)
    from sensprobe_kernels.ops.activations.cpu import rounded as fast

    turned = rotate(x) if scheme.hadamard else x
    columns = turned.detach().contiguous().view(-1, site.reals)
    out = torch.from_numpy(fast(columns.numpy(), store, torch.get_num_threads())).view(x.shape)
    return rotate_back(out) if scheme.hadamard else out


def _store(storage: Rounded) -> Store | None:
    """The kernel's description; None where scales do not belong to runs of neighbours."""
    from sensprobe_kernels.quantize.flags import GROUP

    store = store_of(storage)
    scheme, site = storage.scheme, storage.site
    if store is None or not scheme.scaled:
        return store
    if scheme.dynamic:
        run = neighbours(scales_of(storage), scheme, site)
        return None if run is None else store._replace(span=GROUP, group=run)
    assert storage.scale is not None
    if storage.scale.numel() > 1:
        flat = [None if x is None else x.reshape(-1) for x in (store.scale, store.zero)]
    else:
        flat = [None if x is None else x.reshape(-1).numpy() for x in (storage.scale, storage.zero)]
    return store._replace(scale=flat[0], zero=flat[1])
