"""Running a program on a GPU."""

from __future__ import annotations

import torch
from torch import Tensor

from sensprobe_kernels.launch import Launch, LoweringError, run
from sensprobe_kernels.program import tables as op
from sensprobe_kernels.program.cpu import Program, Register
from sensprobe_kernels.program.device import Held, Memory, Slots, Weights
from sensprobe_kernels.program.lowering import Lowering

__all__ = ["GpuProgram", "LoweringError"]


class GpuProgram:
    """A finished program on a device; `slots` sequences have a state, `program.batch` step at once.

    tokens or inputs, and `order`, the slot of each sequence that steps, are read where they lie, so
    launches may be captured in a graph. state_bytes: of one sequence. Raises LoweringError for what
    no kernel does.
    """

    def __init__(self, program: Program, state_bytes: int, slots: int, device: str = "cuda"):
        self.batch, self.state_bytes = program.batch, state_bytes
        ops, tensors, stores = program.ops, program.tensors, program.stores
        weights, nothing = Weights(program.data, device), torch.zeros(16, device=device)
        held = []
        for s in program.states:
            stored, after = stores[s.store], [o.at for o in program.states if o.at > s.at]
            size = min(after, default=state_bytes) - s.at
            fields = Slots.of(s, stored, slots, size, device)
            held.append(Held(s, stored, fields, weights.known(stored, s.rows, nothing)))
        large = {row[1] for row in ops if row[0] in (op.LINEAR, op.EMBED)}
        products = {i: weights.weight(tensors[i]) for i in sorted(large)}
        spans = [(row[5], row[4]) for row in ops if row[0] == op.ROUND]
        spans += [(row[10], program.states[row[9]].rows) for row in ops if row[0] == op.CHANNELS]
        statics = {i: weights.known(stores[i], span, nothing) for i, span in spans}
        rest, packed = weights.rest(tensors)
        pooled = sum(row[4] for row in ops if row[0] == op.MEAN)
        wide = max([row[3] for row in ops if row[0] == op.INPUT], default=0)
        self.memory = Memory(
            work=torch.zeros(program.work_size + 16, device=device),
            tokens=torch.zeros(self.batch, dtype=torch.int64, device=device),
            inputs=torch.zeros(self.batch * wide + 1, device=device),
            order=torch.arange(self.batch, device=device),
            times=torch.zeros(slots, dtype=torch.int32, device=device),
            sums=torch.zeros(slots, max(pooled, 1), device=device),
            nothing=nothing, weights=products, held=held, statics=statics, bytes=rest,
            packed=packed,
        )  # fmt: skip
        self.weight_bytes = weights.taken_bytes + rest.numel()
        self.launches: list[Launch] = Lowering(program, self.memory).run()

    def step(self) -> None:
        """One step of the sequences in `order`."""
        for launch in self.launches:
            run(launch)

    def read(self, register: Register) -> Tensor:
        """A register: (batch, size)."""
        rows = self.memory.work[register.at : register.at + self.batch * register.pitch]
        return rows.view(self.batch, register.pitch)[:, : register.size]

    def put(self, memory: Tensor, slots: Tensor, times: int) -> None:
        """States of sequences from their bytes (batch, bytes), after so many steps."""
        for h in self.memory.held:
            h.slots.put(memory, slots)
        self.memory.times[slots] = times

    def get(self, slots: Tensor) -> Tensor:
        """The inverse: (batch, bytes)."""
        memory = torch.zeros(len(slots), self.state_bytes, dtype=torch.uint8)
        for h in self.memory.held:
            h.slots.get(memory, slots)
        return memory

    @property
    def held_bytes(self) -> int:
        """Bytes of all states."""
        return sum(h.slots.bytes for h in self.memory.held)
