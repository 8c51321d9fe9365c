"""A model's description before it runs: sizes, weights, and sites."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Protocol

from sensprobe.plans.sites import Site

if TYPE_CHECKING:
    from torch import Tensor


class Sited(Protocol):
    """A model's description, by site name."""

    @property
    def config(self) -> Any: ...

    @property
    def weights(self) -> Mapping[str, Tensor]: ...

    @property
    def sites(self) -> dict[str, Site]: ...
