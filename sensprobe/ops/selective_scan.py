"""The selective recurrences of Mamba and Mamba-2: the references that define what is computed.

    a_t = decayed(exp(dt_t A))                       computed at every step, used, gone
    h_t = store(a_t h_{t-1} + (dt_t x_t) B_t)        what memory does to the state
    y_t = sum_n C_{t,n} h_{t,n}                      reads the stored state

Mamba (arXiv 2312.00752): one recurrence a channel with its own dt and N decays; B and C are shared
by all channels. Mamba-2 (arXiv 2405.21060): one a head of P channels with one dt and one decay; B
and C are shared by the heads of a group. A is continuous and negative, so 0 < a < 1.

Both roundings sit inside the loop, the state's because its error feeds back, the decay's because a
tensor of all decays, (batch, length, channels, n), would be many times larger than the model: no
such tensor is ever built, whatever looks at or rounds it.

Arithmetic, fixed so that kernels can equal it bit for bit (float32, no contraction):

    a = exponential(dt · A)      see sensprobe.ops.exponential
    h = a · h + (dt · x) · B     two products, then the sum
    y = sum of C · h             from n = 0 upward
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from sensprobe.numerics.storage import Memory, Storage, fresh, passed, store
from sensprobe.ops.exponential import exponential


def selective_scan(
    x: Tensor,
    dt: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    decay: Storage = None,
    storage: Storage = None,
    memory: Memory | None = None,
) -> tuple[Tensor, Memory]:
    """Mamba's recurrence over a sequence.

    x, dt: (batch, length, channels). A: (channels, n). B, C: (batch, length, n). float32. `decay`
    is how the decay (channels, n) is rounded, `storage` how the state is kept. Returns y (batch,
    length, channels) and the memory, of state (batch, channels, n), after the last step; `memory`
    continues an earlier one.
    """
    if memory is None:
        memory = fresh(x.shape[0], tuple(A.shape), storage, x.device)

    def step(t: int, memory: Memory) -> tuple[Tensor, Memory]:
        a = passed(exponential(dt[:, t, :, None] * A), decay, memory.step)  # (b, d, n)
        drive = (dt[:, t] * x[:, t])[:, :, None] * B[:, t, None]
        memory = store(memory, a * memory.state + drive, storage)
        return total(C[:, t, None] * memory.state), memory

    return _over(x, step, memory)


def head_scan(
    x: Tensor,
    dt: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    decay: Storage = None,
    storage: Storage = None,
    memory: Memory | None = None,
) -> tuple[Tensor, Memory]:
    """Mamba-2's recurrence over a sequence.

    x: (batch, length, heads, p). dt: (batch, length, heads). A: (heads,). B, C: (batch, length,
    groups, n), each for heads / groups heads that follow one another. float32. `decay` is how the
    decay (heads,) is rounded, `storage` how the state is kept. Returns y, as x, and the memory, of
    state (batch, heads, p, n), after the last step; `memory` continues an earlier one.
    """
    batch, _, heads, p = x.shape
    groups, n = B.shape[2:]
    if memory is None:
        memory = fresh(batch, (heads, p, n), storage, x.device)

    def step(t: int, memory: Memory) -> tuple[Tensor, Memory]:
        a = passed(exponential(dt[:, t] * A), decay, memory.step)  # (b, h)
        B_t, C_t = (v[:, t].repeat_interleave(heads // groups, dim=1)[:, :, None] for v in (B, C))
        drive = (dt[:, t, :, None] * x[:, t])[..., None] * B_t
        memory = store(memory, a[:, :, None, None] * memory.state + drive, storage)
        return total(C_t * memory.state), memory

    return _over(x, step, memory)


def total(terms: Tensor) -> Tensor:
    """The sum over the last axis, from its first element upward."""
    first, *rest = terms.unbind(-1)
    for term in rest:
        first = first + term
    return first


def _over(
    x: Tensor, step: Callable[[int, Memory], tuple[Tensor, Memory]], memory: Memory
) -> tuple[Tensor, Memory]:
    """All steps of x's second axis, one after another."""
    y = []
    for t in range(x.shape[1]):
        out, memory = step(t, memory)
        y.append(out)
    return (torch.stack(y, dim=1) if y else torch.zeros_like(x)), memory
