"""How long each kind of operation takes inside a streaming step.

On the CPU the compiled step itself reads the clock after every operation, on the numbers and with
the caches of a real step; what reading the clock takes is taken off, and is timed in the same
round. On a GPU the operations of a kind run alone, as a graph of them.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray
from sensprobe_kernels.program import ir
from sensprobe_kernels.program.cpu.run import CpuProgram
from sensprobe_kernels.program.ir import NOWHERE
from sensprobe_kernels.program.program import Program
from torch import Tensor

from sensprobe.packed.bench_rounds import Subject, middle
from sensprobe.packed.bench_work import KIND_OF, KINDS
from sensprobe.packed.compile import Compiled
from sensprobe.packed.stream import Stream
from sensprobe.packed.weights import PackedWeights

READINGS = 64
"""Of the clock, by operations on nothing, to learn what one takes."""
NANO, RESOLVED = 1e-9, 1.0
"""Seconds in a nanosecond; what is less than the clock resolves is not told."""
_NO_TOKENS = np.zeros(0, np.int64)


def inside(name: str, stream: Stream, x: Tensor) -> Subject:
    """Seconds a step by kind, as `name` and the kind, of steps of a batch that go on from each
    other. The arrays are the subject's own."""
    batch = len(x)
    made, state = stream.program(batch), stream.start(batch)
    given, nothing = np.ascontiguousarray(x.numpy()).reshape(-1), np.zeros(0, np.float32)
    inputs, tokens = (nothing, given) if stream.model.reads_tokens else (given, _NO_TOKENS)
    sums, slots = state.sums.reshape(-1), np.arange(batch)
    empty = _nothing(made.program)
    kinds, which = _kinds(made)

    def ends(program: CpuProgram) -> NDArray[np.int64]:
        """Runs a step; when it began, and when each operation was over."""
        clock, threads = np.zeros(len(program.program.ops) + 1, np.int64), torch.get_num_threads()
        program.run(state.carry, inputs, tokens, sums, state.steps, slots, threads, clock)
        return clock

    def timed(count: int) -> dict[str, float]:
        steps = np.empty((count, len(kinds)))
        for i in range(count):
            steps[i] = np.bincount(which, np.diff(ends(made.on_cpu)), len(kinds))
            state.steps[:] += 1
        reading = float(middle(np.diff(ends(empty))))
        found = middle(steps) - reading * np.bincount(which, minlength=len(kinds))
        least = np.maximum(found, RESOLVED) * NANO
        return {f"{name} {kind}": float(t) for kind, t in zip(kinds, least, strict=True)}

    return timed


def _kinds(made: Compiled) -> tuple[list[str], NDArray[np.int64]]:
    """The kinds of a program, and the place of each operation's among them."""
    names = [KIND_OF[type(o)] for o in made.program.ops]
    kinds = list(dict.fromkeys(names))
    return kinds, np.array([kinds.index(name) for name in names])


def _nothing(program: Program) -> CpuProgram:
    """Operations on no numbers."""
    return CpuProgram(replace(program, ops=[ir.Silu(NOWHERE, NOWHERE)] * READINGS))


def inside_on_gpu(name: str, weights: PackedWeights, made: Compiled, x: Tensor) -> Subject:
    """`inside` on a GPU, where the operations of each kind run alone."""
    from sensprobe.packed import bench_gpu

    present = {KIND_OF[type(o)] for o in made.program.ops}
    runs = {}
    for kind in (kind for kind in KINDS if kind in present):
        program = bench_gpu.running(weights, made, KINDS[kind], len(x), 1)
        program.feed(x)
        runs[kind] = bench_gpu.captured(program.launch)

    def timed(count: int) -> dict[str, float]:
        return {f"{name} {kind}": bench_gpu.seconds(run) for kind, run in runs.items()}

    return timed
