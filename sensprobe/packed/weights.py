"""The tensors of an artefact in one array of bytes, as kernels read them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from sensprobe.export.tensors import Entry, layout, scales_of, weights_of
from sensprobe.numerics.taps import StaticScale
from sensprobe.plans.plan import Resolved
from sensprobe.plans.sites import Kind, Site


@dataclass(frozen=True)
class PackedWeights:
    """Packed weights and static scales, one tensor after the other in the order of the file.

    `places` says at which byte each begins; `tensors` are views of the bytes.
    """

    sites: Mapping[str, Site]
    plan: Resolved
    data: NDArray[np.uint8]
    places: Mapping[str, int]
    tensors: Mapping[str, Tensor]

    @classmethod
    def of(
        cls, tensors: Mapping[str, Tensor], sites: Mapping[str, Site], plan: Resolved
    ) -> PackedWeights:
        """From the tensors that `layout(sites, plan)` names."""
        entries = layout(sites, plan)
        data = np.empty(sum(entry.size_bytes for entry in entries.values()), np.uint8)
        places, kept, at = {}, {}, 0
        for name in entries:
            raw = tensors[name].contiguous().view(-1).view(torch.uint8)
            here = data[at : at + raw.numel()]
            here[...] = raw.numpy()
            places[name], kept[name], at = at, torch.from_numpy(here), at + raw.numel()
        return cls(sites, plan, data, places, kept)

    @property
    def bytes(self) -> int:
        """The bytes that the plan's weights cost."""
        return self.data.size

    @property
    def decoded(self) -> Mapping[str, Tensor]:
        """Every weight by name, decoded each time it is looked up."""
        return self.decoded_on(torch.device("cpu"))

    def decoded_on(self, device: torch.device) -> Mapping[str, Tensor]:
        """`decoded`, on a device."""
        return _Decoded(self, device)

    def weight(self, site: Site) -> Tensor:
        """One weight decoded, float32 or complex64."""
        return weights_of(self._of(site), {site.name: site}, self.plan)[site.name]

    def zero_points(self, site: Site) -> Tensor | None:
        """The zero points of a weight; None where it has none."""
        name, entries = f"{site.name}.zero", layout({site.name: site}, self.plan)
        return self._stored(name, entries[name]) if name in entries else None

    def scales(self) -> dict[str, StaticScale]:
        """Scales and zero points of static activations and states, float32."""
        sites = {n: s for n, s in self.sites.items() if s.kind is not Kind.WEIGHT}
        found: dict[str, Tensor] = {}
        for site in sites.values():
            found |= self._of(site)
        return scales_of(found, sites, self.plan)

    def _of(self, site: Site) -> dict[str, Tensor]:
        """Copies of a site's stored tensors."""
        entries = layout({site.name: site}, self.plan)
        return {name: self._stored(name, entry) for name, entry in entries.items()}

    def _stored(self, name: str, entry: Entry) -> Tensor:
        """A copy of a stored tensor: numbers of several bytes may begin anywhere."""
        return self.tensors[name].clone().view(entry.dtype).view(entry.stored_shape)


class _Decoded(Mapping[str, Tensor]):
    """Weights by name, decoded when they are looked up."""

    def __init__(self, packed: PackedWeights, device: torch.device) -> None:
        self._packed, self._device = packed, device
        self._names = dict.fromkeys(n for n, s in packed.sites.items() if s.kind is Kind.WEIGHT)

    def __getitem__(self, name: str) -> Tensor:
        if name not in self:
            raise KeyError(name)
        return self._packed.weight(self._packed.sites[name]).to(self._device)

    def __contains__(self, name: object) -> bool:
        return name in self._names

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)
