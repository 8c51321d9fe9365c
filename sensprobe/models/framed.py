"""A model that stands in the frame: what every family offers, made from its mixer alone."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, ClassVar

import torch
from torch import Tensor

from sensprobe.models import forward
from sensprobe.models.family import Family
from sensprobe.models.forward import Carries, StreamState
from sensprobe.models.frame import Products
from sensprobe.numerics.taps import EXACT, Tap
from sensprobe.plans.sites import Kind, Site


def columns(v: Tensor, heads: tuple[int, ...] | None) -> Tensor:
    """The columns of v (…, h) that are named, (…, k); None: v."""
    return v if heads is None else v.index_select(-1, torch.tensor(heads, device=v.device))


@dataclass(frozen=True, slots=True)
class Recurrence:
    """The sites around the state of a linear, time-invariant recurrence.

    h_t = A h_{t-1} + B x_t and y_t = 2 Re(C h_t), where A, B and C are complex, and (k, n); the
    adjoint of it is a convolution. Any other recurrence is a `Replay`. `heads` are the k columns of
    x that it reads, and of y that it writes; None: all of them.
    """

    state: str
    A: str
    B: str
    C: str
    x: str
    y: str
    heads: tuple[int, ...] | None = field(default=None, kw_only=True)


@dataclass(frozen=True, slots=True)
class Replay:
    """An operation that rounds inside itself, run again from the values of the sites around it.

    It may be any recurrence: real or complex, selective or time-invariant, whatever the shapes of
    its B and C. `names` are the sites whose rounding it prices: its states, and what it multiplies
    them by. `run(values, tap)` returns the values of the sites `outputs`, from values by site name;
    what a plan does inside the operation must reach the model's outputs through those alone.
    """

    names: frozenset[str]
    outputs: tuple[str, ...]
    run: Callable[[Mapping[str, Tensor], Tap], tuple[Tensor, ...]]


@dataclass(frozen=True)
class Framed(ABC):
    """A model: its config, and its weights by site name.

    A family gives `mix`, `layer_radius`, and `recurrences` or `replays` for sensitivity methods.
    """

    config: Any
    weights: Mapping[str, Tensor]

    described: ClassVar[Family]
    """The record of the family."""
    radius_name: ClassVar[str]
    """The name of the quantity that `spectral_radius` returns, as reports print it."""
    radius_reads: ClassVar[tuple[str, ...]]
    """The sites of a layer that `spectral_radius` is computed from."""

    @abstractmethod
    def mix(self, i: int, u: Tensor, tap: Tap, carries: Carries) -> tuple[Tensor, Carries]:
        """Layer i's mixer: u (b, l, d_model) -> the same shape, and the carry of each state site
        of the layer after it, in the order of the sites; None where there was none before."""

    @abstractmethod
    def layer_radius(self, i: int, tap: Tap = EXACT) -> float:
        """The magnitude above 1 of which layer i's recurrence is unstable, with weights as the tap
        leaves them."""

    def spectral_radius(self, tap: Tap = EXACT) -> float:
        """The largest `layer_radius` of all layers."""
        return max((self.layer_radius(i, tap) for i in range(self.config.layers)), default=0.0)

    @property
    def family(self) -> str:
        return self.described.name

    @cached_property
    def sites(self) -> dict[str, Site]:
        return self.described.sites(self.config)

    @cached_property
    def states(self) -> tuple[tuple[Site, ...], ...]:
        """The state sites of every layer."""
        found: list[list[Site]] = [[] for _ in range(self.config.layers)]
        for site in self.sites.values():
            if site.kind is Kind.STATE and site.layer is not None:
                found[site.layer].append(site)
        return tuple(map(tuple, found))

    @property
    def products(self) -> Products:
        return self.described.products(self.config)

    @property
    def recurrences(self) -> list[Recurrence]:
        """The recurrences whose adjoint a sensitivity method knows."""
        return []

    @property
    def replays(self) -> list[Replay]:
        """The operations that round inside themselves, where they are not `recurrences`."""
        return []

    @property
    def reads_tokens(self) -> bool:
        return bool(self.config.encoder == "embedding")

    def __call__(self, x: Tensor, tap: Tap = EXACT, mode: str = "recurrent") -> Tensor:
        """x (b, l, d_input) float32, or tokens (b, l) -> outputs (b, d_output).

        Outputs are (b, l, d_output) where nothing is pooled. "recurrent" is the one mode there is.
        """
        forward.require_recurrent(mode)
        return forward.outputs(self, x, tap)

    def start(self, batch: int, tap: Tap = EXACT) -> StreamState:
        """The state before the first step."""
        return forward.start(self, batch, tap)

    def step(self, x: Tensor, state: StreamState, tap: Tap = EXACT) -> tuple[Tensor, StreamState]:
        """One time step: x (b, d_input), or tokens (b,) -> outputs (b, d_output) as if the sequence
        ended here, and the new state."""
        return forward.step(self, x, state, tap)
