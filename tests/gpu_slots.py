"""Programs on a GPU, or in Triton's interpreter, of some of three slots."""

from __future__ import annotations

from typing import Any

import torch
from packed_memory import Packed
from sensprobe_kernels.program.gpu.device import States, Weights
from sensprobe_kernels.program.gpu.run import GpuProgram

SLOTS = torch.tensor([2, 0])  # of two sequences, among three


def on(device: str, case: Packed, batch: int, length: int = 1) -> tuple[GpuProgram, Any]:
    """The program of a batch, and what it was made from."""
    made = case.stream.program(batch * length)
    weights = Weights(made.program.data, device)
    states = States(made.program, made.fresh.size, 3, weights)
    program = GpuProgram(made.program, length, states)
    program.buffers.order.copy_(SLOTS[:batch])
    return program, made


def many_tokens_are_as_many_steps(device: str, case: Packed, xs: torch.Tensor) -> None:
    """Assert that three tokens at once leave the states of three steps, twice, to the bit: xs
    (2, 6, c)."""
    (whole, _), (single, _) = on(device, case, 2, length=3), on(device, case, 2)
    fresh = torch.from_numpy(case.stream.start(2).carry)
    for program in (whole, single):
        program.states.put(fresh, SLOTS, 0)
    for first in (0, 3):
        whole.feed(xs[:, first : first + 3].flatten(0, 1))
        whole.run()
        for x in xs[:, first : first + 3].unbind(1):
            single.feed(x)
            single.run()
        assert torch.equal(whole.states.get(SLOTS), single.states.get(SLOTS))
    assert not torch.equal(whole.states.get(SLOTS), fresh)
