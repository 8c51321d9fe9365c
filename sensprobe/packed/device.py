"""Packed models on a GPU: steps and whole sequences by Triton kernels, graphs of them replayed."""

from __future__ import annotations

from collections.abc import Mapping
from threading import Lock
from typing import TYPE_CHECKING
from weakref import ref

import torch
from torch import Tensor

from sensprobe.errors import DataError, UnsupportedError
from sensprobe.models import Model, per_step
from sensprobe.packed.arena import Arena
from sensprobe.packed.program import Compiled, compiled
from sensprobe.taps import StaticScale

if TYPE_CHECKING:
    from sensprobe_kernels.program.device import States
    from sensprobe_kernels.program.gpu import GpuProgram

TOKENS = 4096
"""That are worked on at once; registers are made for as many."""


class DeviceState:
    """States of a batch in a device's memory: in the slots that programs write, or beside them."""

    def __init__(self, batch: int, size: int) -> None:
        self.batch, self.bytes = batch, size
        self.saved: list[Tensor] | None = None


class DeviceStream:
    """As `Stream`, on a device: `whole` sequences as well as steps.

    Weights lie there once, in as many bytes as the plan says; so do the states of each batch size
    in use, and copies of those that `step` was given. Threads may share one; they take turns.
    """

    def __init__(
        self, model: Model, arena: Arena, scales: Mapping[str, StaticScale], device: torch.device
    ) -> None:
        from sensprobe_kernels.program.device import Weights

        self.model, self._arena, self._scales = model, arena, scales
        self._weights = Weights(arena.data, str(device))
        self._programs: dict[tuple[int, int], tuple[GpuProgram, Compiled]] = {}
        self._states: dict[int, States] = {}
        self._within: dict[int, ref[DeviceState]] = {}
        self._turn = Lock()

    @property
    def weight_bytes(self) -> int:
        """Bytes of the device's memory that hold weights and static scales."""
        self._program(1, 1)
        return self._weights.bytes

    def start(self, batch: int) -> DeviceState:
        """The state before the first step."""
        with self._turn:
            return self._fresh(batch)

    def step(self, x: Tensor, state: DeviceState) -> tuple[Tensor, DeviceState]:
        """One step: x (batch, d_input) or tokens (batch,) -> outputs and the state after it."""
        with self._turn:
            self._bring(state, len(x))
            state.saved = self._states[state.batch].saved()
            return self._run(x, state.batch, 1), self._own(state.batch)

    def advance(self, x: Tensor, state: DeviceState) -> tuple[Tensor, DeviceState]:
        """As `step`; the state given is of no more use."""
        with self._turn:
            self._bring(state, len(x))
            return self._run(x, state.batch, 1), self._own(state.batch)

    def whole(self, x: Tensor) -> Tensor:
        """Outputs of sequences (batch, length, …): at every step where the model has them, else at
        the last. The longest pieces that are powers of two go at once."""
        batch, length = x.shape[:2]
        with self._turn:
            self._fresh(batch)
            found, first, outputs = [], 0, torch.zeros(0)
            while first < length:
                piece = 1 << (min(length - first, max(1, TOKENS // batch)).bit_length() - 1)
                given = x[:, first : first + piece].flatten(0, 1)
                outputs = self._run(given, batch, piece).unflatten(0, (batch, piece))
                if per_step(self.model):
                    found.append(outputs)
                first += piece
            self._own(batch)
        return torch.cat(found, dim=1) if found else outputs[:, -1]

    def _program(self, batch: int, length: int) -> tuple[GpuProgram, Compiled]:
        from sensprobe_kernels.program.device import States
        from sensprobe_kernels.program.gpu import GpuProgram

        if (batch, length) not in self._programs:
            made = compiled(self.model, self._arena, self._scales, batch * length)
            if batch not in self._states:
                size = made.fresh.size
                self._states[batch] = States(made.program, size, batch, self._weights)
            program = GpuProgram(made.program, length, self._states[batch])
            self._programs[batch, length] = program, made
        return self._programs[batch, length]

    def _run(self, x: Tensor, batch: int, length: int) -> Tensor:
        program, made = self._program(batch, length)
        program.feed(x)
        program.run()
        return program.read(made.outputs).clone()

    def _fresh(self, batch: int) -> DeviceState:
        _, made = self._program(batch, 1)
        self._leave(batch)
        fresh = torch.from_numpy(made.fresh).expand(batch, -1)
        self._states[batch].put(fresh, torch.arange(batch), 0)
        return self._own(batch)

    def _own(self, batch: int) -> DeviceState:
        """A state that lies in the slots."""
        state = DeviceState(batch, self._states[batch].held_bytes)
        self._within[batch] = ref(state)
        return state

    def _leave(self, batch: int) -> None:
        """Save the state that lies in the slots, if it is of use to anyone."""
        state = self._within[batch]() if batch in self._within else None
        if state is not None:
            state.saved = self._states[batch].saved()
        self._within.pop(batch, None)

    def _bring(self, state: object, batch: int) -> None:
        """A state to the slots. DataError unless it is one of `batch` sequences."""
        if not isinstance(state, DeviceState) or state.batch != batch:
            raise DataError(
                f"the state is not one of {batch} sequence(s) of this model on this device, which "
                f"x holds a step of; make one with start({batch})."
            )
        inside = self._within.get(batch)
        if inside is not None and inside() is state:
            return
        if state.saved is None:
            raise DataError("the state was written over by `advance`; go on with the one it gave.")
        self._leave(batch)
        self._program(batch, 1)
        self._states[batch].restore(state.saved)
        self._within[batch] = ref(state)


def device_stream_of(
    model: Model, arena: Arena, scales: Mapping[str, StaticScale], device: torch.device
) -> tuple[DeviceStream | None, str]:
    """A stream on a device; or None where no kernel there runs the plan, and why."""
    try:
        from sensprobe_kernels.program.gpu import LoweringError
    except ModuleNotFoundError as error:
        return None, f"packed models step on {device.type} with Triton, and {error}"
    stream = DeviceStream(model, arena, scales, device)
    try:
        stream.start(1)
    except UnsupportedError as error:
        return None, str(error)
    except LoweringError as error:
        return None, f"no kernel of {device.type} for {error}"
    return stream, ""
