"""Packed models at work: weights decoded as they are met, and steps by a program."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from threading import Lock
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from sensprobe.errors import DataError, UnsupportedError
from sensprobe.models import Model
from sensprobe.packed.arena import Arena
from sensprobe.packed.program import Compiled, compiled
from sensprobe.taps import StaticScale


@dataclass(frozen=True)
class PackedState:
    """States of a batch as memory holds them, (batch, bytes); sums of what is pooled; steps."""

    memory: NDArray[np.uint8]
    sums: NDArray[np.float32]
    steps: int

    @property
    def bytes(self) -> int:
        return self.memory.size


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
        """The state before the first step: zeros, as its codes say them."""
        made = self.program(batch)
        sums = np.zeros((batch, made.pooled), np.float32)
        return PackedState(np.tile(made.fresh, (batch, 1)), sums, 0)

    def step(self, x: Tensor, state: PackedState) -> tuple[Tensor, PackedState]:
        """One step: x (batch, d_input) or tokens (batch,) -> outputs and the state after it."""
        self._check(state, len(x))
        after = PackedState(state.memory.copy(), state.sums.copy(), state.steps)
        return self.advance(x, after)

    def advance(self, x: Tensor, state: PackedState) -> tuple[Tensor, PackedState]:
        """As `step`, in the memory of the state given."""
        made = self._check(state, len(x))
        given = np.ascontiguousarray(x.detach().numpy()).reshape(-1)
        reads = self.model.reads_tokens
        inputs = np.zeros(0, np.float32) if reads else given
        tokens = given if reads else np.zeros(0, np.int64)
        with self._turn:  # registers are the program's
            made.program.run(state.memory, inputs, tokens, state.sums.reshape(-1), state.steps)
            outputs = torch.from_numpy(made.program.read(made.outputs))
        return outputs, PackedState(state.memory, state.sums, state.steps + 1)

    def _check(self, state: object, batch: int) -> Compiled:
        """The program of a batch; DataError unless the state is one of its."""
        made = self.program(batch)
        fits = (
            isinstance(state, PackedState)
            and _whole(state.memory, np.uint8, (batch, made.fresh.size))
            and _whole(state.sums, np.float32, (batch, made.pooled))
        )
        if not fits:
            raise DataError(
                f"the state is not one of {batch} sequence(s) of this model, which x holds a step "
                f"of; make one with start({batch})."
            )
        return made

    def __getstate__(self) -> dict[str, Any]:
        """Without what is made again on first use."""
        return {"model": self.model, "arena": self.arena, "scales": self.scales}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__(**state)  # type: ignore[misc]

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


def _whole(x: NDArray[Any], kind: type, shape: tuple[int, ...]) -> bool:
    """Whether a kernel may write to an array as it lies."""
    return x.dtype == kind and x.shape == shape and x.flags.c_contiguous
