"""Packed models at work: weights decoded as they are met, and steps by a program."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from threading import Lock

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from sensprobe.errors import DataError, UnsupportedError
from sensprobe.models import Model
from sensprobe.packed.arena import Arena
from sensprobe.packed.program import Compiled, compiled
from sensprobe.sites import Kind, Site
from sensprobe.taps import RoundingTap, StaticScale


@dataclass(frozen=True)
class PackedState:
    """States of a batch as memory holds them, (batch, bytes); sums of what is pooled; steps."""

    memory: NDArray[np.uint8]
    sums: NDArray[np.float32]
    steps: int

    @property
    def bytes(self) -> int:
        return self.memory.size


@dataclass(frozen=True, slots=True)
class PackedTap(RoundingTap):
    """A rounding tap whose weights are decoded from packed memory each time they are met."""

    arena: Arena | None = None

    def __call__(self, site: Site, x: Tensor) -> Tensor:
        if site.kind is Kind.WEIGHT:
            assert self.arena is not None
            return self.arena.weight(site)
        return RoundingTap.__call__(self, site, x)


@dataclass
class Stream:
    """Steps of a model from packed memory, by one program a batch size.

    model: config and sites; its weights are not looked at. scales: of static activations and
    states. A model or plan that no kernel has a way for is an UnsupportedError. Threads may share
    one; their steps take turns.
    """

    model: Model
    arena: Arena
    scales: Mapping[str, StaticScale]
    _programs: dict[int, Compiled] = field(default_factory=dict)
    _turn: Lock = field(default_factory=Lock, repr=False)

    def start(self, batch: int) -> PackedState:
        """The state before the first step: every code, and every scale, of zeros."""
        made = self.program(batch)
        return PackedState(
            np.zeros((batch, made.state_bytes), np.uint8),
            np.zeros((batch, made.pooled), np.float32),
            0,
        )

    def step(self, x: Tensor, state: PackedState) -> tuple[Tensor, PackedState]:
        """One step: x (batch, d_input) or tokens (batch,) -> outputs and the state after it."""
        after = PackedState(state.memory.copy(), state.sums.copy(), state.steps)
        return self.advance(x, after)

    def advance(self, x: Tensor, state: PackedState) -> tuple[Tensor, PackedState]:
        """As `step`, in the memory of the state given."""
        batch = len(x)
        made = self.program(batch)
        if not isinstance(state, PackedState) or state.memory.shape != (batch, made.state_bytes):
            raise DataError(
                f"the state is not one of {batch} sequence(s) of this model, which x holds a step "
                f"of; make one with start({batch})."
            )
        none = np.zeros(0, np.float32)
        tokens = x.numpy() if self.model.reads_tokens else np.zeros(0, np.int64)
        inputs = none if self.model.reads_tokens else x.contiguous().numpy().reshape(-1)
        with self._turn:  # registers are the program's
            made.program.run(state.memory, inputs, tokens, state.sums.reshape(-1), state.steps)
            outputs = torch.from_numpy(made.program.read(made.outputs))
        return outputs, PackedState(state.memory, state.sums, state.steps + 1)

    def program(self, batch: int) -> Compiled:
        if batch not in self._programs:
            self._programs[batch] = compiled(self.model, self.arena, self.scales, batch)
        return self._programs[batch]


def stream_of(
    model: Model, arena: Arena, scales: Mapping[str, StaticScale]
) -> tuple[Stream | None, str]:
    """A Stream; or None where no kernel runs the plan, and why."""
    stream = Stream(model, arena, scales)
    try:
        stream.program(1)
    except UnsupportedError as error:
        return None, str(error)
    return stream, ""
