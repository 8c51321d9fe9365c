"""Steps of a packed model on the CPU."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from threading import Lock
from typing import Any, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from sensprobe.errors import DataError, UnsupportedError
from sensprobe.models import Model
from sensprobe.numerics.taps import StaticScale
from sensprobe.packed.compile import Compiled, compiled
from sensprobe.packed.weights import PackedWeights

Slots: TypeAlias = Sequence[int] | NDArray[np.integer] | Tensor


@dataclass(frozen=True)
class PackedState:
    """The carry of sequences between steps, one slot each.

    carry: packed states (slots, bytes). sums: of pooled values, over all steps (slots, columns).
    steps: taken so far (slots,).
    """

    carry: NDArray[np.uint8]
    sums: NDArray[np.float32]
    steps: NDArray[np.int64]

    @property
    def slots(self) -> int:
        return len(self.carry)

    @property
    def bytes(self) -> int:
        return self.carry.size


@dataclass
class Stream:
    """Steps of a model on packed weights and states, by one program for each number of slots.

    model: its config and sites are used, its weights are not. scales: of static activations and
    states. Raises UnsupportedError for a model or plan that no kernel runs. Threads may share one;
    their steps take turns.
    """

    model: Model
    weights: PackedWeights
    scales: Mapping[str, StaticScale]
    _programs: dict[int, Compiled] = field(default_factory=dict)
    _turn: Lock = field(default_factory=Lock, repr=False)

    def start(self, batch: int) -> PackedState:
        """The state before the first step: zeros, in the codes of each scheme."""
        made = self.program(batch)
        sums = np.zeros((batch, made.pooled), np.float32)
        return PackedState(np.tile(made.fresh, (batch, 1)), sums, np.zeros(batch, np.int64))

    def restart(self, state: PackedState, slots: Slots) -> None:
        """Put some slots back to before the first step."""
        made = self._check(state, state.slots if isinstance(state, PackedState) else 1)
        chosen = chosen_slots(slots, state.slots)
        with self._turn:
            state.carry[chosen], state.sums[chosen], state.steps[chosen] = made.fresh, 0, 0

    def step(self, x: Tensor, state: PackedState) -> tuple[Tensor, PackedState]:
        """One step: x (batch, d_input) or tokens (batch,) -> outputs and the state after it."""
        self._check(state, len(x))
        after = PackedState(state.carry.copy(), state.sums.copy(), state.steps.copy())
        return self.advance(x, after)

    def advance(
        self, x: Tensor, state: PackedState, slots: Slots | None = None
    ) -> tuple[Tensor, PackedState]:
        """As `step`, overwriting the state given. With `slots` the sequences of x are those in
        these slots, in this order, and the others stay as they are."""
        if slots is None:
            made, chosen = self._check(state, len(x)), np.arange(len(x))
        else:
            made = self._check(state, state.slots if isinstance(state, PackedState) else 1)
            chosen = chosen_slots(slots, state.slots, len(x))
        given = np.ascontiguousarray(x.detach().numpy()).reshape(-1)
        reads = self.model.reads_tokens
        inputs = np.zeros(0, np.float32) if reads else given
        tokens = given if reads else np.zeros(0, np.int64)
        with self._turn:  # registers are the program's
            sums = state.sums.reshape(-1)
            made.on_cpu.run(
                state.carry, inputs, tokens, sums, state.steps, chosen, torch.get_num_threads()
            )
            outputs = torch.from_numpy(made.on_cpu.read(made.outputs)[: len(chosen)])
            state.steps[chosen] += 1
        return outputs, state

    def _check(self, state: object, batch: int) -> Compiled:
        """The program of a batch; DataError unless the state is one of that batch."""
        made = self.program(batch)
        fits = (
            isinstance(state, PackedState)
            and _whole(state.carry, np.uint8, (batch, made.fresh.size))
            and _whole(state.sums, np.float32, (batch, made.pooled))
            and _whole(state.steps, np.int64, (batch,))
        )
        if not fits:
            raise DataError(
                f"the state is not one of {batch} sequence(s) of this model, which x holds a step "
                f"of; make one with start({batch})."
            )
        return made

    def __getstate__(self) -> dict[str, Any]:
        """Without programs, which are made again on first use."""
        return {"model": self.model, "weights": self.weights, "scales": self.scales}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__(**state)  # type: ignore[misc]

    def program(self, batch: int) -> Compiled:
        """The program of a step of `batch` slots, made on first use."""
        if batch not in self._programs:
            made = compiled(self.model, self.weights, self.scales, batch)
            if made.no_steps:
                raise UnsupportedError(made.no_steps)
            self._programs[batch] = made
        return self._programs[batch]


def stream_of(
    model: Model, weights: PackedWeights, scales: Mapping[str, StaticScale]
) -> tuple[Stream | None, str]:
    """(a Stream, ""), or (None, the reason) where no kernel runs the plan."""
    stream = Stream(model, weights, scales)
    try:
        stream.program(1)
    except UnsupportedError as error:
        return None, str(error)
    return stream, ""


def chosen_slots(slots: Slots, count: int, sequences: int | None = None) -> NDArray[np.int64]:
    """Some of `count` slots as an int64 array, of as many as there are sequences to step.

    Raises DataError for a slot out of range, one named twice, or another number of sequences.
    """
    given = np.asarray(slots)
    if given.ndim != 1 or (given.size and not np.issubdtype(given.dtype, np.integer)):
        raise DataError(f"slots are a list of whole numbers, not {slots!r}.")
    chosen = given.astype(np.int64)
    outside = chosen[(chosen < 0) | (chosen >= count)]
    if outside.size:
        raise DataError(f"slot {outside[0]} is out of range: the state has slots 0 to {count - 1}.")
    found, times = np.unique(chosen, return_counts=True)
    if (times > 1).any():
        raise DataError(
            f"slot {found[times > 1][0]} is named twice: a sequence takes one step at a time."
        )
    if sequences not in (None, len(chosen)):
        raise DataError(f"x holds a step of {sequences} sequence(s) for {len(chosen)} slot(s).")
    return chosen


def _whole(x: NDArray[Any], kind: type, shape: tuple[int, ...]) -> bool:
    """Whether an array has this type and shape and is contiguous, so that a kernel may write it."""
    return x.dtype == kind and x.shape == shape and x.flags.c_contiguous
