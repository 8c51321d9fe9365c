"""What a program reads, in the memory of a GPU: every byte of its weights and states once.

Weights of products lie each on their own, aligned, their scales typed; static scales of activations
and states likewise; what is left, small tensors, stays one array of bytes.
"""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from sensprobe_kernels.packing.layout import packed_bytes
from sensprobe_kernels.packing.tensor import BFLOAT, HALF, OFFSET, SINGLE, Packed
from sensprobe_kernels.program import tables as op
from sensprobe_kernels.program.cpu import Bytes, Program
from sensprobe_kernels.program.tables import State, Stored
from sensprobe_kernels.quantize.spec import GROUP, S16, S32, TENSOR

Row = list[int]
"""An operation: see `tables`."""
_SCALE = {S16: torch.float16, S32: torch.float32}
_ZERO = {S32: torch.int32}
_PLAIN = {HALF: torch.float16, BFLOAT: torch.bfloat16, SINGLE: torch.float32}


class Weight(NamedTuple):
    """Codes or numbers of a packed tensor, its scales and zero points; what it lacks is `codes`."""

    codes: Tensor
    scale: Tensor
    zero: Tensor


def scale_type(scales: int) -> torch.dtype:
    return _SCALE.get(scales, torch.int8)


def zero_type(scales: int) -> torch.dtype:
    return _ZERO.get(scales, torch.int16)


@dataclass
class Weights:
    """The bytes of a program's weights, taken out piece by piece."""

    data: Bytes
    device: str
    _taken: list[tuple[int, int]] = field(default_factory=list)
    _known: dict[tuple[int, torch.dtype], Tensor] = field(default_factory=dict)
    _rest: tuple[Tensor, list[Packed]] | None = None

    def take(self, at: int, count: int, kind: torch.dtype) -> Tensor:
        """`count` numbers from byte `at` on, on their own."""
        if (at, kind) not in self._known:
            assert self._rest is None, "what is left was taken already"
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
        """So many of them."""
        if s.scale_at < 0:
            return nothing, nothing
        scale = self.take(s.scale_at, scales, scale_type(s.scales))
        if s.zero_at < 0:
            return scale, nothing
        return scale, self.take(s.zero_at, scales, zero_type(s.scales))

    def rest(self, tensors: list[Packed]) -> tuple[Tensor, list[Packed]]:
        """All bytes not taken, one after the other, and where tensors among them begin now."""
        if self._rest is None:
            self._rest = self._left(tensors)
        return self._rest

    def _left(self, tensors: list[Packed]) -> tuple[Tensor, list[Packed]]:
        self._taken.sort()
        ends = [end for _, end in self._taken]
        before = np.concatenate([[0], np.cumsum([b - a for a, b in self._taken])])
        left = np.ones(self.data.size, bool)
        for start, end in self._taken:
            left[start:end] = False

        def moved(at: int) -> int:
            return at if at < 0 else at - int(before[bisect_right(ends, at)])

        found = [
            t._replace(at=moved(t.at), scale_at=moved(t.scale_at), zero_at=moved(t.zero_at))
            for t in tensors
        ]
        return torch.from_numpy(self.data[left].copy()).to(self.device), found

    @property
    def bytes(self) -> int:
        """Of the device's memory, once nothing is left to take."""
        assert self._rest is not None
        return sum(end - start for start, end in self._taken) + self._rest[0].numel()


