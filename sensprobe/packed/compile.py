"""The program of a model's streaming step under a plan."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray
from sensprobe_kernels.program import ir
from sensprobe_kernels.program.cpu.run import CpuProgram
from sensprobe_kernels.program.ir import Register
from sensprobe_kernels.program.program import Program

from sensprobe.errors import UnsupportedError
from sensprobe.models import Model
from sensprobe.numerics.taps import StaticScale
from sensprobe.packed.builder import Builder
from sensprobe.packed.weights import PackedWeights


@dataclass(frozen=True)
class Compiled:
    """A program, the register of its outputs, and the bytes of a sequence's states before the first
    step.

    States are stored after every `chunk` steps. Where that is not every step, `no_steps` says why
    no single one runs: whole sequences do, chunk by chunk, on a GPU.
    """

    program: Program
    outputs: Register
    fresh: NDArray[np.uint8]
    chunk: int
    no_steps: str

    @property
    def registers(self) -> Mapping[str, Register]:
        """Registers by name; those of one layer are the next one's too, and hold its values after
        it."""
        return self.program.registers

    @cached_property
    def pooled(self) -> int:
        """Values whose mean over all steps is taken."""
        return sum(o.x.size for o in self.program.ops if isinstance(o, ir.Mean))

    @cached_property
    def on_cpu(self) -> CpuProgram:
        """The program with the arrays that the interpreter works in."""
        return CpuProgram(self.program)


def compiled(
    model: Model, weights: PackedWeights, scales: Mapping[str, StaticScale], batch: int
) -> Compiled:
    """The program of a step of `batch` sequences. Raises UnsupportedError, which names the site
    that no kernel runs."""
    build = Builder(model, weights, scales, Program(weights.data, batch))
    lower = model.described.lower
    if lower is None:
        raise UnsupportedError(f"no streaming kernel for models of family {model.family}")
    outputs = lower(build, model.config)
    left = list(build.operands.scanned)
    assert not left, f"numbers that may not be written are read: {left}"
    fresh = np.concatenate([np.zeros(0, np.uint8), *build.fresh])
    return Compiled(build.program, outputs, fresh, build.chunk, build.no_steps)
