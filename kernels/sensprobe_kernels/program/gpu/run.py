"""Running a program on a GPU."""

from __future__ import annotations

import torch
from torch import Tensor

from sensprobe_kernels.launch import Launch, run
from sensprobe_kernels.program import ir
from sensprobe_kernels.program.gpu.device import Buffers, States
from sensprobe_kernels.program.gpu.lowering import Lowering
from sensprobe_kernels.program.ir import Register
from sensprobe_kernels.program.program import Program


class GpuProgram:
    """A program on a device, for `program.batch` tokens: `length` of each sequence, one sequence
    after the other.

    Tokens or inputs, and `order`, the slot of each sequence, are read where they lie, so launches
    may be captured in a graph. Raises LoweringError for an operation that no kernel does.
    """

    def __init__(self, program: Program, length: int, states: States):
        device = states.times.device
        self.batch, self.length, self.states = program.batch // length, length, states
        inputs = (o.to.size for o in program.ops if isinstance(o, ir.Input))
        wide = max(inputs, default=0)
        self.buffers = Buffers(
            length=length,
            work=torch.zeros(program.work_size + 16, device=device),
            tokens=torch.zeros(program.batch, dtype=torch.int64, device=device),
            inputs=torch.zeros(program.batch * wide + 1, device=device),
            order=torch.arange(self.batch, device=device),
            nothing=torch.zeros(16, device=device),
            codes=torch.zeros(program.codes_size + 16, dtype=torch.int8, device=device),
            consts=torch.tensor([*program.consts, 0.0], device=device),
            times=states.times, sums=states.sums, held=states.held, weights=states.weights,
            statics=states.statics, bytes=states.bytes, packed=states.packed,
        )  # fmt: skip
        self.launches: list[Launch] = Lowering(program, self.buffers).run()
        self._graph: torch.cuda.CUDAGraph | None = None
        self._warm = False

    def run(self) -> None:
        """Run the next tokens of the sequences in `order`. On a GPU runs after the first replay a
        graph; the first one compiles kernels, which cannot be captured."""
        if self._graph is None and self._warm and self.buffers.work.is_cuda:
            self._graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(self._graph):
                self.launch()
        if self._graph is not None:
            self._graph.replay()
        else:
            self.launch()
        self._warm = True

    def launch(self) -> None:
        """`run`, one launch after the other."""
        for launch in self.launches:
            run(launch)

    def feed(self, x: Tensor) -> None:
        """Set the tokens (batch · length,) or inputs (batch · length, d_input) of the next run."""
        if x.is_floating_point():
            self.buffers.inputs[: x.numel()].copy_(x.reshape(-1))
        else:
            self.buffers.tokens.copy_(x.reshape(-1))

    def read(self, register: Register) -> Tensor:
        """The values of a register: (batch · length, size)."""
        count = self.batch * self.length
        rows = self.buffers.work[register.at : register.at + count * register.pitch]
        return rows.view(count, register.pitch)[:, : register.size]
