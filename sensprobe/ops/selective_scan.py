"""The selective recurrence of Mamba (arXiv 2312.00752): a channel has its own dt and N decays.

    a_t = decayed(exp(dt_t A))                       computed at every step, used, gone
    h_t = store(a_t h_{t-1} + (dt_t x_t) B_t)        what memory does to the state
    y_t = sum_n C_{t,n} h_{t,n}                      reads the stored state

B and C are shared by all channels. A is continuous and negative, so 0 < a < 1.

Both roundings sit inside the loop, the state's because its error feeds back, the decay's because a
tensor of all decays, (batch, length, channels, n), would be many times larger than the model: no
such tensor is ever built, whatever looks at or rounds it.

Arithmetic, fixed so that kernels can equal it bit for bit (float32, no contraction):

    a = exponential(dt · A)      see sensprobe.ops.exponential
    h = a · h + (dt · x) · B     two products, then the sum
    y = sum of C · h             from n = 0 upward

`head_scan` is the recurrence of Mamba-2.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from sensprobe.numerics.storage import Carry, Storage, fresh, passed, store
from sensprobe.ops.exponential import exponential
from sensprobe.ops.selective_kernel import Call, fastest, run


def reference(
    x: Tensor,
    dt: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    decay: Storage = None,
    storage: Storage = None,
    carry: Carry | None = None,
) -> tuple[Tensor, Carry]:
    """Mamba's recurrence over a sequence.

    x, dt: (batch, length, channels). A: (channels, n). B, C: (batch, length, n). float32. `decay`
    is how the decay (channels, n) is rounded, `storage` how the state is kept. Returns y (batch,
    length, channels) and the carry, of state (batch, channels, n), after the last step; `carry`
    continues an earlier one.
    """
    if carry is None:
        carry = fresh(x.shape[0], tuple(A.shape), storage, x.device)

    def step(t: int, carry: Carry) -> tuple[Tensor, Carry]:
        a = passed(exponential(dt[:, t, :, None] * A), decay, carry.step)  # (b, d, n)
        drive = (dt[:, t] * x[:, t])[:, :, None] * B[:, t, None]
        carry = store(carry, a * carry.state + drive, storage)
        return total(C[:, t, None] * carry.state), carry

    return over_time(x, step, carry)


def total(terms: Tensor) -> Tensor:
    """The sum over the last axis, from its first element upward."""
    first, *rest = terms.unbind(-1)
    for term in rest:
        first = first + term
    return first


def over_time(
    x: Tensor, step: Callable[[int, Carry], tuple[Tensor, Carry]], carry: Carry
) -> tuple[Tensor, Carry]:
    """`step` for each place of x's second axis, one after another; the outputs as x."""
    y = []
    for t in range(x.shape[1]):
        out, carry = step(t, carry)
        y.append(out)
    return (torch.stack(y, dim=1) if y else torch.zeros_like(x)), carry


# -- by a kernel ----------------------------------------------------------------------------------


def selective_scan(
    x: Tensor,
    dt: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    decay: Storage = None,
    storage: Storage = None,
    carry: Carry | None = None,
) -> tuple[Tensor, Carry]:
    """`reference` by the fastest implementation of it; its arguments are left as they are.

    Gradients come from a kernel as well; rounding passes them on as if it were not there.
    """
    if carry is None:
        carry = fresh(x.shape[0], tuple(A.shape), storage, x.device)
    return fastest(_by_kernel, reference, x, dt, A, B, C, decay, storage, carry)


def _by_kernel(
    x: Tensor, dt: Tensor, A: Tensor, B: Tensor, C: Tensor, decay: Storage, storage: Storage,
    carry: Carry,
) -> tuple[Tensor, Carry]:  # fmt: skip
    """The kernel's result for one head of all channels."""
    residual = None if carry.residual is None else carry.residual[:, None]
    inner = Carry(carry.state[:, None], residual, carry.step)
    y, after = run(
        x[:, :, None], dt[:, :, None], None, A[None], B[:, :, None], C[:, :, None],
        Call(storage, inner, decay, one_head=True),
    )  # fmt: skip
    residual = None if after.residual is None else after.residual[:, 0]
    return y[:, :, 0], Carry(after.state[:, 0], residual, after.step)
