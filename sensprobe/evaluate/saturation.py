"""Values that leave the range of a float format, above all states, which are kept between steps.

The simulation clamps what is beyond the largest number of a format. A runtime that does not
saturate keeps infinity there, and its outputs are NaN. So what a plan keeps in fp16, bf16 or, with
a static scale, in a smaller float format is watched on some sequences: the states as they would be
if these very states were kept exact, everything else under the plan. Ranges that leave something
out on purpose (percentiles, mse, clip) are not watched, nor are dynamic ones.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from sensprobe.models import Model, together
from sensprobe.numerics.rounding import spread
from sensprobe.numerics.storage import Rounded, Storage, Watched
from sensprobe.numerics.taps import RoundingTap
from sensprobe.plans.formats import FP32, Float
from sensprobe.plans.scheme import Scheme
from sensprobe.plans.sites import Kind, Site, group_pattern

SEQUENCES = 16
"""The most sequences that are watched: values that leave a range mostly do so in the first."""


@dataclass(slots=True)
class Saturation:
    """Counts of one tensor: the numbers to be stored, those of them beyond the range, the largest
    magnitude, and the largest that the format holds."""

    site: Site
    scheme: Scheme
    limit: float
    values: int = 0
    beyond: int = 0
    largest: float = 0.0

    def see(self, x: Tensor, limit: Tensor | float) -> None:
        """x (…, *site.shape), real; limit broadcasts against it."""
        size = x.abs()
        self.values += size.numel()
        self.beyond += int((size > limit).sum())
        self.largest = max(self.largest, float(size.max())) if size.numel() else self.largest


def saturations(model: Model, tap: RoundingTap, batches: Sequence[Tensor]) -> list[Saturation]:
    """Tensor -> counts of values beyond their range under the tap's plan, over batches of sequences
    as the model reads them."""
    if not any(watched(model.sites[name], scheme) for name, scheme in tap.plan.items()):
        return []
    watching = _Watching(tap)
    with torch.inference_mode():
        for x in batches:
            for part in x.split(together(model, x.shape[1], SEQUENCES)):
                model(part, watching)
    return [one for one in watching.found.values() if one.beyond]


def watched(site: Site, scheme: Scheme) -> bool:
    """True if a tensor has a range that it is not meant to leave."""
    if not isinstance(scheme.format, Float) or scheme.format == FP32 or scheme.clip is not None:
        return False
    if site.kind is Kind.ACTIVATION:
        return not scheme.scaled
    return site.kind is Kind.STATE and not scheme.dynamic and scheme.range in ("absmax", "given")


@dataclass(slots=True)
class _Watching:
    """The tap, with states of a limited range kept exact and counted."""

    inner: RoundingTap
    found: dict[str, Saturation] = field(default_factory=dict)

    def __call__(self, site: Site, x: Tensor) -> Tensor:
        scheme = self.inner.plan.get(site.name)
        if scheme is not None and site.kind is Kind.ACTIVATION and watched(site, scheme):
            peak = float(scheme.format.peak)  # type: ignore[union-attr]
            self._of(site, scheme, peak).see(x, peak)
        return self.inner(site, x)

    def storage(self, site: Site) -> Storage:
        storage = self.inner.storage(site)
        if not (isinstance(storage, Rounded) and site.kind is Kind.STATE):
            return storage
        scheme = storage.scheme
        if not watched(site, scheme):
            return storage
        limit = limit_of(storage)
        counted = self._of(site, scheme, float(torch.as_tensor(limit).max()))

        def look(states: Tensor, step: int) -> None:
            written = (torch.arange(len(states)) + step + 1) % scheme.every == 0
            counted.see(states[written], limit)

        return Watched(look)

    def _of(self, site: Site, scheme: Scheme, limit: float) -> Saturation:
        return self.found.setdefault(site.name, Saturation(site, scheme, limit))


def limit_of(storage: Rounded) -> Tensor | float:
    """The largest magnitude that a state's codes reach."""
    assert isinstance(storage.scheme.format, Float)
    if storage.scale is None:
        return storage.scheme.format.peak
    return storage.scheme.format.peak * spread(storage.scale, storage.scheme, storage.site)


def rows_of(found: Iterable[Saturation]) -> list[dict[str, Any]]:
    """The counts as plain values, with the same site of all layers joined, the worst first."""
    joined: dict[tuple[str, str], list[Saturation]] = {}
    for one in found:
        joined.setdefault((group_pattern(one.site), str(one.scheme)), []).append(one)
    rows = [
        {
            "sites": pattern if len(members) > 1 else members[0].site.name,
            "count": len(members),
            "scheme": scheme,
            "limit": max(one.limit for one in members),
            "largest": max(one.largest for one in members),
            "share": sum(one.beyond for one in members) / sum(one.values for one in members),
        }
        for (pattern, scheme), members in joined.items()
    ]
    return sorted(rows, key=lambda row: -row["share"])


def sentences(rows: Iterable[Mapping[str, Any]], samples: int, runtime: str = "") -> list[str]:
    """A sentence for the user on each row; `runtime` names one that does not saturate."""
    told = []
    for row in rows:
        which = f"the {row['count']} of {row['sites']}" if row["count"] > 1 else row["sites"]
        there = f"{runtime} keeps inf there" if runtime else "hardware that does not keeps inf"
        told.append(
            f"{which} in {row['scheme']}: {_percent(row['share'])} of the values leave the range "
            f"(up to {row['largest']:.3g}, the format holds {row['limit']:.6g}), seen on "
            f"{samples:,} sequence(s). The simulation clamps them; {there}, and outputs become "
            f"NaN. Keep them in fp32 or bf16: '{row['sites']}=bf16'."
        )
    return told


def _percent(share: float) -> str:
    return f"{100 * share:.2g} %" if share < 0.1 else f"{100 * share:.0f} %"
