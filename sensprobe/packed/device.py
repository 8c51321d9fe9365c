"""Packed models on a GPU: steps and whole sequences by Triton kernels, replayed as graphs."""

from __future__ import annotations

from collections.abc import Mapping
from threading import Lock
from typing import TYPE_CHECKING
from weakref import ref

import numpy as np
import torch
from numpy.typing import NDArray
from sensprobe_kernels.launch import LoweringError
from torch import Tensor

from sensprobe.errors import DataError, UnsupportedError
from sensprobe.models import Model, per_step
from sensprobe.numerics.taps import StaticScale
from sensprobe.packed.compile import Compiled, compiled
from sensprobe.packed.stream import Slots, chosen_slots
from sensprobe.packed.weights import PackedWeights

if TYPE_CHECKING:
    from sensprobe_kernels.program.gpu.device import States
    from sensprobe_kernels.program.gpu.run import GpuProgram

TOKENS = 1024
"""Tokens worked on at once, which is enough to fill a GPU, and the longest chunk of steps between
two roundings of a state."""
CAPABILITY = (8, 0)
"""Compute capability from which on there are products of bfloat16 and of int8 in tensor cores."""


class DeviceState:
    """States of `slots` sequences in a device's memory.

    They lie where programs write, or in a copy, `saved`, while another state lies there.
    """

    def __init__(self, slots: int, size: int) -> None:
        self.slots, self.bytes = slots, size
        self.saved: list[Tensor] | None = None


