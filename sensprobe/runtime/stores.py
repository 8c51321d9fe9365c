"""From a `Storage` to what kernels are told of it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from sensprobe.numerics.philox import key_of
from sensprobe.numerics.rounding import LARGEST_SCALE, SMALLEST_SCALE, spread
from sensprobe.numerics.storage import Rounded, Storage, Watched
from sensprobe.plans.formats import BF16, FP32, Float, Int, Log, LogPolar, Polar
from sensprobe.plans.scheme import ZERO_PEAK, Rounding, Scales, Scheme, scale_shape
from sensprobe.plans.sites import Site

if TYPE_CHECKING:
    from sensprobe_kernels.quantize.store import Store

# As the kernels' `flags` number them.
_ROUNDING = {
    Rounding.NEAREST: 0,
    Rounding.FEEDBACK: 0,
    Rounding.TRUNCATE: 1,
    Rounding.STOCHASTIC: 2,
}
_SCALES = {Scales.S16: 0, Scales.S32: 1, Scales.POW2: 2}


def store_of(storage: Storage) -> Store | None:
    """How numbers are stored, without what a live scale spans; None where kernels have no way.

    Calibrated scales are dense: one for each real number of the site.
    """
    from sensprobe_kernels.quantize.flags import STATIC
    from sensprobe_kernels.quantize.store import Store

    if storage is None or isinstance(storage, Watched):
        return Store()
    assert isinstance(storage, Rounded)
    scheme = storage.scheme
    if isinstance(scheme.format, Polar | LogPolar):
        return None
    store = Store(
        rounding=_ROUNDING[scheme.rounding],
        clip=scheme.clip,
        every=scheme.every,
        first=storage.first,
        key=key_of(scheme.seed, storage.site.name),
        span=STATIC,
        scaled=scheme.scaled,
        **_format(scheme.format, scheme.asym),
    )
    if not scheme.scaled:
        return store
    if scheme.dynamic:
        return store._replace(
            parts=scheme.parts,
            scales=_SCALES[scheme.scales],
            smallest=SMALLEST_SCALE[scheme.scales],
            largest=LARGEST_SCALE[scheme.scales],
            zero_peak=ZERO_PEAK[scheme.scales],
        )
    assert storage.scale is not None, f"{storage.site.name}: a static state needs calibrated scales"
    zero = None if storage.zero is None else _dense(storage.zero, storage)
    return store._replace(scale=_dense(storage.scale, storage), zero=zero)


def _format(format: Int | Float | Log, asym: bool) -> dict[str, Any]:
    from sensprobe_kernels.quantize import flags

    if isinstance(format, Int):
        return {
            "code": flags.INTEGER,
            "peak": format.levels if asym else format.peak,
            "asym": asym,
        }
    if format == FP32:
        return {"code": flags.ANY}
    if isinstance(format, Log):
        return {"code": flags.FLOAT, "peak": format.peak, "floor": 1 - format.powers}
    return {
        "code": flags.WIDE if format == BF16 else flags.FLOAT,
        "peak": format.peak,
        "floor": format.floor,
        "mantissa": format.mantissa,
    }


def _dense(x: Tensor, storage: Rounded) -> NDArray[np.float32]:
    """A calibrated scale or zero point for each real of the site."""
    site = storage.site
    shape = (*site.shape, 2) if site.is_complex else site.shape
    return spread(x, storage.scheme, site).expand(shape).contiguous().numpy()


def live(storage: Storage) -> Rounded | None:
    """The storage if its scales are read live."""
    if isinstance(storage, Rounded) and storage.scheme.scaled and storage.scheme.dynamic:
        return storage
    return None


def scales_of(storage: Rounded) -> tuple[int, ...]:
    """Shape of the scales, the trailing axis of complex numbers left out."""
    shape = scale_shape(storage.scheme, storage.site)
    return shape[:-1] if storage.site.is_complex else shape


def neighbours(shape: tuple[int, ...], scheme: Scheme, site: Site) -> int | None:
    """How many neighbours in memory share a scale, of scales of that shape; None if those that
    share one are no neighbours."""
    if scheme.granularity == "decoupled":
        return None
    if scheme.granularity == "group":
        run = min(scheme.group, site.shape[-1])
        return run if len(site.shape) == 1 or site.shape[-1] % run == 0 else None
    run, shared = 1, True
    for size, scales in zip(reversed(site.shape), reversed(shape), strict=True):
        if scales == 1 and shared:
            run *= size
        elif scales == size:
            shared = False
        else:
            return None
    return run


def spanned(storage: Storage) -> tuple[Store, bool] | None:
    """The kernel's description of a storage, and whether its live range spans a head; None where
    it has none. Every channel has a range along n, or a head has one, or the whole state."""
    from sensprobe_kernels.quantize.flags import GROUP, TENSOR

    store = store_of(storage)
    if store is None or (rounded := live(storage)) is None:
        return None if store is None else (store, False)
    *rows, n = rounded.site.shape
    *over, along = scales_of(rounded)
    if over == rows:
        group = rounded.scheme.group if rounded.scheme.granularity == "group" else n
        return store._replace(span=GROUP, group=min(group, n)), False
    if along == 1 and all(size == 1 for size in over):
        return store._replace(span=TENSOR), False
    if along == 1 and over == [rows[0], 1]:
        return store._replace(span=TENSOR), True
    return None


def dense_rows(store: Store) -> Store:
    """Calibrated scales of rows along n as those of one head."""
    if store.scale is None:
        return store
    return store._replace(
        scale=store.scale[None], zero=None if store.zero is None else store.zero[None]
    )


def array(x: Tensor | None) -> NDArray[np.float32]:
    """A tensor that is there, as kernels take it."""
    assert x is not None
    return x.detach().contiguous().numpy()