@dataclass
class Slots:
    """One state of many sequences: (slots, …) codes, live scales and zero points, residuals.

    A field the state lacks is the codes.
    """

    codes: Tensor
    scale: Tensor
    zero: Tensor
    rest: Tensor
    spans: list[tuple[Tensor, int]]  # each field and its byte in a sequence's memory

    @classmethod
    def of(cls, s: State, stored: Stored, slots: int, size: int, device: str) -> Slots:
        """`size`: bytes of the state in a sequence's memory."""
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

        rest_at = s.residual_at if s.residual_at >= 0 else end
        zero_at = s.zero_at if s.zero_at >= 0 else rest_at
        live = stored.span in (GROUP, TENSOR)
        scale = field(s.scale_at if live else -1, scale_type(stored.scales), zero_at)
        zero = field(s.zero_at, zero_type(stored.scales), rest_at)
        rest = field(s.residual_at, torch.bfloat16, end)
        return cls(codes, scale, zero, rest, spans)

    def put(self, memory: Tensor, slots: Tensor) -> None:
        """From sequences' bytes (batch, bytes)."""
        for x, at in self.spans:
            size = x.shape[1] * x.dtype.itemsize
            raw = memory[:, at : at + size].clone(memory_format=torch.contiguous_format)
            x[slots] = raw.view(x.dtype).to(x.device)

    def get(self, memory: Tensor, slots: Tensor) -> None:
        """The inverse."""
        for x, at in self.spans:
            raw = x[slots].contiguous().cpu().view(torch.uint8)
            memory[:, at : at + raw.shape[1]] = raw

    @property
    def bytes(self) -> int:
        return sum(x.numel() * x.dtype.itemsize for x, _ in self.spans)


class Held(NamedTuple):
    """A state: where it lies, and its static scales and zero points."""

    state: State
    stored: Stored
    slots: Slots
    known: tuple[Tensor, Tensor]


class Memory(NamedTuple):
    """What launches read and write. length: tokens of each sequence; order: its slot; times: steps
    of each slot; codes: of activations; bytes: small tensors, where `packed` says; statics: of
    stores."""

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

    state_bytes: of one sequence. Programs of any batch and length that were made alike may use one.
    """

    def __init__(self, program: Program, state_bytes: int, slots: int, weights: Weights):
        self.state_bytes, device = state_bytes, weights.device
        ops, tensors, stores = program.ops, program.tensors, program.stores
        nothing = torch.zeros(16, device=device)
        self.held = []
        for s in program.states:
            stored, after = stores[s.store], [o.at for o in program.states if o.at > s.at]
            size = min(after, default=state_bytes) - s.at
            fields = Slots.of(s, stored, slots, size, device)
            if s.run:
                known = weights.scales(stored, s.rows * s.n // s.run * s.parts, nothing)
            else:
                known = weights.known(stored, s.rows, nothing)
            self.held.append(Held(s, stored, fields, known))
        large = {row[1] for row in ops if row[0] in (op.LINEAR, op.LINEAR_CODES, op.EMBED)}
        self.weights = {i: weights.weight(tensors[i]) for i in sorted(large)}
        spans = [(row[4], row[3]) for row in ops if row[0] == op.ROUND]
        spans += [(row[10], program.states[row[9]].rows) for row in ops if row[0] == op.CHANNELS]
        self.statics = {i: weights.known(stores[i], span, nothing) for i, span in spans}
        self.bytes, self.packed = weights.rest(tensors)
        pooled = sum(row[4] for row in ops if row[0] == op.MEAN)
        self.times = torch.zeros(slots, dtype=torch.int32, device=device)
        self.sums = torch.zeros(slots, max(pooled, 1), device=device)

    def put(self, memory: Tensor, slots: Tensor, times: int) -> None:
        """States of sequences from their bytes (batch, bytes), after so many steps, with nothing
        in the sums of what is pooled."""
        for h in self.held:
            h.slots.put(memory, slots)
        self.times[slots] = times
        self.sums[slots] = 0

    def get(self, slots: Tensor) -> Tensor:
        """The inverse: (batch, bytes)."""
        memory = torch.zeros(len(slots), self.state_bytes, dtype=torch.uint8)
        for h in self.held:
            h.slots.get(memory, slots)
        return memory

    def saved(self) -> list[Tensor]:
        """A copy of all slots."""
        return [x.clone() for x in self._all()]

    def restore(self, saved: list[Tensor]) -> None:
        """The inverse."""
        for x, kept in zip(self._all(), saved, strict=True):
            x.copy_(kept)

    def _all(self) -> list[Tensor]:
        return [*(x for h in self.held for x, _ in h.slots.spans), self.times, self.sums]

    @property
    def held_bytes(self) -> int:
        """Bytes of all states."""
        return sum(h.slots.bytes for h in self.held)
