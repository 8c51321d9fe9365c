"""The weights and states of a program in the memory of a GPU, every byte of them once.

Weights of products lie each on their own, aligned, their scales typed; static scales of activations
and states likewise. All other bytes, of small tensors, stay together in one array.
"""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from sensprobe_kernels.packing.layout import packed_bytes
from sensprobe_kernels.packing.tensor import BFLOAT, HALF, OFFSET, SINGLE, Packed
from sensprobe_kernels.program import ir
from sensprobe_kernels.program.ir import State, Stored
from sensprobe_kernels.program.program import Program
from sensprobe_kernels.quantize.spec import GROUP, S16, S32, TENSOR

_SCALE = {S16: torch.float16, S32: torch.float32}
_ZERO = {S32: torch.int32}
_PLAIN = {HALF: torch.float16, BFLOAT: torch.bfloat16, SINGLE: torch.float32}


class Weight(NamedTuple):
    """Codes or numbers of a packed tensor, its scales and zero points.

    `codes` stands in for scales or zero points that the tensor lacks.
    """

    codes: Tensor
    scale: Tensor
    zero: Tensor


def scale_type(scales: int) -> torch.dtype:
    return _SCALE.get(scales, torch.int8)


def zero_type(scales: int) -> torch.dtype:
    return _ZERO.get(scales, torch.int16)


