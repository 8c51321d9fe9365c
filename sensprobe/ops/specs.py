"""From a scheme to `Spec`, the description of how a number is stored that kernels are given.

`spec_of` translates the scheme and the calibrated scales of one tensor. What a dynamic scale spans
depends on how a kernel walks through the tensor, and three functions say it: `spec_of_pairs` for
complex states, `spec_of_rows` for states and decays of the last axis, `spec_of_columns` for
activations. Each returns None where no kernel stores a tensor in this way.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from sensprobe.numerics.philox import key_of
from sensprobe.numerics.rounding import LARGEST_SCALE, SMALLEST_SCALE, spread
from sensprobe.numerics.storage import Rounded, Storage, Watched
from sensprobe.plans.formats import BF16, FP32, Float, Int, Log, LogPolar, Polar
from sensprobe.plans.scheme import ZERO_PEAK, Rounding, Scheme, scale_shape
from sensprobe.plans.sites import Site

if TYPE_CHECKING:
    from sensprobe_kernels.quantize.spec import Spec


def spec_of(storage: Storage) -> Spec | None:
    """How numbers are stored, except what a dynamic scale spans; None for magnitude and phase.

    A function of the state (`Custom`) has no Spec. Calibrated scales come dense: one for each real
    number of the site.
    """
    from sensprobe_kernels.quantize import rounding, spec

    if storage is None or isinstance(storage, Watched):
        return spec.Spec()
    assert isinstance(storage, Rounded)
    scheme = storage.scheme
    if isinstance(scheme.format, Polar | LogPolar):
        return None
    feedback, scaled = scheme.rounding is Rounding.FEEDBACK, scheme.scaled
    scales: dict[str, Any] = {}
    if scaled:
        scales["scales"] = spec.SCALES.index(scheme.scales)
    if scaled and scheme.dynamic:
        scales |= {
            "parts": scheme.parts,
            "smallest": SMALLEST_SCALE[scheme.scales],
            "largest": LARGEST_SCALE[scheme.scales],
            "zero_peak": ZERO_PEAK[scheme.scales],
        }
    elif scaled:
        name = storage.site.name
        assert storage.scale is not None, f"{name}: a static state needs calibrated scales"
        scales["scale"] = _dense(storage.scale, storage)
        scales["zero"] = None if storage.zero is None else _dense(storage.zero, storage)
    return spec.Spec(
        span=spec.STATIC,
        rounding=rounding.ROUNDINGS.index(Rounding.NEAREST if feedback else scheme.rounding),
        feedback=feedback,
        clip=scheme.clip,
        every=scheme.every,
        first=storage.first,
        key=key_of(scheme.seed, storage.site.name),
        scaled=scaled,
        **scales,
        **_format(scheme.format, scheme.asym),
    )


def _format(format: Int | Float | Log, asym: bool) -> dict[str, Any]:
    """The fields of a Spec that say which numbers the codes stand for."""
    from sensprobe_kernels.quantize import spec

    if isinstance(format, Int):
        peak = format.levels if asym else format.peak
        return {"code": spec.INTEGER, "peak": peak, "asym": asym}
    if format == FP32:
        return {"code": spec.ANY}
    if isinstance(format, Log):
        return {"code": spec.FLOAT, "peak": format.peak, "floor": 1 - format.powers}
    return {
        "code": spec.WIDE if format == BF16 else spec.FLOAT,
        "peak": format.peak,
        "floor": format.floor,
        "mantissa": format.mantissa,
    }


def _dense(x: Tensor, storage: Rounded) -> NDArray[np.float32]:
    """A calibrated scale or zero point for each real number of the site."""
    site = storage.site
    shape = (*site.shape, 2) if site.is_complex else site.shape
    return spread(x, storage.scheme, site).expand(shape).contiguous().numpy()


# -- what a dynamic scale spans -------------------------------------------------------------------


def spec_of_pairs(storage: Storage) -> Spec | None:
    """The Spec of a complex state (heads, n): groups along n, or one scale for all heads."""
    spec = spec_of(storage)
    if spec is None or (rounded := dynamic(storage)) is None:
        return spec
    from sensprobe_kernels.quantize.spec import GROUP, TENSOR

    heads, n = rounded.site.shape
    group = min(rounded.scheme.group or n, n)
    spans = {(1, 1): TENSOR, (heads, -(-n // group)): GROUP}
    rows, columns = scales_of(rounded)
    span = spans.get((rows, columns))
    return None if span is None else spec._replace(span=span, group=group)


def spec_of_rows(storage: Storage) -> Spec | None:
    """The Spec of a tensor (…, n): groups along n, or one scale for a head or for all."""
    spec = spec_of(storage)
    if spec is None or (rounded := dynamic(storage)) is None:
        return spec
    from sensprobe_kernels.quantize.spec import GROUP, TENSOR

    *rows, n = rounded.site.shape
    *over, along = scales_of(rounded)
    if over == rows:
        return spec._replace(span=GROUP, group=min(rounded.scheme.group or n, n))
    if along == 1 and all(size == 1 for size in over):
        return spec._replace(span=TENSOR)
    if along == 1 and over == [rows[0], 1]:
        return spec._replace(span=TENSOR, by_head=True)
    return None


def spec_of_columns(storage: Rounded) -> Spec | None:
    """The Spec of an activation, whose numbers are the columns of one row: a dynamic scale for
    each run of them; a static one for all, or one a column."""
    from sensprobe_kernels.quantize.spec import GROUP

    spec = spec_of(storage)
    if spec is None or not storage.scheme.scaled:
        return spec
    if storage.scheme.dynamic:
        run = neighbours(scales_of(storage), storage.scheme, storage.site)
        return None if run is None else spec._replace(span=GROUP, group=run)
    assert storage.scale is not None
    if storage.scale.numel() > 1:
        flat = [None if x is None else x.reshape(-1) for x in (spec.scale, spec.zero)]
    else:
        flat = [None if x is None else x.reshape(-1).numpy() for x in (storage.scale, storage.zero)]
    return spec._replace(scale=flat[0], zero=flat[1])


def dynamic(storage: Storage) -> Rounded | None:
    """The storage if its scales are dynamic, else None."""
    if isinstance(storage, Rounded) and storage.scheme.scaled and storage.scheme.dynamic:
        return storage
    return None


def scales_of(storage: Rounded) -> tuple[int, ...]:
    """Shape of the scales, without the trailing axis that complex numbers have."""
    shape = scale_shape(storage.scheme, storage.site)
    return shape[:-1] if storage.site.is_complex else shape


def neighbours(shape: tuple[int, ...], scheme: Scheme, site: Site) -> int | None:
    """How many neighbours in memory share one of the scales, which have that shape; None if
    numbers that share a scale are not neighbours."""
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


def as_one_head(spec: Spec) -> Spec:
    """The Spec of (rows, n) for a kernel that takes (heads, rows, n): all rows are one head."""
    if spec.scale is None:
        return spec
    return spec._replace(
        scale=spec.scale[None], zero=None if spec.zero is None else spec.zero[None]
    )
