"""A model under a plan, ready to run: what `sensprobe.load` returns."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import numpy as np
import torch
from torch import Tensor

from sensprobe.errors import DataError, UnsupportedError, UsageError
from sensprobe.evaluate import BATCH, rows_of, saturations, sentences
from sensprobe.memory import free_bytes, room
from sensprobe.models import Model, per_step, together
from sensprobe.numerics.taps import RoundingTap
from sensprobe.ops.choice import say
from sensprobe.packed import DeviceStream, PackedWeights, Slots, Stream
from sensprobe.plans.cost import Cost, cost
from sensprobe.plans.plan import Plan
from sensprobe.plans.scheme import Scheme
from sensprobe.plans.sites import Kind, Site

logger = logging.getLogger("sensprobe.session.loaded")

Array: TypeAlias = Tensor | np.ndarray
LOOKED_AT = 4
"""Sequences of a first call on which states are watched."""


def as_sequences(x: Array, model: Model) -> Tensor:
    """x as the model reads it: float32 (batch, length, d_input), or int64 tokens (batch, length).

    Raises DataError for another shape or type, and for tokens outside the vocabulary.
    """
    size = model.config.d_input
    return as_tokens(x, size, 2) if model.reads_tokens else as_input(x, size)


def as_tokens(x: Array, vocabulary: int, ndim: int) -> Tensor:
    """Whole numbers (batch, length), or (batch,) for one step, as int64 below `vocabulary`."""
    x = torch.as_tensor(x)
    form = "(batch, length), at least one step long" if ndim == 2 else "(batch,)"
    if x.is_floating_point() or x.is_complex() or x.dtype == torch.bool:
        raise DataError(
            f"x holds {x.dtype} numbers; this model reads tokens, whole numbers {form}."
        )
    if x.ndim != ndim or 0 in x.shape[1:]:
        raise DataError(f"x has shape {tuple(x.shape)}; this model reads tokens {form}.")
    x = x.to(torch.int64)
    if len(x) and not (x.min() >= 0 and x.max() < vocabulary):
        raise DataError(
            f"x holds tokens from {x.min()} to {x.max()}; this model knows 0 to {vocabulary - 1}."
        )
    return x


def as_input(x: Array, d_input: int) -> Tensor:
    """Sequences as (batch, length, d_input) float32 from (batch, length[, d_input])."""
    x = _real(x)
    if x.ndim == 2 and d_input == 1:
        x = x[..., None]
    if x.ndim != 3 or x.shape[2] != d_input or x.shape[1] == 0:
        also = " or (batch, length)" if d_input == 1 else ""
        raise DataError(
            f"x has shape {tuple(x.shape)}; this model reads (batch, length, {d_input}){also}, at "
            "least one step long."
        )
    return x


def _as_step(x: Array, model: Model) -> Tensor:
    d_input = model.config.d_input
    if model.reads_tokens:
        return as_tokens(x, d_input, 1)
    x = _real(x)
    if x.ndim == 1 and d_input == 1:
        x = x[:, None]
    if x.ndim != 2 or x.shape[1] != d_input:
        also = " or (batch,)" if d_input == 1 else ""
        raise DataError(
            f"x has shape {tuple(x.shape)}; one step of this model is (batch, {d_input}){also}."
        )
    return x


def _real(x: Array) -> Tensor:
    try:
        x = torch.as_tensor(np.ascontiguousarray(x) if isinstance(x, np.ndarray) else x)
    except (TypeError, ValueError, RuntimeError) as error:
        raise DataError(f"x is no array of numbers ({type(x).__name__}): {error}.") from None
    if x.is_complex():
        raise DataError("x is complex; this model reads real numbers.")
    return x.to(torch.float32)


@dataclass(frozen=True)
class LoadedModel:
    """A model under a plan, ready to run. Make one with `load`.

    Calling it and `step` keep no gradients and change nothing in it; threads may share one. The
    first call on a CPU also watches states that are kept in fp16 or another float format of a fixed
    range, on its first sequences: a warning is logged where they leave it.

    An exported model is *packed*: `weight_bytes` of weights and scales as in the file, and states
    of as many bytes as the plan costs. On the CPU a call decodes one weight at a time and gives
    what the simulation gives, to the bit; on a GPU it is many steps at once. `step` reads packed
    memory as it is; its sums over inputs have another order, so outputs are within float32 of the
    simulation's where states are exact. A rounded state is chaotic in the order of sums: a value in
    the middle between two codes may go to either, so outputs of a sequence may differ by what a
    code is worth (at 2 bits 0.2 was seen), while scores over many sequences agree within their
    errors. Where a weight and the activation it multiplies are both integers, their codes are
    multiplied and summed exactly. Codes have no NaN: in a packed state, and in an activation with a
    static scale whose codes are multiplied, it is 0 (on a GPU the lowest code, where a recurrence
    reads the codes too). Plans that no streaming kernel has a way for
    decode weights in `step` too, and keep float32 states; a warning says why. Of those a GPU runs
    one in calls: a Mamba-2 state that is stored every so many steps.
    """

    name: str
    plan: Plan
    schemes: Mapping[str, Scheme] = field(repr=False)  # the plan, resolved to site names
    device: torch.device
    _model: Model = field(repr=False)
    _tap: RoundingTap = field(repr=False)
    _packed_weights: PackedWeights | None = field(default=None, repr=False)
    _stream: Stream | DeviceStream | None = field(default=None, repr=False)
    _why: str = field(default="", repr=False)
    _whole: DeviceStream | None = field(default=None, repr=False)
    _looked: list[bool] = field(default_factory=list, repr=False)  # something where it was

    @property
    def sites(self) -> dict[str, Site]:
        """Every tensor a plan may address, by name."""
        return self._model.sites

    @property
    def spectral_radius(self) -> float:
        """max |A| as stored; above 1 the recurrence is unstable."""
        return self._model.spectral_radius(self._tap)

    @property
    def packed(self) -> bool:
        """True if steps run from packed weights and states. An exported model's weights are packed
        even where its plan lets no kernel step; its states are then kept in float32."""
        return self._stream is not None

    @property
    def stream(self) -> Stream | DeviceStream | None:
        """The runtime that steps on packed weights and states; None where nothing does."""
        return self._stream

    @property
    def why_not_packed(self) -> str:
        """The site of an exported model's plan that keeps its steps from packed memory, and the
        reason; "" where they run from it, and for models that were not exported."""
        return self._why

    @property
    def weight_bytes(self) -> int:
        """Bytes of memory that hold weights and static scales."""
        if self._whole is not None:
            return self._whole.weight_bytes
        if self._packed_weights is not None:
            return self._packed_weights.bytes
        scales = [x for pair in self._tap.scales.values() for x in pair if x is not None]
        return sum(x.nbytes for x in [*self._tap.weights.values(), *scales])

    def state_bytes(self, batch: int = 1) -> int:
        """Bytes of memory that hold the state of `batch` sequences between steps."""
        state = self.start(batch)
        if self._stream is not None:
            return state.bytes
        return sum(held.nbytes for held in _held(state))

    def cost(self, batch: int = 1) -> Cost:
        """Bytes of weights and of the state of `batch` sequences under the plan."""
        return cost(self.sites.values(), self.schemes, self._model.products, batch)

    def __call__(self, x: Array) -> Tensor:
        """Outputs (batch, d_output), a classifier's logits, of x (batch, length, d_input).

        x may be (batch, length) if d_input is 1. A language model reads tokens (batch, length), and
        its outputs are (batch, length, d_output), logits over the vocabulary. Sequences run in the
        batches that `sensprobe eval` uses, so that both give the same numbers to the bit.
        """
        x = as_sequences(x, self._model).to(self.device)
        self._look(x[:LOOKED_AT])
        every = x.shape[1:2] if per_step(self._model) else ()
        parts = [torch.zeros(0, *every, self._model.config.d_output, device=self.device)]
        if self._whole is not None:
            return torch.cat(parts + [self._whole.whole(part) for part in x.split(BATCH) if len(x)])
        with torch.no_grad(), self._placed():
            size = together(self._model, x.shape[1], BATCH)
            for first in range(0, len(x), size):
                parts.append(self._model(x[first : first + size], self._tap.at(first)))
        return torch.cat(parts)

    def _look(self, x: Tensor) -> None:
        """Warn, once, where states leave the range of the float format they are kept in."""
        if self._looked or not len(x) or self.device.type != "cpu":
            return
        self._looked.append(True)
        for warning in sentences(rows_of(saturations(self._model, self._tap, [x])), len(x)):
            logger.warning("%s: %s", self.name, warning)

    def start(self, batch: int = 1) -> Any:
        """The state of `batch` sequences before their first step.

        CapacityError, before anything is allocated, where it needs more memory than is free.
        """
        if batch < 1:
            raise UsageError(f"batch {batch}: at least one sequence must run to have a state.")
        if self._why:
            say(logging.WARNING, self._why)
        with self._room(batch), self._placed():
            if self._stream is not None:
                return self._stream.start(batch)
            return self._model.start(batch, self._tap)

    def step(self, x: Array, state: Any) -> tuple[Tensor, Any]:
        """One step of every sequence: x (batch, d_input), or (batch,) if d_input is 1 or of tokens.

        Returns outputs (batch, d_output) as if the sequences ended here, and the state after the
        step; the state given stays as it was.
        """
        x = _as_step(x, self._model).to(self.device)
        if self._stream is not None:
            return self._stream.step(x, state)
        with torch.no_grad(), self._placed():
            return self._model.step(x, state, self._tap)

    def advance(self, x: Array, state: Any, slots: Slots | None = None) -> tuple[Tensor, Any]:
        """Like `step`, but a packed state is overwritten: the state given must not be used again.

        A packed state is also a pool of slots, `start(capacity)` of them, for serving sequences
        that come and go: with `slots` x holds a step of the sequences in these slots, in this
        order, and the others wait. `restart` makes room for new ones. What a sequence gives does
        not depend on which others are there. (Random rounding draws by slot and step, as the
        simulation does by place in a batch.) DataError for a slot out of range or named twice.
        """
        if self._stream is not None:
            return self._stream.advance(_as_step(x, self._model).to(self.device), state, slots)
        if slots is not None:
            raise self._no_slots()
        return self.step(x, state)

    def restart(self, state: Any, slots: Slots) -> None:
        """Put some slots of a packed state back to before the first step."""
        if self._stream is None:
            raise self._no_slots()
        self._stream.restart(state, slots)

    def _no_slots(self) -> UnsupportedError:
        why = self._why or "load an exported model"
        return UnsupportedError(
            f"only packed states have slots, and {self.name} keeps none: {why}."
        )

    def _room(self, batch: int) -> AbstractContextManager[None]:
        """Reserve memory for the state of `batch` sequences, packed or in float32."""
        held = sum(4 * site.reals for site in self.sites.values() if site.kind is Kind.STATE)
        each = self.cost().state_bytes if self.packed else held
        free = free_on(self.device)
        return room(
            each * batch,
            free,
            f"the state of {batch:,} sequences of {self.name} ({each:,} bytes each, beside "
            f"{self.weight_bytes:,} of weights)",
            f"Ask for a smaller batch: {max((free or 0) // max(each, 1), 1):,} at most fit now.",
        )

    def _placed(self) -> AbstractContextManager[Any]:
        """A context in which the model makes new tensors on its device."""
        return nullcontext() if self.device.type == "cpu" else self.device


def free_on(place: torch.device) -> int | None:
    """Bytes that can still be allocated on a device, those among them that torch keeps at hand."""
    if place.type == "cpu":
        return free_bytes()
    kept = torch.cuda.memory_reserved(place) - torch.cuda.memory_allocated(place)
    return torch.cuda.mem_get_info(place)[0] + kept


def _held(state: Any) -> Iterator[Tensor]:
    """The tensors in a state of a model that is not packed."""
    for layer in state.carries:
        for carry in layer:
            yield carry.state
            if carry.residual is not None:
                yield carry.residual