@dataclass
class Weights:
    """The bytes of a program's weights: pieces are taken out, `small` are all others."""

    data: NDArray[np.uint8]
    device: str
    _taken: list[tuple[int, int]] = field(default_factory=list)
    _known: dict[tuple[int, torch.dtype], Tensor] = field(default_factory=dict)
    _small: tuple[Tensor, list[Packed]] | None = None

    def take(self, at: int, count: int, kind: torch.dtype) -> Tensor:
        """`count` numbers from byte `at` on, in a tensor of their own."""
        if (at, kind) not in self._known:
            assert self._small is None, "the small tensors were moved already"
            size = count * kind.itemsize
            raw = torch.from_numpy(self.data[at : at + size].copy())
            self._known[at, kind] = raw.view(kind).to(self.device)
            self._taken.append((at, at + size))
        found = self._known[at, kind]
        assert found.numel() >= count
        return found

    def weight(self, t: Packed) -> Weight:
        count = t.rows * t.columns
        if t.kind >= HALF:
            numbers = self.take(t.at, count, _PLAIN[t.kind])
            return Weight(numbers, numbers, numbers)
        codes = self.take(t.at, packed_bytes(count, t.bits), torch.uint8)
        scales = (t.rows - 1) * t.stride + -(-t.columns // t.group) * t.parts
        scale = self.take(t.scale_at, scales, scale_type(t.scales))
        zero = codes
        if t.kind == OFFSET:
            zero = self.take(t.zero_at, scales, zero_type(t.scales))
        return Weight(codes, scale, zero)

    def known(self, s: Stored, count: int, nothing: Tensor) -> tuple[Tensor, Tensor]:
        """Static scales and zero points of a store that spans `count` rows or columns."""
        return self.scales(s, -(-count // s.stride) if s.stride else 1, nothing)

    def scales(self, s: Stored, scales: int, nothing: Tensor) -> tuple[Tensor, Tensor]:
        """The first `scales` static scales and zero points of a store."""
        if s.scale_at < 0:
            return nothing, nothing
        scale = self.take(s.scale_at, scales, scale_type(s.scales))
        if s.zero_at < 0:
            return scale, nothing
        return scale, self.take(s.zero_at, scales, zero_type(s.scales))

    def small(self, tensors: list[Packed]) -> tuple[Tensor, list[Packed]]:
        """All bytes that were not taken, and `tensors` with the places they have among them."""
        if self._small is None:
            self._small = self._left(tensors)
        return self._small

    def _left(self, tensors: list[Packed]) -> tuple[Tensor, list[Packed]]:
        self._taken.sort()
        ends = [end for _, end in self._taken]
        before = np.concatenate([[0], np.cumsum([b - a for a, b in self._taken])])
        left = np.ones(self.data.size, bool)
        for start, end in self._taken:
            left[start:end] = False

        def moved(at: int) -> int:
            return at - int(before[bisect_right(ends, at)])

        found = [t.moved(moved) for t in tensors]
        return torch.from_numpy(self.data[left].copy()).to(self.device), found

    @property
    def bytes(self) -> int:
        """Bytes of the device's memory, after `small`."""
        assert self._small is not None
        return sum(end - start for start, end in self._taken) + self._small[0].numel()


@dataclass
class Slots:
    """One state of many sequences: (slots, …) codes, dynamic scales and zero points, residuals.

    `codes` stands in for fields that the state lacks.
    """

    codes: Tensor
    scale: Tensor
    zero: Tensor
    residual: Tensor
    spans: list[tuple[Tensor, int]]  # each field and its byte among a sequence's states

    @classmethod
    def of(cls, s: State, stored: Stored, slots: int, size: int, device: str) -> Slots:
        """`size`: bytes of the state in a sequence."""
        count, end = s.rows * s.n, s.at + size
        kind = _PLAIN.get(s.kind, torch.uint8)
        each = count if s.kind >= HALF else packed_bytes(count, s.bits)
        codes = torch.zeros(slots, each, dtype=kind, device=device)
        spans = [(codes, s.at)]

        def field(at: int, kind: torch.dtype, stop: int) -> Tensor:
            if at < 0 or stop <= at:
                return codes
            made = torch.zeros(slots, (stop - at) // kind.itemsize, dtype=kind, device=device)
            spans.append((made, at))
            return made

        residual_at = s.residual_at if s.residual_at >= 0 else end
        zero_at = s.zero_at if s.zero_at >= 0 else residual_at
        dynamic = stored.span in (GROUP, TENSOR)
        scale = field(s.scale_at if dynamic else -1, scale_type(stored.scales), zero_at)
        zero = field(s.zero_at, zero_type(stored.scales), residual_at)
        residual = field(s.residual_at, torch.bfloat16, end)
        return cls(codes, scale, zero, residual, spans)

    def put(self, carry: Tensor, slots: Tensor) -> None:
        """Set the state of some slots from the bytes of sequences (batch, bytes)."""
        for x, at in self.spans:
            size = x.shape[1] * x.dtype.itemsize
            raw = carry[:, at : at + size].clone(memory_format=torch.contiguous_format)
            x[slots] = raw.view(x.dtype).to(x.device)

    def get(self, carry: Tensor, slots: Tensor) -> None:
        """The inverse of `put`."""
        for x, at in self.spans:
            raw = x[slots].contiguous().cpu().view(torch.uint8)
            carry[:, at : at + raw.shape[1]] = raw

    @property
    def bytes(self) -> int:
        return sum(x.numel() * x.dtype.itemsize for x, _ in self.spans)


class Held(NamedTuple):
    """A state: where it lies, and its static scales and zero points."""

    state: State
    stored: Stored
    slots: Slots
    known: tuple[Tensor, Tensor]


class Buffers(NamedTuple):
    """The tensors that launches read and write.

    length: tokens of each sequence. order: the slot of each sequence. times: steps taken in each
    slot. sums: of pooled values. nothing: stands in for an absent tensor. codes: integer codes of
    activations. held: states. statics: static scales and zero points of stores. bytes: of small
    tensors, which lie where `packed` says.
    """

    length: int
    work: Tensor
    tokens: Tensor
    inputs: Tensor
    order: Tensor
    times: Tensor
    sums: Tensor
    nothing: Tensor
    codes: Tensor
    consts: Tensor
    weights: dict[int, Weight]
    held: list[Held]
    statics: dict[int, tuple[Tensor, Tensor]]
    bytes: Tensor
    packed: list[Packed]


class States:
    """The states of `slots` sequences in a device's memory, and the weights, which others share.

    state_bytes: of one sequence. Programs of one model and plan may share one, whatever their batch
    and length.
    """

    def __init__(self, program: Program, state_bytes: int, slots: int, weights: Weights):
        self.state_bytes, device = state_bytes, weights.device
        ops, tensors, stores = program.ops, program.tensors, program.stores
        nothing = torch.zeros(16, device=device)
        self.held = []
        for s, size in zip(program.states, program.state_sizes(state_bytes), strict=True):
            stored = stores[s.store]
            fields = Slots.of(s, stored, slots, size, device)
            if s.run:
                known = weights.scales(stored, s.rows * s.n // s.run * s.parts, nothing)
            else:
                known = weights.known(stored, s.rows, nothing)
            self.held.append(Held(s, stored, fields, known))
        products = [o for o in ops if isinstance(o, ir.Linear | ir.LinearCodes | ir.Embed)]
        large = sorted({o.tensor for o in products})
        self.weights = {i: weights.weight(tensors[i]) for i in large}
        spans = [(o.store, o.x.size) for o in ops if isinstance(o, ir.Round)]
        channels = [o for o in ops if isinstance(o, ir.Channels)]
        spans += [(o.decay, program.states[o.state].rows) for o in channels]
        self.statics = {i: weights.known(stores[i], span, nothing) for i, span in spans}
        self.bytes, self.packed = weights.small(tensors)
        pooled = sum(o.x.size for o in ops if isinstance(o, ir.Mean))
        self.times = torch.zeros(slots, dtype=torch.int32, device=device)
        self.sums = torch.zeros(slots, max(pooled, 1), device=device)

    def put(self, carry: Tensor, slots: Tensor, times: int) -> None:
        """Set some slots to sequences (batch, bytes) after `times` steps; sums of pooled values
        become 0."""
        for h in self.held:
            h.slots.put(carry, slots)
        self.times[slots] = times
        self.sums[slots] = 0

    def get(self, slots: Tensor) -> Tensor:
        """The bytes of the states in some slots: (batch, bytes)."""
        carry = torch.zeros(len(slots), self.state_bytes, dtype=torch.uint8)
        for h in self.held:
            h.slots.get(carry, slots)
        return carry

    def saved(self) -> list[Tensor]:
        """A copy of all slots."""
        return [x.clone() for x in self._all()]

    def restore(self, saved: list[Tensor]) -> None:
        """The inverse of `saved`."""
        for x, kept in zip(self._all(), saved, strict=True):
            x.copy_(kept)

    def _all(self) -> list[Tensor]:
        return [*(x for h in self.held for x, _ in h.slots.spans), self.times, self.sums]

    @property
    def held_bytes(self) -> int:
        """Bytes of all states."""
        return sum(h.slots.bytes for h in self.held)
