"""The diagonal complex recurrence of S4D and S5: the reference that defines what is computed.

    h_t = store(A h_{t-1} + B u_t),   y_t = 2 Re(sum_n C_n h_{t,n})

`store` is what memory does to the state between steps. It sits inside the loop because its error
feeds back; rounding the finished trajectory would measure something milder. y reads the stored
state. One of each pair of conjugate modes is kept, hence the factor 2.

Arithmetic, fixed so that kernels can equal it bit for bit (float32, no contraction):

    re = (A_re h_re - A_im h_im) + B_re u        sum over n: from n = 0 upward
    im = (A_re h_im + A_im h_re) + B_im u        y = 2 * sum (C_re re - C_im im)
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from sensprobe.numerics.storage import Memory, Storage, fresh, store


def diagonal_scan(
    u: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    storage: Storage = None,
    memory: Memory | None = None,
) -> tuple[Tensor, Memory]:
    """Run the recurrence over a sequence.

    u: (batch, length, heads) float32. A, B, C: (heads, n) complex64, discretised. Returns
    y (batch, length, heads) and the memory after the last step; `memory` continues an earlier one.
    """
    batch, length, heads = u.shape
    if memory is None:
        memory = fresh(batch, (*A.shape, 2), storage, u.device)
    y = []
    for t in range(length):
        out, memory = diagonal_step(u[:, t], A, B, C, storage, memory)
        y.append(out)
    return (torch.stack(y, dim=1) if y else u.new_zeros(batch, 0, heads)), memory


def trajectory(u: Tensor, A: Tensor, B: Tensor, memory: Memory) -> Iterator[Tensor]:
    """The exact state after every step, (batch, heads, n, 2), to the bit as `diagonal_scan` has it.

    Without the sums over n that make y: those take most of a step of the reference.
    """
    A_re, A_im, B_re, B_im = (part.contiguous() for part in (A.real, A.imag, B.real, B.imag))
    re, im = (part.contiguous() for part in memory.state.unbind(-1))
    for drive in u.unbind(1):
        drive = drive[:, :, None]
        re, im = (
            (A_re * re - A_im * im) + B_re * drive,
            (A_re * im + A_im * re) + B_im * drive,
        )
        yield torch.stack([re, im], dim=-1)


def diagonal_step(
    u: Tensor, A: Tensor, B: Tensor, C: Tensor, storage: Storage, memory: Memory
) -> tuple[Tensor, Memory]:
    """One step: u (batch, heads) -> y (batch, heads) and the memory after it."""
    re, im = memory.state.unbind(-1)  # (b, h, n)
    drive = u[:, :, None]
    new = torch.stack(
        [
            (A.real * re - A.imag * im) + B.real * drive,
            (A.real * im + A.imag * re) + B.imag * drive,
        ],
        dim=-1,
    )
    memory = store(memory, new, storage)
    re, im = memory.state.unbind(-1)
    terms = C.real * re - C.imag * im  # (b, h, n)
    total = terms[..., 0]
    for n in range(1, terms.shape[-1]):
        total = total + terms[..., n]
    return 2 * total, memory