class DeviceStream:
    """As `Stream`, on a device, which runs `whole` sequences as well as steps.

    Where a plan stores states after every few steps only, whole sequences run and steps raise
    UnsupportedError; `no_steps` says why. The device's memory holds the weights once, in the bytes
    that the plan costs, the states of each number of slots in use, and copies of states that `step`
    was given. Threads may share a DeviceStream; they take turns.
    """

    def __init__(
        self,
        model: Model,
        weights: PackedWeights,
        scales: Mapping[str, StaticScale],
        device: torch.device,
    ) -> None:
        from sensprobe_kernels.program.gpu.device import Weights

        self.model, self._packed, self._scales = model, weights, scales
        self._weights = Weights(weights.data, str(device))
        self._programs: dict[tuple[int, int, int], tuple[GpuProgram, Compiled]] = {}
        self._states: dict[int, States] = {}
        self._within: dict[int, ref[DeviceState]] = {}
        self._turn = Lock()

    @property
    def weight_bytes(self) -> int:
        """Bytes of the device's memory that hold weights and static scales."""
        self._program(1, 1, 1)
        return self._weights.bytes

    @property
    def no_steps(self) -> str:
        """Why only whole sequences run; "" where steps run too."""
        with self._turn:
            return self._program(1, 1, 1)[1].no_steps

    def start(self, batch: int) -> DeviceState:
        """The state before the first step."""
        self._require_steps()
        with self._turn:
            return self._fresh(batch)

    def _require_steps(self) -> None:
        if self.no_steps:
            raise UnsupportedError(f"{self.no_steps}; whole sequences run.")

    def restart(self, state: DeviceState, slots: Slots) -> None:
        """Put some slots back to before the first step."""
        self._require_steps()
        with self._turn:
            self._load(state, None)
            self._clear(state.slots, chosen_slots(slots, state.slots))

    def step(self, x: Tensor, state: DeviceState) -> tuple[Tensor, DeviceState]:
        """One step: x (batch, d_input) or tokens (batch,) -> outputs and the state after it."""
        self._require_steps()
        with self._turn:
            self._load(state, len(x))
            state.saved = self._states[state.slots].saved()
            after = self._own(state.slots)
            return self._run(x, state.slots, np.arange(len(x)), 1), after

    def advance(
        self, x: Tensor, state: DeviceState, slots: Slots | None = None
    ) -> tuple[Tensor, DeviceState]:
        """As `step`, overwriting the state given. With `slots` the sequences of x are those in
        these slots, in this order, and the others stay as they are."""
        self._require_steps()
        with self._turn:
            self._load(state, len(x) if slots is None else None)
            if slots is None:
                chosen = np.arange(len(x))
            else:
                chosen = chosen_slots(slots, state.slots, len(x))
            state.saved = None
            return self._run(x, state.slots, chosen, 1), state

    def whole(self, x: Tensor) -> Tensor:
        """Outputs of sequences (batch, length, …), at every step where the model has them, else at
        the last one. Sequences are cut into pieces whose lengths are powers of two."""
        with self._turn:
            state = self._fresh(len(x))
            chunk = self._program(len(x), len(x), 1)[1].chunk
            many = max(1, TOKENS // chunk)
            slots = np.arange(len(x))
            outputs = [
                self._sequences(x[first : first + many], state, slots[first : first + many], chunk)
                for first in range(0, len(x), many)
            ]
        return torch.cat(outputs)

    def _sequences(
        self, x: Tensor, state: DeviceState, slots: NDArray[np.int64], chunk: int
    ) -> Tensor:
        """`whole` of the sequences in some slots. The last piece is padded to a power of two with
        copies of its last token: a program for every length would take too much memory."""
        (batch, length), first = x.shape[:2], 0
        found: list[Tensor] = []
        while first < length:
            left, most = length - first, max(chunk, TOKENS // batch)
            piece = 1 << (min(left, most).bit_length() - 1)
            if left < chunk:
                piece = 1 << (left - 1).bit_length()
            given = x[:, first : first + piece]
            filled = [given, *[given[:, -1:]] * (piece - given.shape[1])]
            outputs = self._run(torch.cat(filled, 1).flatten(0, 1), state.slots, slots, piece)
            outputs = outputs.unflatten(0, (batch, piece))[:, : given.shape[1]]
            found = [*found, outputs] if per_step(self.model) else [outputs[:, -1:]]
            first += piece
        every = torch.cat(found, dim=1)
        return every if per_step(self.model) else every[:, -1]

    def compiled(self, batch: int) -> Compiled:
        """The program of a step of all of `batch` slots."""
        with self._turn:
            return self._program(batch, batch, 1)[1]

    def _program(self, slots: int, batch: int, length: int) -> tuple[GpuProgram, Compiled]:
        from sensprobe_kernels.program.gpu.device import States
        from sensprobe_kernels.program.gpu.run import GpuProgram

        if (slots, batch, length) not in self._programs:
            made = compiled(self.model, self._packed, self._scales, batch * length)
            if slots not in self._states:
                size = made.fresh.size
                self._states[slots] = States(made.program, size, slots, self._weights)
            program = GpuProgram(made.program, length, self._states[slots])
            self._programs[slots, batch, length] = program, made
        return self._programs[slots, batch, length]

    def _run(self, x: Tensor, slots: int, chosen: NDArray[np.int64], length: int) -> Tensor:
        program, made = self._program(slots, len(chosen), length)
        program.buffers.order.copy_(torch.from_numpy(chosen))
        program.feed(x)
        program.run()
        return program.read(made.outputs).clone()

    def _fresh(self, slots: int) -> DeviceState:
        self._program(slots, slots, 1)
        self._save(slots)
        self._clear(slots, np.arange(slots))
        return self._own(slots)

    def _clear(self, slots: int, chosen: NDArray[np.int64]) -> None:
        _, made = self._program(slots, slots, 1)
        fresh = torch.from_numpy(made.fresh).expand(len(chosen), -1)
        self._states[slots].put(fresh, torch.from_numpy(chosen), 0)

    def _own(self, slots: int) -> DeviceState:
        """A new state for what lies where programs write."""
        state = DeviceState(slots, self._states[slots].held_bytes)
        self._within[slots] = ref(state)
        return state

    def _save(self, slots: int) -> None:
        """Save the state that lies where programs write, if anyone still holds it."""
        state = self._within[slots]() if slots in self._within else None
        if state is not None:
            state.saved = self._states[slots].saved()
        self._within.pop(slots, None)

    def _load(self, state: object, batch: int | None) -> None:
        """Put a state where programs write. DataError unless it is one of `batch` sequences."""
        if not isinstance(state, DeviceState) or batch not in (None, state.slots):
            many = state.slots if isinstance(state, DeviceState) else 1
            raise DataError(
                f"the state is not one of {batch or many} sequence(s) of this model on this "
                f"device, which x holds a step of; make one with start({batch or many})."
            )
        inside = self._within.get(state.slots)
        if inside is not None and inside() is state:
            return
        self._save(state.slots)
        assert state.saved is not None
        self._states[state.slots].restore(state.saved)
        self._within[state.slots] = ref(state)


def lacking(device: torch.device) -> str:
    """The requirement of kernels that a GPU does not meet; "" where it meets all, or is no GPU."""
    if device.type != "cuda" or (has := torch.cuda.get_device_capability(device)) >= CAPABILITY:
        return ""
    return (
        f"kernels for packed models need a GPU of compute capability {_dotted(CAPABILITY)} or "
        f"more, for its products of bfloat16 and int8; {torch.cuda.get_device_name(device)} has "
        f"{_dotted(has)}"
    )


def _dotted(version: tuple[int, int]) -> str:
    return ".".join(str(n) for n in version)


def device_stream_of(
    model: Model, weights: PackedWeights, scales: Mapping[str, StaticScale], device: torch.device
) -> tuple[DeviceStream | None, str]:
    """(a stream on a device, the reason if it runs whole sequences only), or (None, the reason)
    where no kernel there runs the plan."""
    if why := lacking(device):
        return None, why
    try:
        import sensprobe_kernels.program.gpu.run  # noqa: F401
    except ModuleNotFoundError as error:
        return None, f"packed models step on {device.type} with Triton, and {error}"
    stream = DeviceStream(model, weights, scales, device)
    try:
        return stream, stream.no_steps
    except UnsupportedError as error:
        return None, str(error)
    except LoweringError as error:
        return None, f"no kernel of {device.type} for {error}"
